"""Documents of any length from an encoder with a window: overlapping windows, pooled.

    windows   of the encoder's limit, each `overlap` of it beyond the one before; where there are more than
              `max_windows`, so many of them, evenly spaced, the first and the last among them
    weight    of a window: its pieces; of a last one with fewer than `short`, pieces * pieces / short
    vector    the weighted mean of the normalised windows, normalised (`kernels.pool_windows`)

A document that fits a window gets what the plain encoder makes of it. Vectors longer than `dimensions` are shortened
window by window: `truncate` keeps the first numbers (for encoders trained so: Kusupati et al. 2022, arXiv 2205.13147),
`project` multiplies by a matrix of random signs (Achlioptas 2003), which keeps cosines up to about dimensions^-1/2.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from ropewalk.kernels import grid, pool_windows
from ropewalk.schemas.tables import MAX_DIMENSIONS
from ropewalk.transforms.embedders.encoder import EmbedderError, Encoder, Pieces

PROJECTION_SEED = 0x51A5


@dataclass(frozen=True)
class Windowed:
    """What a windowed embedder knows of n texts.

    Attributes:
        vectors: float16[n, d], unit vectors on the grid.
        heads: float16[n, d], those of the first windows.
        dispersion: float32[n], 1 - length of the mean of the unit window vectors.
        num_windows: uint32[n], windows that were encoded.
        not_finite: bool[n], where the encoder gave NaN or infinity for a window, which was then left out.
    """

    vectors: np.ndarray
    heads: np.ndarray
    dispersion: np.ndarray
    num_windows: np.ndarray
    not_finite: np.ndarray


@dataclass
class WindowEmbedder:
    """An `embed.Embedder` for documents of any length.

    Attributes:
        encoder: Turns a window into a vector.
        window: Pieces of a window; none: as many as the encoder takes.
        overlap: Share of a window that the next one repeats.
        max_windows: Windows of one document, at most.
        dimensions: Numbers of a vector; none: as many as the encoder has, at most 512.
        reduce: How a longer vector is shortened.
    """

    encoder: Encoder
    window: int | None = None
    overlap: float = 0.1
    max_windows: int = 8
    wanted: int | None = None
    reduce: Literal["project", "truncate"] = "project"
    reusable = True
    windowed = True

    @property
    def name(self) -> str:
        """The encoder's."""
        return self.encoder.name

    @property
    def dimensions(self) -> int:
        """Numbers of a vector."""
        return min(self.encoder.dimensions, self.wanted or MAX_DIMENSIONS)

    @property
    def fingerprint(self) -> str:
        """Hash of the encoder and the pooling."""
        parts = (1, self._window, self.overlap, self.max_windows, self.dimensions, self.encoder.short, self.reduce)
        return hashlib.sha256(f"windows {parts} {self.encoder.fingerprint}".encode()).hexdigest()

    def setup(self) -> None:
        """Loads the encoder."""
        self.encoder.setup()

    def embed(self, texts: pa.Array) -> np.ndarray:
        """See `embed.Embedder.embed`; a text without a piece gets the zero vector."""
        return self.embed_windows(texts).vectors

    def embed_windows(self, texts: pa.Array) -> Windowed:
        """Vectors of large_string[n] without nulls, and what else the windows tell."""
        pieces = self.encoder.pieces(texts)
        spans = [spans_of(len(text), self._window, self.overlap, self.max_windows) for text in pieces]
        borders = np.cumsum([0, *map(len, spans)])
        windows = [text[a:b] for text, found in zip(pieces, spans, strict=True) for a, b in found]
        made = self._encode(windows)
        finite = np.isfinite(made).all(axis=1)
        made[~finite] = 0
        rounded = pool_windows.units(made)
        weights = self._weights(windows, borders) * finite
        vectors, dispersion = pool_windows.pool(rounded, weights, borders)
        heads = np.zeros_like(vectors)
        some = np.flatnonzero(np.diff(borders))
        heads[some] = rounded[borders[some]] / pool_windows.STEPS
        bad = np.zeros(len(spans), np.int64)
        np.add.at(bad, np.searchsorted(borders, np.flatnonzero(~finite), side="right") - 1, 1)
        return Windowed(
            grid.normalise(vectors),
            grid.normalise(heads),
            dispersion,
            np.diff(borders).astype(np.uint32),
            bad > 0,
        )

    @property
    def _window(self) -> int:
        limit = self.encoder.limit
        if self.window is not None and self.window > limit:
            raise EmbedderError(f"embed.window is {self.window}, but {self.name} takes at most {limit}: lower it")
        return self.window or limit

    def _encode(self, windows: Sequence[Pieces]) -> np.ndarray:
        width = self.encoder.dimensions
        made = self.encoder.encode(windows) if windows else np.zeros((0, width), np.float32)
        if made.shape != (len(windows), width):
            raise EmbedderError(
                f"embedder {self.name} gave vectors of shape {made.shape} for {len(windows)} windows, expected "
                f"({len(windows)}, {width}): is it the model the recipe names?"
            )
        if width > self.dimensions:
            made = reduce_vectors(made, self.dimensions, self.reduce)
        return np.array(made, np.float32)

    def _weights(self, windows: Sequence[Pieces], borders: np.ndarray) -> np.ndarray:
        """Weight of each window in 1 / `short` of a piece: int64[m]."""
        lengths = np.array([len(window) for window in windows], np.int64)
        short = self.encoder.short
        last = np.zeros(len(windows), bool)
        many = np.diff(borders) > 1
        last[borders[1:][many] - 1] = True
        return lengths * np.where(last, np.minimum(lengths, short), short)


def spans_of(length: int, window: int, overlap: float, most: int) -> list[tuple[int, int]]:
    """Where the windows of a text of `length` pieces lie.

    The steps are whole numbers, and the last window is what is left: longer than the overlap, at most a window.
    """
    if length <= window:
        return [(0, length)] if length else []
    repeated = min(int(window * overlap), window - 1)
    step = window - repeated
    count = -(-(length - repeated) // step)
    chosen = range(count) if count <= most else [i * (count - 1) // max(most - 1, 1) for i in range(most)]
    return [(i * step, min(i * step + window, length)) for i in chosen]


def reduce_vectors(vectors: np.ndarray, dimensions: int, how: str) -> np.ndarray:
    """Shorter vectors: float32[n, d] -> float32[n, dimensions], `how` as in `WindowEmbedder.reduce`."""
    if how == "truncate":
        return vectors[:, :dimensions]
    finite = np.isfinite(vectors).all(axis=1)
    # Rounded to integers, the products are exact in float64: no blocking of the matrix product shows.
    rounded = pool_windows.units(np.where(finite[:, None], vectors, 0)).astype(np.float64)
    found: np.ndarray = (rounded @ signs(vectors.shape[1], dimensions)).astype(np.float32)
    found[~finite] = np.nan
    return found


def signs(width: int, dimensions: int) -> np.ndarray:
    """The random signs of a projection: float64[width, dimensions] of -1 and 1, the same on every machine."""
    count = width * dimensions
    drawn = hashlib.shake_256(f"{PROJECTION_SEED} {width} {dimensions}".encode()).digest((count + 7) // 8)
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8))[:count]
    return bits.reshape(width, dimensions) * 2.0 - 1.0
