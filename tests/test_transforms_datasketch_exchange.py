import datasketch
import numpy as np
import pytest

from ropewalk.kernels import shingles, words
from ropewalk.schemas import testing
from ropewalk.transforms import datasketch_exchange as exchange
from ropewalk.transforms.sketch import MinHash

TEXTS = [
    "The rope walk is a long narrow building where hemp is twisted into rope by men who walk backwards all day",
    "The rope walk is a long narrow building where hemp is twisted into rope by men who walk backwards all night",
    "Quite another text, 東京 and ไทย included, of which nothing at all is shared with the first two of these",
    "!!!",
]


def theirs(text, *, seed, num_perm):
    tokens = [words.hash_reference(token) for token in words.words_reference(text)]
    made = datasketch.MinHash(num_perm=num_perm, seed=seed, scheme="affine32", hashfunc=lambda h: h & 0xFFFFFFFF)
    made.update_batch(shingles.shingles_reference(tokens, 3))
    return made


@pytest.mark.parametrize(("seed", "num_perm"), [(1, 112), (42, 260)])
def test_signatures_go_both_ways(seed, num_perm):
    column = MinHash(ngram=3, num_perm=num_perm, seed=seed)(testing.of_texts(TEXTS))[0].column("signature")
    ours = exchange.to_datasketch(column, seed)
    oracle = [theirs(text, seed=seed, num_perm=num_perm) for text in TEXTS[:3]]
    assert ours[3] is None and [m == o for m, o in zip(ours, oracle, strict=False)] == [True] * 3
    assert exchange.from_datasketch(oracle).to_pylist() == column.to_pylist()[:3]
    assert ours[0].jaccard(oracle[1]) == np.mean(ours[0].hashvalues == ours[1].hashvalues)
    ours[0].merge(oracle[2])  # permutations agree, so that it can be updated further
    index = datasketch.MinHashLSH(num_perm=num_perm, params=(num_perm // 4, 4))
    for name, sketch in zip("abc", oracle, strict=True):
        index.insert(name, sketch)
    assert set(index.query(ours[1])) == {"a", "b"} and index.query(ours[2]) == ["c"]


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="scheme 'legacy' is not ours"):
        exchange.from_datasketch([datasketch.MinHash(scheme="legacy")])
    with pytest.raises(ValueError, match="seed 1 cannot be compared with those of 64 values and seed 2"):
        exchange.from_datasketch([datasketch.MinHash(64), datasketch.MinHash(64, seed=2)])
    with pytest.raises(ValueError, match="no sketches"):
        exchange.from_datasketch([])
