"""LSH bands: a signature cut into bands of `rows` values; texts that agree on a whole band become candidates.

    P(candidates | Jaccard s) = 1 - (1 - s^rows)^bands

What a threshold t makes of this S-curve is told by two areas, those that `datasketch.MinHashLSH` weighs:

    false negatives  integral over t … 1 of 1 - P(s)        pairs to be found that are not
    false positives  integral over 0 … t of P(s)            pairs that are looked at in vain

A band's key is a 64-bit hash of the band's number and its values,

    h <- START + band;   for each value v:  h <- (h ^ v) * M1;  h <- h ^ (h >> 32);    key = mix(h)

so keys of different bands never meet but by accident, and an accident only costs a look at two texts.
"""

import numpy as np
from numba import njit

from ropewalk.kernels.shingles import mix

MOST_BANDS, MOST_ROWS = 512, 64
"""What `derive` may choose, at most."""

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


def errors(bands: int, rows: int, threshold: float) -> tuple[float, float]:
    """Areas of false negatives above a similarity and of false positives below it, see the module."""
    missed = 1 - threshold - _area(bands, rows, threshold, 1.0)
    return missed, _area(bands, rows, 0.0, threshold)


def derive(threshold: float, recall: float, values: int) -> tuple[int, int]:
    """The bands and rows that find enough of the pairs at a threshold and look at the fewest others in vain.

    Args:
        threshold: Jaccard similarity, 0 … 1.
        recall: Share of the pairs of just this similarity that must become candidates; of more similar ones more do.
        values: Values that a signature may have.

    Returns:
        Bands and rows, at most `MOST_BANDS` and `MOST_ROWS`, with bands * rows <= values and `match_probability` at the
        threshold of at least `recall`, and the smallest area of false positives; of two with the same, the one of
        fewer values.

    Raises:
        ValueError: No bands and rows reach the recall.
    """
    found = []
    for rows in range(1, min(values, MOST_ROWS) + 1):
        bands = _fewest_bands(threshold, recall, rows, min(values // rows, MOST_BANDS))
        if bands:
            found.append((_area(bands, rows, 0.0, threshold), bands * rows, bands, rows))
    if not found:
        most = match_probability(threshold, values, 1)
        raise ValueError(
            f"{values} values cannot find {recall} of the pairs of similarity {threshold}, at most {most:.4f} of them "
            f"({values} bands of 1 row): more values, a higher threshold or a lower recall"
        )
    return min(found)[2:]


def _fewest_bands(threshold: float, recall: float, rows: int, most: int) -> int:
    """Fewest bands of so many rows that reach the recall; 0 if `most` do not."""
    low, high = 1, most
    if most < 1 or match_probability(threshold, most, rows) < recall:
        return 0
    while low < high:  # more bands find more
        middle = (low + high) // 2
        if match_probability(threshold, middle, rows) < recall:
            low = middle + 1
        else:
            high = middle
    return low


def _area(bands: int, rows: int, first: float, last: float) -> float:
    """Area under the S-curve, by Gauss's rule on pieces about its steep part: exact to about ten digits."""
    middle = midpoint(bands, rows)
    width = 1 / (bands * rows) ** 0.5
    cuts = sorted({first, last, *(min(max(middle + k * width, first), last) for k in range(-4, 5))})
    nodes, weights = np.polynomial.legendre.leggauss(40)
    total = 0.0
    for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
        s = start + (nodes + 1) / 2 * (stop - start)
        total += float(weights @ (1 - (1 - s**rows) ** bands)) * (stop - start) / 2
    return total
