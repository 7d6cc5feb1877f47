"""Tokens of a text, and what they are counted by.

    word      a run of letters, numbers and marks; a joiner (. ' ’ · …) between two of them belongs to it. A character
              of a script without spaces is a word of its own. Case is kept.
    sign      a run of one and the same character that is neither a word's nor white space: `...` is one token

    "Don't panic... 3.14 東京!"  ->  Don't | panic | ... | 3.14 | 東 | 京 | !

So punctuation counts as tokens, as it does for the word tokenizers (NLTK, spaCy) that datatrove gives to the rules of
Gopher, and only words have a length. Unlike theirs, `don't` is one token and a hyphen always separates, so that no
language, model or list of exceptions is needed. The rule is Unicode's (UAX #29, with fewer cases).

Counts, see `FIELDS`: a text's are the sums over pieces scanned one after the other, but for `stop_words`, whose bits
are joined.

Shapes: data uint8[bytes]; classes uint8[0x20000]; counts int64[8]; hashes uint64[room]; lengths int32[room].
"""

from typing import Any

import numpy as np
from numba import njit

from ropewalk.kernels.read_bytes import byte_at, eight_at
from ropewalk.kernels.shingles import mix
from ropewalk.kernels.text_classes import (
    ALPHA,
    JOINER,
    SPACE,
    UNSPACED,
    WORD,
    class_of,
    classify_reference,
    decode,
)

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
FIELDS = ("tokens", "words", "word_chars", "unspaced", "alpha_tokens", "hashes", "ellipses", "stop_words")
"""tokens; words; their codepoints; words of scripts without spaces; tokens with a letter; characters `#`; `...` that do
not overlap, and `…`; bit i: STOP_WORDS[i] stands somewhere, in lower case."""
TOKENS, WORDS, WORD_CHARS, UNSPACED_WORDS, ALPHA_TOKENS, HASHES, ELLIPSES, STOPS = range(len(FIELDS))

_M1 = 0xBF58476D1CE4E5B9
_SIGN = 1 << 63
_ALL = (1 << 64) - 1
_STOPS = np.array([int.from_bytes(word.encode(), "little") for word in STOP_WORDS], np.uint64)


def tokens_reference(text: str) -> list[str]:
    """Tokens of a text, by the definition."""
    found: list[str] = []
    bits = [classify_reference(ord(char)) for char in text]
    at = 0
    while at < len(text):
        start = at
        at += 1
        if bits[start] & SPACE:
            continue
        if not bits[start] & WORD:
            while at < len(text) and text[at] == text[start]:
                at += 1
        elif not bits[start] & UNSPACED:

            def goes_on(i: int) -> bool:
                return i < len(text) and bool(bits[i] & WORD) and not bits[i] & UNSPACED

            while goes_on(at) or (at < len(text) and bits[at] & JOINER and goes_on(at + 1)):
                at += 1
        found.append(text[start:at])
    return found


def counts_reference(text: str) -> dict[str, int]:
    """Counts of a text, by the definitions."""
    tokens = tokens_reference(text)
    words = [token for token in tokens if classify_reference(ord(token[0])) & WORD]
    return {
        "tokens": len(tokens),
        "words": len(words),
        "word_chars": sum(map(len, words)),
        "unspaced": sum(bool(classify_reference(ord(word[0])) & UNSPACED) for word in words),
        "alpha_tokens": sum(any(classify_reference(ord(c)) & ALPHA for c in token) for token in tokens),
        "hashes": text.count("#"),
        "ellipses": text.count("...") + text.count("…"),
        "stop_words": sum(1 << i for i, word in enumerate(STOP_WORDS) if word in words),
    }


@njit(cache=True, nogil=True, inline="always")
def _read(data: np.ndarray, at: int, stop: int, classes: np.ndarray) -> Any:
    """Codepoint, length in bytes and class of the character at `at`."""
    byte = byte_at(data, at)
    if byte < 0x80:
        return np.int64(byte), 1, np.int64(classes[byte])
    codepoint, size = decode(data, at, stop)
    return codepoint, size, class_of(codepoint, classes)


@njit(cache=True, nogil=True)
def _word(data: np.ndarray, at: int, stop: int, classes: np.ndarray) -> Any:
    """Where the word at `at` ends, its codepoints, and the classes of its characters joined."""
    chars, joined = 0, np.int64(0)
    while at < stop:
        byte = byte_at(data, at)
        if byte < 0x80:
            bits, size = np.int64(classes[byte]), 1
        else:
            _, size, bits = _read(data, at, stop, classes)
        if bits & (WORD | UNSPACED) != WORD:
            if not bits & JOINER or at + size >= stop:
                break
            _, _, behind = _read(data, at + size, stop, classes)
            if behind & (WORD | UNSPACED) != WORD:
                break
        joined |= bits
        chars += 1
        at += size
    return at, chars, joined


@njit(cache=True, nogil=True)
def _hash(data: np.ndarray, start: int, stop: int) -> Any:
    """Hash of bytes [start, stop), at least one."""
    h = np.uint64(stop - start)
    while stop - start > 8:
        h = (h ^ eight_at(data, start)) * np.uint64(_M1)
        h ^= h >> np.uint64(32)
        start += 8
    return mix(h * np.uint64(_M1) ^ _few(data, start, stop))


@njit(cache=True, nogil=True)
def _few(data: np.ndarray, start: int, stop: int) -> Any:
    """Bytes [start, stop), one to eight, as a little-endian number."""
    if start + 8 <= len(data):
        return eight_at(data, start) & (np.uint64(_ALL) >> np.uint64(64 - 8 * (stop - start)))
    block = np.uint64(0)
    for i in range(start, stop):
        block |= np.uint64(byte_at(data, i)) << np.uint64(8 * (i - start))
    return block


@njit(cache=True, nogil=True)
def scan_tokens(
    data: np.ndarray, at: int, stop: int, classes: np.ndarray, counts: np.ndarray, hashes: np.ndarray,
    lengths: np.ndarray,
) -> tuple[int, int]:  # fmt: skip
    """Counts the tokens of bytes [at, stop), and names them: equal tokens have equal hashes.

    A long text is scanned in pieces, by calling again from where this call stopped. Without room (`hashes` of length 0)
    tokens are counted only, to the end.

    Args:
        data: UTF-8.
        at: First byte, the border of a character or of the previous call.
        stop: End of the text.
        classes: `text_classes.classes()`.
        counts: Added to.
        hashes: Receives the hash of each token, as many as fit.
        lengths: Receives the codepoints of each token.

    Returns:
        Number of tokens written, and where to go on: `stop` when the text is done.
    """
    found, room = 0, len(hashes)
    tokens = words = word_chars = unspaced = alpha_tokens = hash_signs = ellipses = 0
    stops = np.int64(0)
    while at < stop:
        codepoint, size, bits = _read(data, at, stop, classes)
        if bits & SPACE:
            at += size
            continue
        if found == room and room > 0:
            break
        tokens += 1
        if bits & WORD:
            first = at
            if bits & UNSPACED:
                chars, at = 1, at + size
                unspaced += 1
            else:
                at, chars, bits = _word(data, at, stop, classes)
                if at - first <= 4:
                    few = _few(data, first, at)
                    for i in range(len(_STOPS)):
                        if few == _STOPS[i]:
                            stops |= np.int64(1) << i
            words += 1
            word_chars += chars
            alpha_tokens += (bits & ALPHA) != 0
            if room > 0:
                hashes[np.uint64(found)] = _hash(data, first, at)
        else:
            chars, at = 1, at + size
            while at < stop:
                following, _, _ = _read(data, at, stop, classes)
                if following != codepoint:
                    break
                chars += 1
                at += size
            if codepoint == 0x23:
                hash_signs += chars
            elif codepoint == 0x2E:
                ellipses += chars // 3
            elif codepoint == 0x2026:
                ellipses += chars
            if room > 0:
                name = np.uint64(_SIGN) | np.uint64(codepoint) << np.uint64(32) | np.uint64(chars)
                hashes[np.uint64(found)] = mix(name)
        if room > 0:
            lengths[np.uint64(found)] = chars
            found += 1
    counts[TOKENS] += tokens
    counts[WORDS] += words
    counts[WORD_CHARS] += word_chars
    counts[UNSPACED_WORDS] += unspaced
    counts[ALPHA_TOKENS] += alpha_tokens
    counts[HASHES] += hash_signs
    counts[ELLIPSES] += ellipses
    counts[STOPS] |= stops
    return found, at
