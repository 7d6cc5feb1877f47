"""Batch functions of decontamination: search, judge, write.

    SearchGrams        documents   -> FOUND, rows of those with an n-gram of a benchmark
    JudgeDocuments     FOUND       -> JUDGED, rows of those that hold a benchmark's item
    WriteContamination documents   -> tables.DECONTAMINATE, row for row

What is rare moves alone: most documents hold no n-gram of any benchmark, and end with the first step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.kernels.ngram_matches import count_matches, matching_grams
from ropewalk.schemas import address, tables
from ropewalk.schemas.decontaminate import DecontaminateConfig
from ropewalk.transforms import contamination, utf8
from ropewalk.transforms.benchmark_index import BenchmarkIndex
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir
from ropewalk.transforms.gather import Gather
from ropewalk.transforms.masks import Mask
from ropewalk.transforms.shards import ShardFolder

FOUND = pa.schema(
    [
        pa.field("document", pa.uint64(), False),
        pa.field("grams", pa.list_(pa.int64()), False),  # ascending, apart
    ]
)

JUDGED = pa.schema(
    [
        pa.field("document", pa.uint64(), False),
        *tables.DECONTAMINATE,
        pa.field("items", pa.list_(pa.int64()), False),
        pa.field("touched", pa.list_(pa.int64()), False),
    ]
)


@dataclass
class SearchGrams:
    """Batch function: texts in, a row of `FOUND` out for each in which an n-gram of the index stands.

    Attributes:
        index: The benchmarks.
        threads: Threads for the kernel.
    """

    index: BenchmarkIndex
    threads: int = 1

    def setup(self) -> None:
        """Nothing is held: arrays are mapped when they are asked for."""

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Searches; rows that `alive` puts out are skipped."""
        data, offsets = utf8.buffers(batch.column("text"))
        alive = batch.column("alive").to_numpy(zero_copy_only=False)
        counts = np.zeros(batch.num_rows, np.int64)
        grams, ngrams = self.index.grams, np.unique(self.index.ngrams)

        def run(first: int, last: int) -> None:
            count_matches(data, offsets, alive, grams, ngrams, counts, first, last)

        utf8.spread(run, offsets, self.threads)
        rows = np.flatnonzero(counts)
        found = [matching_grams(data, offsets[row], offsets[row + 1], grams, ngrams) for row in rows]
        result = pa.RecordBatch.from_arrays(
            [
                batch.column("address").take(pa.array(rows)),
                pa.array(found, FOUND.field(1).type),
            ],
            schema=FOUND,
        )
        return result, {
            "searched-docs": int(alive.sum()),
            "searched-bytes": int(np.diff(offsets)[alive].sum()),
            "matching-docs": len(rows),
        }


@dataclass
class JudgeDocuments:
    """Batch function: rows of `FOUND` in, rows of `JUDGED` out for documents that a rule holds against.

    Attributes:
        corpus: Where the texts are.
        index: The benchmarks.
        config: The rule, and what follows from it.
        ignored: Folder of one shard: n-grams found in too many documents.
    """

    corpus: CorpusDir
    index: BenchmarkIndex
    config: DecontaminateConfig
    ignored: ShardFolder
    _open: tuple[Gather, np.ndarray] | None = field(default=None, init=False, repr=False)

    def setup(self) -> None:
        """Opens the texts, and marks what does not count."""
        ignored = np.zeros(len(self.index.grams.grams), bool)
        for batch in self.ignored.read(0):
            ignored[batch.column("gram").to_numpy()] = True
        self._open = Gather(self.corpus, DOCUMENTS, ["text"]), ignored

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Judges one document after the other."""
        assert self._open is not None
        gather, ignored = self._open
        rows: list[dict[str, Any]] = []
        unfinished = 0
        for place in batch.column("document").to_numpy():
            data, offsets = utf8.buffers(gather.rows(np.array([place])).column(0))
            text = data[offsets[0] : offsets[1]]
            finding = contamination.find(text, self.index, ignored, self.config)
            unfinished += not finding.complete
            if len(finding.items) or len(finding.touched):
                rows.append(self._row(int(place), text, finding))
        return pa.RecordBatch.from_pylist(rows, schema=JUDGED), {
            "touched-docs": sum(not row["items"] for row in rows),
            "unfinished-docs": unfinished,
        }

    def _row(self, place: int, text: np.ndarray, finding: contamination.Finding) -> dict[str, Any]:
        clean, masked = not finding.spans or self.config.action == "flag", []
        if finding.spans and self.config.action == "mask":
            mask = Mask(self.config.window, self.config.min_piece, self.config.max_pieces)
            cut = mask.cut(text, [(start, stop) for start, stop, _ in finding.spans])
            clean, masked = cut is not None, cut or []
        names, benchmark_of = self.index.item_names, self.index.benchmark_of
        return {
            "document": place,
            "clean": clean,
            "contaminated_spans": [
                {
                    "start": start,
                    "stop": stop,
                    "benchmark": self.index.names[benchmark_of[item]],
                    "item": names[item].as_py(),
                }
                for start, stop, item in finding.spans
            ],
            "masked_spans": [{"start": start, "stop": stop} for start, stop in masked],
            "items": finding.items.tolist(),
            "touched": finding.touched.tolist(),
        }


@dataclass
class WriteContamination:
    """Batch function: places of documents in, their rows of `tables.DECONTAMINATE` out.

    Attributes:
        judged: Folder of `JUDGED`, a shard for each of the corpus.
        action: What is done with contaminated documents.
        benchmarks: Names of the benchmarks.
    """

    judged: ShardFolder
    action: str
    benchmarks: Sequence[str]
    _shard: tuple[int, pa.RecordBatch] | None = field(default=None, init=False, repr=False)

    def setup(self) -> None:
        """Nothing to open yet: a shard's verdicts are read with its first documents."""

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Verdicts in the order of the rows, and what became of the documents; without a finding they are clean."""
        places = batch.column("address").to_numpy()
        alive = batch.column("alive").to_numpy(zero_copy_only=False)
        verdicts = self._verdicts(int(address.shards(places[:1])[0]))
        known = verdicts.column("document").to_numpy()[:-1]
        at = np.searchsorted(known, places)
        at[~np.isin(places, known)] = len(known)  # the last row: clean
        found = verdicts.take(pa.array(at)).select(tables.DECONTAMINATE.names)
        clean = pa.array(found.column("clean").to_numpy(zero_copy_only=False), mask=~alive)
        result = pa.RecordBatch.from_arrays([clean, *found.columns[1:]], schema=tables.DECONTAMINATE)
        return result, self._counters(found, alive)

    def _counters(self, found: pa.RecordBatch, alive: np.ndarray) -> dict[str, int]:
        spans = found.column("contaminated_spans")
        contaminated = spans.value_lengths().to_numpy() > 0
        dropped = contaminated & ~found.column("clean").to_numpy(zero_copy_only=False)
        outcome = {"drop": "dropped", "mask": "masked", "flag": "flagged"}[self.action]
        cuts = found.column("masked_spans").flatten()
        counters = {"put_out-docs": int((~alive).sum()), "clean-docs": int((alive & ~contaminated).sum())}
        counters |= {"dropped-docs": 0, f"{outcome}-docs": int((contaminated & ~dropped).sum())}
        counters["dropped-docs"] += int(dropped.sum())
        counters["masked-bytes"] = int(np.sum(cuts.field(1).to_numpy().astype(np.int64) - cuts.field(0).to_numpy()))
        named = pa.table({"row": pc.list_parent_indices(spans), "benchmark": spans.flatten().field(2)})
        for name in self.benchmarks:
            rows = named.filter(pc.equal(named["benchmark"], name))["row"]
            counters[f"benchmark:{name}-docs"] = pc.count_distinct(rows).as_py()
            counters[f"benchmark:{name}-spans"] = len(rows)
        return counters

    def _verdicts(self, shard: int) -> pa.RecordBatch:
        if self._shard is None or self._shard[0] != shard:
            nothing: dict[str, Any] = {"document": 0, "clean": True} | {name: [] for name in JUDGED.names[2:]}
            end = pa.RecordBatch.from_pylist([nothing], schema=JUDGED)
            self._shard = shard, pa.concat_batches([*self.judged.read(shard), end])
        return self._shard[1]


def common_grams(found: ShardFolder, num_grams: int, max_documents: int | None) -> np.ndarray:
    """N-grams of the index that stand in more documents than allowed: int64[any]; reads all of `FOUND`."""
    if max_documents is None:
        return np.empty(0, np.int64)
    documents = np.zeros(num_grams, np.int64)
    for shard in range(found.num_shards):
        for batch in found.read(shard):
            documents += np.bincount(batch.column("grams").flatten().to_numpy(), minlength=num_grams)
    return np.flatnonzero(documents > max_documents)


def report_facts(
    judged: ShardFolder, index: BenchmarkIndex, corpus: CorpusDir, *, examples: int, characters: int
) -> dict[str, dict[str, Any]]:
    """What was found of each benchmark.

    Args:
        judged: Folder of `JUDGED`.
        index: The benchmarks.
        corpus: Where the documents are.
        examples: Passages shown of each benchmark: those of the documents with the smallest ids.
        characters: Most characters of a passage.

    Returns:
        By benchmark: `items`, `texts`, `short-items`, `ngram`, `hit-items`, `touched-items`, `docs`, and `examples`, a
        list of `item`, `document`, `passage`.
    """
    ids = Gather(corpus, DOCUMENTS, ["id"])
    hit, touched = (np.zeros(len(index.benchmark_of), bool) for _ in range(2))
    docs = dict.fromkeys(index.names, 0)
    shown: dict[str, list[tuple[str, int, int, str, int]]] = {name: [] for name in index.names}
    for shard in range(judged.num_shards):
        for batch in judged.read(shard):
            hit[batch.column("items").flatten().to_numpy()] = True
            touched[batch.column("touched").flatten().to_numpy()] = True
            names = ids.rows(batch.column("document").to_numpy()).column(0)
            for row, spans in enumerate(batch.column("contaminated_spans").to_pylist()):
                where = batch.column("document")[row].as_py()
                for name in {span["benchmark"] for span in spans}:
                    span = next(span for span in spans if span["benchmark"] == name)
                    docs[name] += 1
                    example = (names[row].as_py(), span["start"], span["stop"], span["item"], where)
                    shown[name] = sorted([*shown[name], example])[:examples]
    texts = Gather(corpus, DOCUMENTS, ["text"])

    def passage(where: int, start: int, stop: int) -> str:
        text = texts.rows(np.array([where], np.uint64)).column(0)[0].as_py().encode()
        return str(text[start:stop].decode()[:characters])

    return {
        name: entry
        | {
            "hit-items": int(hit[index.benchmark_of == number].sum()),
            "touched-items": int((touched & ~hit)[index.benchmark_of == number].sum()),
            "docs": docs[name],
            "examples": [
                {"item": item, "document": document, "passage": passage(where, start, stop)}
                for document, start, stop, item, where in shown[name]
            ],
        }
        for number, (name, entry) in enumerate(index.info.items())
    }


GRAMS: pa.Schema = pa.schema([pa.field("gram", pa.int64(), False)])
"""N-grams of the index, by place."""


def write_grams(folder: ShardFolder, grams: Sequence[int] | np.ndarray) -> None:
    """Writes n-grams as the one shard of a folder."""
    with folder.writer(0) as writer:
        writer.write(pa.RecordBatch.from_arrays([pa.array(grams, pa.int64())], schema=GRAMS))
