"""The longest piece of a sequence that stands in it twice without overlapping itself.

    repeat = max l over i + l <= j with text[i : i + l] == text[j : j + l]

Without the last condition a run of one symbol would count as a repeat of almost its whole length; with it, of half.

From the suffix array: lcp[k] = length of the longest common prefix of suffixes sa[k-1] and sa[k] (Kasai et al., CPM
2001), and its intervals, visited with a stack (Abouelhoda, Kurtz and Ohlebusch, JDA 2004). The suffixes of an interval
share a prefix of l symbols; if the first and the last of them in the text are d apart, they hold a repeat of
min(l, d), and the greatest of these is the longest.

Shapes: text int32[n], suffix array int32[n]; 20 bytes a symbol of memory, linear time.
"""

import numpy as np
from numba import njit


def longest_repeat_reference(text: list[int]) -> int:
    """Its length by comparing all pairs, O(n^3)."""
    n = len(text)
    fits = (size for size in range(n // 2, 0, -1) for i in range(n) for j in range(i + size, n - size + 1)
            if text[i : i + size] == text[j : j + size])  # fmt: skip
    return next(fits, 0)


@njit(cache=True, nogil=True)
def longest_repeat(text: np.ndarray, sa: np.ndarray) -> tuple[int, int, int]:
    """Finds it.

    Args:
        text: int32[n].
        sa: Its suffix array, int32[n].

    Returns:
        Length, and where its first and its last occurrence start; length 0 if nothing is repeated.
    """
    n = len(text)
    lcp = lcp_array(text, sa)
    # An open interval: shared length, and the first and the last position of its suffixes in the text.
    length, first, last = np.empty(n + 1, np.int32), np.empty(n + 1, np.int32), np.empty(n + 1, np.int32)
    best, best_first, best_last = 0, 0, 0
    top = -1
    for k in range(1, n + 1):
        shared = lcp[k] if k < n else np.int32(0)
        low, high = sa[k - 1], sa[k - 1]
        while top >= 0 and length[top] > shared:
            low, high = min(low, first[top]), max(high, last[top])
            size = min(int(length[top]), int(high) - int(low))
            if size > best:
                best, best_first, best_last = size, int(low), int(high)
            top -= 1
        if top >= 0 and length[top] == shared:
            first[top], last[top] = min(low, first[top]), max(high, last[top])
        elif shared > 0:
            top += 1
            length[top], first[top], last[top] = shared, low, high
    return best, best_first, best_last


@njit(cache=True, nogil=True)
def lcp_array(text: np.ndarray, sa: np.ndarray) -> np.ndarray:
    """What each suffix has in common with the one before it in sorted order: int32[n] twice -> int32[n], 0 first."""
    n = len(text)
    rank, lcp = np.empty(n, np.int32), np.zeros(n, np.int32)
    for k in range(n):
        rank[sa[k]] = k
    shared = 0
    for i in range(n):
        if rank[i] == 0:
            shared = 0
            continue
        j = np.int64(sa[rank[i] - 1])
        while i + shared < n and j + shared < n and text[i + shared] == text[j + shared]:
            shared += 1
        lcp[rank[i]] = shared
        shared = max(shared - 1, 0)
    return lcp
