"""The n-grams of all benchmarks as a folder of arrays that workers memory-map.

texts      text, item, benchmark          an item's fields, or what the rule makes of them
items      name, benchmark
words      hashes of all texts' words; word_starts: where each text's begin
places     text, first word, first byte and byte behind of each n-gram, by n-gram, then text, then word
starts     first place of each n-gram
grams, filter_words, buckets              see `kernels.ngram_index`
info.json  counts of each benchmark; written last
"""

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ropewalk.kernels import ngram_index
from ropewalk.kernels.ngram_index import NgramIndex
from ropewalk.kernels.text_grams import same_text, text_grams
from ropewalk.kernels.word_borders import word_borders
from ropewalk.kernels.words import word_hashes
from ropewalk.schemas import files
from ropewalk.schemas.decontaminate import DecontaminateConfig
from ropewalk.transforms import utf8
from ropewalk.transforms.benchmarks import BenchmarkError, Item, Source, read_items

SHORTEST, LONGEST = 8, 13
"""Bounds of a derived n: Brown et al. 2020, appendix C."""


@dataclass(frozen=True)
class BenchmarkIndex:
    """An opened index, see the module.

    Attributes:
        url: The folder.
    """

    url: str

    def __reduce__(self) -> tuple[type["BenchmarkIndex"], tuple[str]]:
        """Workers open the folder themselves: arrays that were looked at do not travel."""
        return BenchmarkIndex, (self.url,)

    def column(self, name: str, column: int = 0) -> pa.Array:
        """A column of one of the folder's files."""
        return files.open_arrow(files.join(self.url, f"{name}.arrow")).read_next_batch().column(column)

    def _numbers(self, name: str) -> np.ndarray:
        return np.asarray(self.column(name))

    @functools.cached_property
    def info(self) -> dict[str, dict[str, Any]]:
        """Counts by benchmark, in the recipe's order."""
        found: dict[str, dict[str, Any]] = json.loads(files.read_bytes(files.join(self.url, "info.json")) or b"{}")
        return found

    @functools.cached_property
    def ngrams(self) -> np.ndarray:
        """Words of the n-grams of each benchmark, int64."""
        return np.array([entry["ngram"] for entry in self.info.values()], np.int64)

    @functools.cached_property
    def grams(self) -> NgramIndex:
        """What kernels look n-grams up in."""
        return NgramIndex(self._numbers("grams"), self._numbers("filter_words"), self._numbers("buckets"))

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """First place of each n-gram, and the end: int64[g + 1]."""
        return self._numbers("starts")

    @functools.cached_property
    def places(self) -> np.ndarray:
        """Text, first word, first byte, byte behind: uint32[places, 4]."""
        return self._numbers("places").reshape(-1, 4)

    @functools.cached_property
    def words(self) -> np.ndarray:
        """Hashes of the words of all texts, uint64."""
        return self._numbers("words")

    @functools.cached_property
    def word_starts(self) -> np.ndarray:
        """Where each text's words begin, and the end: int64[t + 1]."""
        return self._numbers("word_starts")

    @functools.cached_property
    def texts(self) -> tuple[np.ndarray, np.ndarray]:
        """Bytes and borders of the texts: uint8, int64[t + 1]."""
        return utf8.buffers(self.column("texts"))

    @functools.cached_property
    def item_of(self) -> np.ndarray:
        """Item of each text, int64[t]."""
        return np.asarray(self.column("texts", 1))

    @functools.cached_property
    def benchmark_of(self) -> np.ndarray:
        """Benchmark of each item, int64[i]."""
        return np.asarray(self.column("items", 1))

    @functools.cached_property
    def item_names(self) -> pa.Array:
        """Name of each item, string[i]."""
        return self.column("items")

    @functools.cached_property
    def names(self) -> list[str]:
        """Names of the benchmarks."""
        return list(self.info)


def build_index(url: str, sources: Sequence[Source], config: DecontaminateConfig) -> BenchmarkIndex:
    """Reads the benchmarks and writes their index, unless it is there.

    Raises:
        BenchmarkError: If a benchmark cannot be read, or nothing of it is long enough to be found.
    """
    if files.read_bytes(files.join(url, "info.json")) is not None:
        return BenchmarkIndex(url)
    texts: list[str] = []
    item_of: list[int] = []
    names: list[str] = []
    benchmark_of: list[int] = []
    lengths: list[np.ndarray] = []
    info: dict[str, dict[str, Any]] = {}
    for number, source in enumerate(sources):
        if config.parts == "answers" and not source.answers:
            raise BenchmarkError(
                f"benchmark {source.name!r}: rule {config.rule!r} looks for answers, and none are named: set `answers` "
                f"to the fields that hold them, or `parts: all`"
            )
        items = list(read_items(source))
        ngram = config.ngram or _derived(items)
        first = len(texts)
        for item in items:
            parts = _parts(item, config, ngram)
            texts += parts
            item_of += [len(names)] * len(parts)
            names.append(item.name)
            benchmark_of.append(number)
        lengths.append(np.full(len(texts) - first, ngram, np.int64))
        info[source.name] = {"items": len(items), "texts": len(texts) - first, "ngram": ngram}

    column = pa.array(texts, pa.large_string())
    del texts
    data, offsets = utf8.buffers(column)
    words, word_starts = word_hashes(data, offsets)
    ngrams = np.concatenate(lengths) if lengths else np.empty(0, np.int64)
    grams, places = text_grams(data, offsets, words, word_starts, ngrams)
    _count_short(info, config, np.diff(word_starts), ngrams, np.array(item_of, np.int64), np.array(benchmark_of))

    order = np.argsort(grams, kind="stable")  # texts and words stay in order within an n-gram
    grams, places = grams[order], places[order]
    del order
    distinct, starts = np.unique(grams, return_index=True)
    starts = np.concatenate([starts, [len(grams)]]).astype(np.int64)
    _check_hashes(data, offsets, places, starts)
    index = ngram_index.build(distinct)
    _write(url, "texts", {"text": column, "item": np.array(item_of, np.int64)})
    _write(url, "items", {"name": pa.array(names, pa.string()), "benchmark": np.array(benchmark_of, np.int64)})
    for name, values in {
        "words": words, "word_starts": word_starts, "places": places.reshape(-1), "starts": starts, **index._asdict(),
    }.items():  # fmt: skip
        _write(url, name, {name: values})
    files.write_bytes(files.join(url, "info.json"), json.dumps(info).encode())
    return BenchmarkIndex(url)


def _derived(items: Iterable[Item]) -> int:
    """The 5th percentile of the items' lengths in words, within bounds; an item is as long as its longest text."""
    longest = []
    for item in items:
        texts = pa.array([*item.texts, *item.answers], pa.large_string())
        longest.append(int(np.diff(word_hashes(*utf8.buffers(texts))[1]).max(initial=0)))
    return int(np.clip(np.percentile(longest, 5), SHORTEST, LONGEST))


def _parts(item: Item, config: DecontaminateConfig, ngram: int) -> list[str]:
    """The texts whose n-grams count."""
    if config.parts == "all":
        return [*item.texts, *item.answers]
    joints = [
        _tail(text, ngram - 1) + "\n" + _head(answer, ngram - 1) for text in item.texts for answer in item.answers
    ]
    return [*item.answers, *joints]


def _head(text: str, words: int) -> str:
    """The first words of a text."""
    data = text.encode()
    _, stops = word_borders(np.frombuffer(data, np.uint8))
    return data[: stops[min(words, len(stops)) - 1]].decode() if len(stops) else ""


def _tail(text: str, words: int) -> str:
    """The last words of a text."""
    data = text.encode()
    starts, _ = word_borders(np.frombuffer(data, np.uint8))
    return data[starts[max(len(starts) - words, 0)] :].decode() if len(starts) else ""


def _count_short(
    info: dict[str, dict[str, Any]], config: DecontaminateConfig, num_words: np.ndarray, ngrams: np.ndarray,
    item_of: np.ndarray, benchmark_of: np.ndarray,
) -> None:  # fmt: skip
    """Counts the items none of whose texts is long enough to match: never silently nothing.

    Raises:
        BenchmarkError: If they are all of a benchmark.
    """
    can = np.zeros(len(benchmark_of), bool)
    can[item_of[num_words >= ngrams + (config.skips is not None)]] = True
    for number, (name, entry) in enumerate(info.items()):
        entry["short-items"] = int((~can[benchmark_of == number]).sum())
        if entry["short-items"] == entry["items"]:
            raise BenchmarkError(
                f"benchmark {name!r}: none of its {entry['items']} items has a text of {entry['ngram']} words or more, "
                f"so nothing could ever match: set a smaller `ngram`, name other `fields`, or leave it out"
            )


def _check_hashes(data: np.ndarray, offsets: np.ndarray, places: np.ndarray, starts: np.ndarray) -> None:
    """Makes sure that equal hashes are equal words: all places of an n-gram are held against its first."""
    again = np.ones(len(places), bool)
    again[starts[:-1]] = False
    first = places[np.repeat(starts[:-1], np.diff(starts))[again]].astype(np.int64)
    borders = offsets[first[:, 0]][:, None] + first[:, 2:]
    if not same_text(data, borders, data, offsets, places[again]).all():
        raise BenchmarkError("two n-grams of the benchmarks have the same 64-bit hash: set another `ngram`")


def _write(url: str, name: str, columns: dict[str, Any]) -> None:
    batch = pa.RecordBatch.from_pydict({key: pa.array(values) for key, values in columns.items()})
    with files.atomic(files.join(url, f"{name}.arrow")) as sink, pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
