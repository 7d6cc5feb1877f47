"""Cuts spans of bytes out of texts: what later stages read when earlier ones found passages to leave out.

    pieces(text) = maximal runs of bytes outside the union of its spans;    out = the pieces, one after the other

Several stages may cut, each with its own ascending spans; those of different stages may overlap. Bound by memory: the
bytes that are left are moved once.

Shapes: `data` uint8[bytes], `offsets` int64[n + 1]; spans of all stages one after the other, `starts` and `stops`
int64[spans], counted from their text's start; `borders` int64[stages, n + 1] says where those of each text are.
"""

import numpy as np
from numba import njit


def cut_spans_reference(text: bytes, spans: list[tuple[int, int]]) -> bytes:
    """What is left of one text."""
    gone = {at for start, stop in spans for at in range(start, stop)}
    return bytes(byte for at, byte in enumerate(text) if at not in gone)


@njit(cache=True, nogil=True)
def check_spans(
    data: np.ndarray, offsets: np.ndarray, starts: np.ndarray, stops: np.ndarray, borders: np.ndarray
) -> tuple[int, int]:
    """Text and number of the first span that runs backwards, out of its text, or through a character; -1, -1: none."""
    for i in range(len(offsets) - 1):
        size = offsets[i + 1] - offsets[i]
        for stage in range(len(borders)):
            before = 0
            for k in range(borders[stage, i], borders[stage, i + 1]):
                start, stop = starts[k], stops[k]
                if start < before or stop < start or stop > size:
                    return i, k
                for at in (start, stop):
                    if at < size and data[offsets[i] + at] & 0xC0 == 0x80:
                        return i, k
                before = stop
    return -1, -1


@njit(cache=True, nogil=True)
def pieces(
    offsets: np.ndarray, starts: np.ndarray, stops: np.ndarray, borders: np.ndarray, begin: np.ndarray, end: np.ndarray
) -> np.ndarray:
    """What is left of each text, as spans of the buffer.

    Args:
        offsets: Where each text is in the buffer.
        starts: First byte of each span.
        stops: End of each span.
        borders: Where each stage's spans of each text are.
        begin: Receives where each piece begins in the buffer, int64[at least n + spans].
        end: Receives where it ends.

    Returns:
        Where the pieces of each text are, int64[n + 1].
    """
    stages = len(borders)
    place = np.empty(stages, np.int64)
    found = np.zeros(len(offsets), np.int64)
    count = 0
    for i in range(len(offsets) - 1):
        base, size = offsets[i], offsets[i + 1] - offsets[i]
        for stage in range(stages):
            place[stage] = borders[stage, i]
        at = np.int64(0)  # all before it is in a piece or cut
        while True:
            best = -1  # the stage whose next span begins first
            for stage in range(stages):
                if place[stage] < borders[stage, i + 1]:
                    if best < 0 or starts[place[stage]] < starts[place[best]]:
                        best = stage
            start = size if best < 0 else starts[place[best]]
            if start > at:
                begin[count], end[count] = base + at, base + start
                count += 1
            if best < 0:
                break
            at = max(at, stops[place[best]])
            place[best] += 1
        found[i + 1] = count
    return found


@njit(cache=True, nogil=True)
def copy_pieces(
    data: np.ndarray, begin: np.ndarray, end: np.ndarray, borders: np.ndarray, out: np.ndarray
) -> np.ndarray:
    """Copies the pieces of each text.

    Args:
        data: Bytes of the texts.
        begin: Where each piece begins.
        end: Where it ends.
        borders: Where the pieces of each text are, int64[n + 1].
        out: Receives them, uint8.

    Returns:
        Borders of the texts in `out`, int64[n + 1].
    """
    left = np.zeros(len(borders), np.int64)
    to = 0
    for i in range(len(borders) - 1):
        for piece in range(borders[i], borders[i + 1]):
            size = end[piece] - begin[piece]
            # Long runs by memcpy, short ones without the call.
            if size >= 64:
                out[to : to + size] = data[begin[piece] : end[piece]]
            else:
                for j in range(size):
                    out[to + j] = data[begin[piece] + j]
            to += size
        left[i + 1] = to
    return left
