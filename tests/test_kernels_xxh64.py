import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels.xxh64 import from_hex, to_hex, xxh64, xxh64_reference


def hashes(values: list[bytes], seed: int) -> list[int]:
    offsets = np.cumsum([0] + [len(v) for v in values]).astype(np.int64)
    return xxh64(np.frombuffer(b"".join(values) or b"\0", np.uint8), offsets, seed).tolist()


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_every_length_agrees_with_the_xxhash_library(seed):
    values = [np.random.default_rng(n).bytes(n) for n in range(201)]
    expected = [xxhash.xxh64_intdigest(v, seed) for v in values]
    assert hashes(values, seed) == expected
    assert [xxh64_reference(v, seed) for v in values] == expected


def test_published_value_of_the_empty_string():
    assert hashes([b""], 0) == [0xEF46DB3751D8E999]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(0, 2**64 - 1))
def test_random_columns(values, seed):
    assert hashes(values, seed) == [xxhash.xxh64_intdigest(v, seed) for v in values]


def test_values_may_start_anywhere_in_the_buffer():
    data = np.frombuffer(b"skippedropewalkrest", np.uint8)
    assert xxh64(data, np.array([7, 15, 19]), 5).tolist() == [
        xxhash.xxh64_intdigest(v, 5) for v in (b"ropewalk", b"rest")
    ]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=20))
def test_hex_is_python_s_hex_and_comes_back(pairs):
    high, low = (np.array([p[i] for p in pairs], np.uint64) for i in (0, 1))
    ids = to_hex(high, low)
    ids.validate(full=True)
    assert ids.to_pylist() == [f"{h:016x}{lo:016x}" for h, lo in pairs]
    for column in (ids, ids.cast(pa.large_string()), pa.concat_arrays([pa.array(["x"]), ids]).slice(1)):
        found = from_hex(column)
        assert found[0].tolist() == high.tolist() and found[1].tolist() == low.tolist()
        assert found[0].dtype == found[1].dtype == np.uint64


def test_capital_digits_are_read():
    assert from_hex(pa.array(["AB" * 16]))[0].tolist() == [0xABABABABABABABAB]


@pytest.mark.parametrize("ids", [["0" * 31], ["0" * 32, "g" + "0" * 31], ["0" * 30, "0" * 34], [None, "0" * 32]])
def test_what_is_no_id_is_refused(ids):
    with pytest.raises(ValueError, match="null|32 hex digits"):
        from_hex(pa.array(ids))
