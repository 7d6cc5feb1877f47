import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ropewalk.kernels import json_records as kernel
from ropewalk.kernels.json_strings import unescape
from ropewalk.kernels.json_values import new_state, value_spans
from ropewalk.kernels.lines import line_spans

NAMES, KEEP = ["text", "id"], [False, True]
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
objects = st.dictionaries(st.sampled_from(["text", "id", "a", "te", "texts", "é", 'q"']), plain, max_size=6)


def take_apart(lines: list[bytes]):
    """Status, wanted strings (or kinds) and rest of each line, as Python values."""
    data = np.frombuffer(b"\n".join(lines) + b"\n", np.uint8)
    starts, stops = line_spans(data)
    status, kinds, spans, rest, offsets = kernel.take_apart(data, starts, stops, NAMES, KEEP)
    found = []
    for i in range(len(starts)):
        strings = []
        for which in range(len(NAMES)):
            value, ends, whole = unescape(data, spans[i, which : which + 1], kinds[i, which : which + 1] == 3)
            strings.append(
                value[: ends[1]].tobytes() if whole[0] and kinds[i, which] in (kernel.PLAIN, kernel.ESCAPED) else None
            )
        found.append((int(status[i]), strings, rest[offsets[i] : offsets[i + 1]].tobytes()))
    return found


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(objects, st.booleans(), st.sampled_from([None, (", ", ": "), (" ,\t", "\r: ")])),
        min_size=1,
        max_size=8,
    )
)
def test_valid_records_come_apart_as_json_loads_reads_them(rows):
    lines = [json.dumps(o, ensure_ascii=a, separators=s).encode(errors="surrogatepass") for o, a, s in rows]
    for line, (status, strings, rest) in zip(lines, take_apart(lines), strict=True):
        if status == kernel.ASK:  # only for a name that needs an escape
            assert b"\\" in line
            continue
        wanted, others = kernel.take_apart_reference(line, NAMES, KEEP)
        assert status == kernel.FINE
        for value, string in zip(wanted, strings, strict=True):
            assert string == (value.encode() if isinstance(value, str) else None)
        assert json.loads(rest or b"{}") == others


@settings(deadline=None, max_examples=500)
@given(objects, st.data())
def test_what_the_kernel_takes_json_loads_takes_too(record, data):
    line = bytearray(json.dumps(record).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(line)))
        cut = data.draw(st.integers(0, 2))
        line[at : at + cut] = data.draw(st.sampled_from([b"", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"0",
            b"-", b".", b"e", b"\0", b"\x1f", b"\\u12", b"\\ud800", b"\\x", b"tru", b"null", b" ", b"1"]))  # fmt: skip
    if b"\n" in line:
        return
    ((status, strings, rest),) = take_apart([bytes(line)])
    if status == kernel.FINE:
        wanted, others = kernel.take_apart_reference(bytes(line), NAMES, KEEP)
        assert json.loads(rest or b"{}") == others
        for value, string in zip(wanted, strings, strict=True):
            assert string is None or string == value.encode()


@pytest.mark.parametrize(
    "line",
    [b'{"a":01}', b'{"a":1.}', b'{"a":.5}', b'{"a":+1}', b'{"a":1e}', b'{"a":-}', b'{"a":NaN}', b'{"a":-Infinity}',
     b'{"a":1,}', b'{,}', b'{"a" 1}', b"{'a':1}", b'{"a":1}}', b'{"a":1} x', b'{"a":"\t"}', b'{"a":"\\q"}',
     b'{"a":"\\u12g4"}', b'{"a":[1,]}', b'{"a":[1 2]}', b'{"a":{"b"}}', b'{"a":{1:2}}', b'{"a":[}', b'{"a":tru}',
     b'{"a":"', b'{"a":"\\', b'{"a', b"{", b'{"a":\0}', b'{"a":1]', b'{"a":[1}]}', b'{"a":/**/1}'],
)  # fmt: skip
def test_broken_records_are_never_fine(line):
    assert take_apart([line])[0][0] == kernel.ASK


@pytest.mark.parametrize("line", [b"[]", b'"text"', b"1", b"null", b'{"te\\u0078t":1}', b'{"text":"a","text":"b"}',
    b'{"a":' + b"[" * 62 + b"]" * 62 + b"}", b'{"a":' + b"1" * 301 + b"}"])  # fmt: skip
def test_doubtful_records_are_left_to_json_loads(line):
    assert take_apart([line])[0][0] == kernel.ASK


def test_digits_are_kept_as_written():
    line = b'{"text":"x", "a": 1.10, "b": 123456789012345678901234567890, "c": 1e999, "d": -0}'
    assert take_apart([line])[0][2] == b'{"a":1.10,"b":123456789012345678901234567890,"c":1e999,"d":-0}'


def test_blank_lines():
    assert [status for status, *_ in take_apart([b"", b" \r", b'{"text":"a"}\r'])] == [1, 1, 0]


@pytest.mark.parametrize("length", range(1, 40))
def test_strings_of_every_length_end_where_they_end(length):
    text = "x" * length
    for special in ('"', "\\", "\n", "é", "", "\x7f"):
        value = text[: length // 2] + special + text[length // 2 :]
        line = json.dumps({"text": value, "n": 1}, ensure_ascii=False).encode()
        assert take_apart([line])[0] == (0, [value.encode(), None], b'{"n":1}')


@pytest.mark.parametrize("half", [r"\ud800", r"\udc00", r"\ud800\ud800", r"\ud800x", r"\udc00\ud800", r"\ud800\n"])
def test_half_a_surrogate_pair_is_not_whole(half):
    data = np.frombuffer(half.encode(), np.uint8)
    assert not unescape(data, np.array([[0, len(data)]]), np.array([True]))[2][0]


def spans(data: bytes, cuts: list[int]) -> list[bytes]:
    """Values found when the stream comes in the given pieces."""
    state, pending, found = new_state(), b"", []
    for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
        buffer = np.frombuffer(pending + data[start:stop], np.uint8)
        starts, stops = value_spans(buffer, len(pending), state)
        found += [buffer[a:b].tobytes().strip() for a, b in zip(starts, stops, strict=True)]
        rest = int(state[4]) if state[4] >= 0 else len(buffer)
        pending, state[4] = buffer[rest:].tobytes(), min(state[4], 0)
    return found


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=5), plain, max_size=3), max_size=5), st.booleans(), st.booleans(),
       st.data())  # fmt: skip
@example([{"a": '}]",{'}], True, True, None)
def test_values_are_found_however_they_are_laid_out_and_cut(values, array, pretty, data):
    texts = [json.dumps(value, indent=2 if pretty else None) for value in values]
    stream = ("[" + ",\n".join(texts) + "]\n" if array else "\n".join(texts)).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4))) if data else []
    assert [json.loads(value) for value in spans(stream, cuts)] == values


def test_a_broken_value_does_not_hide_the_next():
    assert spans(b'[{"a": tru}, junk, {"b": 1} x, {"c": "]"}, 3 ]', []) == [
        b'{"a": tru}', b"junk", b'{"b": 1} x', b'{"c": "]"}', b"3",
    ]  # fmt: skip
