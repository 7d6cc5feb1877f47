"""What a neural encoder is to the pipeline: it cuts texts into pieces, and turns windows of pieces into vectors.

A text that is longer than an encoder's window is none of the encoder's business: `windows.WindowEmbedder` sees to it.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from ropewalk.transforms.tokenizers import JsonTokenizer, TokenizerSource

Pieces = Any
"""A text as an encoder counts it: token ids (uint32[n]) or characters (str); anything with a length and slices."""


class EmbedderError(RuntimeError):
    """An embedder cannot be had, or died; the message names it and the remedy."""


class Encoder(Protocol):
    """Windows to vectors.

    Attributes:
        name: What it is called in a recipe.
        limit: Pieces that a window holds, special tokens not counted.
        short: A last window with fewer pieces counts less.
        dimensions: Length of its vectors.
        fingerprint: Hash of all that decides which vector a window gets, hex.
    """

    name: str

    @property
    def limit(self) -> int: ...  # noqa: D102

    @property
    def short(self) -> int: ...  # noqa: D102

    @property
    def dimensions(self) -> int: ...  # noqa: D102

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    def setup(self) -> None:
        """Loads the model; once in each worker."""

    def pieces(self, texts: pa.Array) -> list[Pieces]:
        """The pieces of each text: large_string[n] without nulls -> n."""

    def encode(self, windows: Sequence[Pieces]) -> np.ndarray:
        """A vector of each window, none of them empty or too long: float32[n, dimensions]."""


class WindowTokenizer:
    """A `tokenizer.json`: ids of texts without special tokens, and the special tokens that go around a window.

    Raises:
        TokenizerError: It cannot be read.
    """

    def __init__(self, source: TokenizerSource) -> None:
        import tokenizers

        self._tokenizer = JsonTokenizer(source)
        marked: Any = tokenizers.Tokenizer.from_str(source.json)
        marked.no_truncation()
        marked.no_padding()
        bare, whole = (marked.encode("rope", add_special_tokens=special).ids for special in (False, True))
        start = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
        self.before = np.array(whole[:start], np.uint32)
        self.after = np.array(whole[start + len(bare) :], np.uint32)
        self.special = len(whole) - len(bare)
        self.vocab_size = self._tokenizer.vocab_size

    def pieces(self, texts: pa.Array) -> list[np.ndarray]:
        """See `Encoder.pieces`; a special token spelt out in a text is ordinary text."""
        ids, lengths = self._tokenizer.encode(texts)
        return np.split(ids, np.cumsum(lengths)[:-1]) if len(lengths) else []

    def wrap(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        """Windows of equal length with their special tokens: int64[n, length + special]."""
        rows = np.stack(windows)
        before, after = (np.broadcast_to(part, (len(rows), len(part))) for part in (self.before, self.after))
        return np.concatenate([before, rows, after], axis=1).astype(np.int64)


def equal_lengths(windows: Sequence[Pieces], batch: int) -> Iterator[np.ndarray]:
    """Indices of windows that have the same length, at most `batch` at a time, the longest first.

    No window is ever padded: none costs more than it must, and none's vector depends on its company.
    """
    lengths = np.array([len(window) for window in windows], np.int64)
    order = np.argsort(-lengths, kind="stable")
    borders = [0, *(np.flatnonzero(np.diff(lengths[order])) + 1).tolist(), len(order)]
    for start, stop in zip(borders[:-1], borders[1:], strict=True):
        for first in range(start, stop, batch):
            yield order[first : min(first + batch, stop)]
