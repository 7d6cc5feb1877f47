import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from ropewalk.kernels.machine import fold32, load64, nonzero64, ones, trailing_zeros


@njit
def all_of(data, at, out, case, digits, signs):
    x = load64(data, at)
    return x, nonzero64(data, at), trailing_zeros(x), ones(x), fold32(data, at, out, 3, case, digits, signs)


@settings(deadline=None)
@given(st.binary(min_size=64, max_size=64), st.booleans(), st.booleans(), st.booleans())
def test_against_plain_python(text, case, digits, signs):
    data, out = np.frombuffer(b"!" + text, np.uint8), np.full(40, 7, np.uint8)
    masks = np.array([32 * case, 255 * digits, 255 * signs], np.uint8)
    x, inside, zeros, count, special = all_of(data, 1, out, *masks)
    expected = int.from_bytes(text[:8], "big")
    assert x == expected and count == expected.bit_count()
    assert zeros == (64 if expected == 0 else (expected & -expected).bit_length() - 1)
    assert inside == sum(1 << i for i, byte in enumerate(text) if byte)
    for i, char in enumerate(map(chr, text[:32])):
        word = char.isascii() and char.isalnum()
        assert out[3 + i] == (ord(char.lower() if case else char) if word else 0)
        sign = char.isascii() and not word and not char.isspace()
        assert special >> i & 1 == (not char.isascii() or (digits and char.isdecimal()) or (signs and sign))
    assert (out[:3] == 7).all() and (out[35:] == 7).all()
