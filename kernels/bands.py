"""LSH bands: a signature cut into bands of `rows` values; texts that agree on a whole band become candidates.

    P(candidates | Jaccard s) = 1 - (1 - s^rows)^bands

A band's key is a 64-bit hash of the band's number and its values,

    h <- START + band;   for each value v:  h <- (h ^ v) * M1;  h <- h ^ (h >> 32);    key = mix(h)

so keys of different bands never meet but by accident, and an accident only costs a look at two texts.
"""

import numpy as np
from numba import njit

from ropewalk.kernels.shingles import mix

_START = 0xA0761D6478BD642F
_M1 = 0xE7037ED1A0B428DB


def band_keys_reference(signatures: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """Keys of all bands, see `band_keys`."""
    parts = signatures[:, : bands * rows].reshape(len(signatures), bands, rows).astype(np.uint64)
    h = np.broadcast_to(np.uint64(_START) + np.arange(bands, dtype=np.uint64), parts.shape[:2])
    for row in range(rows):
        h = (h ^ parts[:, :, row]) * np.uint64(_M1)
        h = h ^ h >> np.uint64(32)
    for shift, multiplier in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        h = (h ^ h >> np.uint64(shift)) * np.uint64(multiplier)
    keys: np.ndarray = h ^ h >> np.uint64(31)
    return keys


@njit(cache=True, nogil=True)
def _band_keys(signatures: np.ndarray, bands: int, rows: int, out: np.ndarray) -> None:
    for i in range(len(signatures)):
        for band in range(bands):
            h = np.uint64(_START) + np.uint64(band)
            for k in range(band * rows, band * rows + rows):
                h = (h ^ np.uint64(signatures[i, k])) * np.uint64(_M1)
                h = h ^ (h >> np.uint64(32))
            out[i, band] = mix(h)


def band_keys(signatures: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """Keys of all bands.

    Args:
        signatures: uint32[n, bands * rows or more].
        bands: Number of bands.
        rows: Values in a band.

    Returns:
        uint64[n, bands].
    """
    if signatures.shape[1] < bands * rows:
        raise ValueError(f"{bands} bands of {rows} rows need {bands * rows} values, got {signatures.shape[1]}")
    out = np.empty((len(signatures), bands), np.uint64)
    _band_keys(signatures, bands, rows, out)
    return out


def match_probability(similarity: float, bands: int, rows: int) -> float:
    """Chance that two texts of a Jaccard similarity become candidates: the S-curve."""
    return float(1 - (1 - similarity**rows) ** bands)


def midpoint(bands: int, rows: int) -> float:
    """Where the S-curve is steep: (1 / bands)^(1 / rows); 14 x 8: 0.72, 20 x 13: 0.79."""
    return float((1 / bands) ** (1 / rows))
