"""Text to token ids, row for row."""

from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.schemas import tables
from ropewalk.transforms import tokenizer_files
from ropewalk.transforms.tokenizers import Tokenizer, TokenizerError, use_threads


def tokenize(batch: pa.RecordBatch, tokenizer: Tokenizer, *, add_eos: bool = True) -> pa.RecordBatch:
    """Token ids of each document.

    Args:
        batch: n rows with `text` (large_string) and, where some are out, `alive` (bool).
        tokenizer: The tokenizer.
        add_eos: Whether each document ends with the tokenizer's end-of-text token.

    Returns:
        n rows of `tables.TOKENIZE`; null and 0 where a row is not alive.
    """
    alive = alive_rows(batch)
    values, lengths = tokenizer.encode(batch.column("text").filter(pa.array(alive)))
    if add_eos:
        values, lengths = _append(values, lengths, end_of_text(tokenizer)), lengths + 1
    if len(values) >= 2**31:
        raise ValueError(f"a batch of {batch.num_rows} documents has {len(values)} tokens: write smaller batches")
    num_tokens = np.zeros(len(alive), np.int64)
    num_tokens[alive] = lengths
    offsets = np.concatenate([[0], np.cumsum(num_tokens)]).astype(np.int32)
    ids = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), mask=pa.array(~alive))
    return pa.RecordBatch.from_arrays([ids, pa.array(num_tokens.astype(np.uint32))], schema=tables.TOKENIZE)


def alive_rows(batch: pa.RecordBatch) -> np.ndarray:
    """Which rows take part: column `alive`, or all where there is none; bool[n]."""
    if "alive" not in batch.schema.names:
        return np.ones(batch.num_rows, bool)
    return pc.fill_null(batch.column("alive"), False).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def end_of_text(tokenizer: Tokenizer) -> int:
    """The tokenizer's end-of-text id.

    Raises:
        TokenizerError: It has none.
    """
    if tokenizer.eos is None:
        raise TokenizerError(
            f"{tokenizer.name}: no end-of-text token is known: put a tokenizer_config.json with `eos_token` beside its "
            f"tokenizer.json, or set tokenize.add_eos to false"
        )
    return tokenizer.eos


def _append(values: np.ndarray, lengths: np.ndarray, last: int) -> np.ndarray:
    """Appends `last` to each of the runs of `values` whose lengths are given."""
    out = np.empty(len(values) + len(lengths), np.uint32)
    stops = np.cumsum(lengths)
    # A plain copy for each run: a mask over all values would touch memory several times more.
    for row, (start, stop) in enumerate(zip((stops - lengths).tolist(), stops.tolist(), strict=True)):
        out[start + row : stop + row] = values[start:stop]
    out[stops + np.arange(len(stops))] = last
    return out


@dataclass
class Tokenize(beam.PTransform):
    """Batches of documents in, their `tables.TOKENIZE` columns out, row for row.

    Attributes:
        tokenizer: `auto`, `smollm2`, `bytes`, path or URL of a `tokenizer.json`, or a Hub id.
        add_eos: Append the end-of-text token to every document.
        threads: Threads the tokenizer may use.
        fingerprint: What the tokenizer's fingerprint must be: a worker that finds another one under the same name
            fails. None: not checked.
    """

    tokenizer: str = "auto"
    add_eos: bool = True
    threads: int = 1
    fingerprint: str | None = None

    def setup(self) -> None:
        """Loads the tokenizer."""
        self._load()

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Columns and counts."""
        result = tokenize(batch, self._load(), add_eos=self.add_eos)
        docs = result.num_rows - result.column("input_ids").null_count
        return result, {"tokenized-docs": docs, "tokens": pc.sum(result.column("num_tokens")).as_py() or 0}

    def _load(self) -> Tokenizer:
        use_threads(self.threads)
        loaded = tokenizer_files.load(self.tokenizer)
        if self.fingerprint not in (None, loaded.fingerprint):
            raise TokenizerError(
                f"tokenizer {self.tokenizer!r} has fingerprint {loaded.fingerprint} here, expected {self.fingerprint}: "
                f"all workers must see the same file"
            )
        return loaded

    def _columns(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return self(batch)[0]

    def expand(self, documents: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Maps each batch."""
        return documents | beam.Map(self._columns).with_output_types(pa.RecordBatch)
