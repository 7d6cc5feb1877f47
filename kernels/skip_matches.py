"""Matches that forgive some words: how Llama 2 looked for benchmark items in its training data.

    seed    n words in which document and item agree
    match   a seed, and the words behind it as long as no more than `skips` of them differ, one by one; it ends with a
            word that agrees, and is longer than n words

Touvron et al. 2023 (arXiv 2307.09288), A.6: matched spans "can differ in at most four positions", with no "trailing
mismatches, or mismatches in the first 10 tokens", and are "longer than 10 tokens".

If the seed one word before is given too, its match ends at the same word: its skips all lie behind this one's words. So
only the first seed of each run of given ones is followed. That the words before agree is not enough: not every place
where n words agree need be given as a seed.

Shapes: words uint64, hashes of `kernels.words`; text t of the items has words `item_words[item_starts[t] :
item_starts[t + 1]]`. Time: number of seeds that begin a run times the length of their matches, at most `budget` words.
"""

import numpy as np
from numba import njit


def skip_matches_reference(document: list[int], item: list[int], ngram: int, skips: int) -> list[tuple[int, int, int]]:
    """(first word in the document, first word in the item, words) of the match of every seed."""
    found = []
    for i in range(len(document) - ngram + 1):
        for j in range(len(item) - ngram + 1):
            if document[i : i + ngram] != item[j : j + ngram]:
                continue
            length = differ = 0
            for k, (a, b) in enumerate(zip(document[i:], item[j:], strict=False)):
                differ += a != b
                if differ > skips:
                    break
                length = k + 1 if a == b else length
            if length > ngram:
                found.append((i, j, length))
    return found


def skip_matches(
    words: np.ndarray, seeds: np.ndarray, item_words: np.ndarray, item_starts: np.ndarray, ngram: int, skips: int,
    budget: int,
) -> tuple[np.ndarray, bool]:  # fmt: skip
    """Follows the seeds of one document.

    Args:
        words: The document's words, uint64[m].
        seeds: First word in the document, text of the items, first word in that text: int64[s, 3].
        item_words: Words of all texts of the items, uint64.
        item_starts: First word of each text and the end, int64[t + 1].
        ngram: Words of a seed.
        skips: Words of a match that may differ.
        budget: Words compared at most.

    Returns:
        First word in the document, text, first word in that text, and words of each match: int64[matches, 4]; and
        whether the budget was enough.
    """
    seeds = seeds[_first_of_runs(seeds, item_starts)]
    out = np.empty((len(seeds), 4), np.int64)
    found, enough = _skip_matches(words, seeds, item_words, item_starts, ngram, skips, budget, out)
    return out[:found], bool(enough)


def _first_of_runs(seeds: np.ndarray, item_starts: np.ndarray) -> np.ndarray:
    """Whether the seed one word before, in document and text, is not among the seeds: bool[s]."""
    ahead = item_starts[seeds[:, 1]] + seeds[:, 2] - seeds[:, 0]  # the same all along a run
    order = np.lexsort((seeds[:, 0], ahead))
    ahead, words = ahead[order], seeds[order, 0]
    first = np.ones(len(seeds), bool)
    first[order[1:]] = (ahead[1:] != ahead[:-1]) | (words[1:] != words[:-1] + 1)
    first |= seeds[:, 2] == 0  # what is before lies in another text
    return first


@njit(cache=True, nogil=True)
def _skip_matches(
    words: np.ndarray, seeds: np.ndarray, item_words: np.ndarray, item_starts: np.ndarray, ngram: int, skips: int,
    budget: int, out: np.ndarray,
) -> tuple[int, bool]:  # fmt: skip
    found = 0
    for s in range(len(seeds)):
        i, text, j = seeds[s, 0], seeds[s, 1], seeds[s, 2]
        start = item_starts[text] + j
        room = min(len(words) - i, item_starts[text + 1] - start)
        length, differ = ngram, 0
        for k in range(ngram, room):
            budget -= 1
            if words[i + k] == item_words[start + k]:
                length = k + 1
            else:
                differ += 1
                if differ > skips:
                    break
        if length > ngram:
            out[found, 0], out[found, 1], out[found, 2], out[found, 3] = i, text, j, length
            found += 1
        if budget <= 0:
            return found, False
    return found, True
