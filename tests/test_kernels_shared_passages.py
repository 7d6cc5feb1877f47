import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels.shared_passages import matches, matches_reference, shared_passages

small = st.binary(max_size=40).map(lambda data: bytes(97 + byte % 3 for byte in data))


def codes(data):
    return np.frombuffer(data, np.uint8)


@settings(max_examples=150, deadline=None)
@given(a=small, b=small)
def test_matches_are_the_longest(a, b):
    length, place = matches(codes(a), codes(b))
    assert length.tolist() == matches_reference(a, b)
    for i, (size, start) in enumerate(zip(length.tolist(), place.tolist(), strict=True)):
        assert a[i : i + size] == b[start : start + size]


words = st.lists(st.sampled_from(["rope", " ", "東京", "é", "🪢", "walk ", "ا"]), max_size=30).map("".join)


@settings(max_examples=150, deadline=None)
@given(a=words, b=words, least=st.integers(1, 6), most=st.integers(0, 5))
def test_passages_are_shared_whole_characters_and_apart(a, b, least, most):
    x, y = a.encode(), b.encode()
    found = shared_passages(codes(x), codes(y), least=least, most=most)
    assert len(found) <= most
    covered = np.zeros(len(x), int)
    for passage in found:
        piece = x[passage.a_start : passage.a_start + passage.length]
        assert piece == y[passage.b_start : passage.b_start + passage.length] and len(piece) >= least
        piece.decode()  # no character is cut
        covered[passage.a_start : passage.a_start + passage.length] += 1
    assert covered.max(initial=0) <= 1
    assert [p.length for p in found] == sorted((p.length for p in found), reverse=True)
    if most and least == 1:  # the longest common piece of whole characters comes first
        pieces = {a[i:j] for i in range(len(a)) for j in range(i + 1, len(a) + 1)}
        longest = max((len(piece.encode()) for piece in pieces if piece in b), default=0)
        assert (found[0].length if found else 0) <= longest
        if a.isascii():
            assert (found[0].length if found else 0) == longest


def test_by_hand():
    a, b = b"the ropewalk is long and the rope is new", b"a long ropewalk is long, the rope is old"
    found = shared_passages(codes(a), codes(b), least=5, most=9)
    assert [a[p.a_start : p.a_start + p.length] for p in found] == [b" ropewalk is long", b" the rope is "]
    assert shared_passages(codes(b""), codes(b), least=1, most=3) == []
    assert shared_passages(codes(a), codes(b""), least=1, most=3) == []
