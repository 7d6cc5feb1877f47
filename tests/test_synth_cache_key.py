"""The cache key against the requests themselves: equal exactly when they are."""

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.synth.cache_key import cache_key
from ropewalk.synth.engine import EngineInfo, Message, Repetition, Request, Sampling

INFO = EngineInfo("echo 1", "org/model", revision="abc", template="def")
FULL = Request(
    row="r1",
    step="write-1",
    messages=(Message("system", "Be brief."), Message("user", "Hello")),
    attempt=1,
    segment=2,
    prompt_ids=(1, 2, 3),
    generated_ids=(4, 5),
    generated_text="so far",
    sampling=Sampling(
        max_tokens=100, min_tokens=3, temperature=0.7, top_p=0.9, top_k=40, min_p=0.05, repetition_penalty=1.1,
        seed=7, stop=("END", "\n\n"), repetition=Repetition(128, 4, 3), json_schema='{"type":"object"}', logprobs=True,
        extra={"top_a": 0.1, "bias": {"17": [1, 2.5, None, True, "x"]}},
    ),
)  # fmt: skip
"""A request in which nothing is at its default."""


def others(value: Any) -> Iterator[Any]:
    """Values that differ from `value` in one place, at any depth, through whatever fields dataclasses have."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            changed = list(others(getattr(value, field.name)))
            assert changed, f"do not know how to change {field.name}"
            yield from (dataclasses.replace(value, **{field.name: other}) for other in changed)
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, str):
        yield from (value + " ", value[:-1])
    elif isinstance(value, int | float):
        yield from (value + 1, value / 3)
    elif value is None:
        yield 0
    elif isinstance(value, tuple | list):
        yield value[:-1]
        yield value[::-1]
        for place, item in enumerate(value):
            yield from (value[:place] + type(value)([other]) + value[place + 1 :] for other in others(item))
    elif isinstance(value, dict):
        yield {name: item for name, item in list(value.items())[1:]}
        for name, item in value.items():
            yield from (value | {name: other} for other in others(item))
            yield {(key + "x" if key == name else key): same for key, same in value.items()}
    else:
        raise AssertionError(f"do not know how to change {value!r}")


def test_the_full_request_has_nothing_at_its_default():
    for value in (FULL, FULL.sampling):
        for field in dataclasses.fields(value):
            default = field.default_factory() if callable(field.default_factory) else field.default
            assert getattr(value, field.name) != default, f"add {field.name} to FULL"


def test_every_field_of_the_request_is_in_the_key():
    requests = [FULL, *others(FULL)]
    assert len(requests) > 60
    assert len({cache_key(INFO, request) for request in requests}) == len(requests)


def test_of_the_engine_only_the_model_is_in_the_key():
    changed = {}
    for field in dataclasses.fields(INFO):
        value = getattr(INFO, field.name)
        other = 5 if value is None else next(others(value))
        changed[field.name] = cache_key(dataclasses.replace(INFO, **{field.name: other}), FULL) != cache_key(INFO, FULL)
    assert {name for name, differs in changed.items() if differs} == {"model", "revision", "template"}


def test_the_key_is_the_hash_of_this_text():
    text = (
        '{"model":"org/model","request":{"attempt":1,"generated_ids":[4,5],"generated_text":"so far",'
        '"messages":[{"content":"Be brief.","role":"system"},{"content":"Hello","role":"user"}],'
        '"prompt_ids":[1,2,3],"row":"r1","sampling":{"extra":{"bias":{"17":[1,2.5,null,true,"x"]},"top_a":0.1},'
        '"json_schema":"{\\"type\\":\\"object\\"}","logprobs":true,"max_tokens":100,"min_p":0.05,"min_tokens":3,'
        '"repetition":{"max_pattern":128,"min_count":3,"min_pattern":4},"repetition_penalty":1.1,"seed":7,'
        '"stop":["END","\\n\\n"],"temperature":0.7,"top_k":40,"top_p":0.9},"segment":2,"step":"write-1"},'
        '"revision":"abc","template":"def","version":1}'
    )
    assert cache_key(INFO, FULL) == hashlib.blake2b(text.encode(), digest_size=16).digest()


def test_the_key_is_the_same_for_ever():
    """Values from `b2sum -l 128`. If this fails, every cache there is has become worthless: is that meant?"""
    assert cache_key(INFO, FULL).hex() == "22566b5700606d6199bc101b15226638"
    plain = Request("r", "s", (Message("user", "x"),), Sampling(max_tokens=1))
    assert cache_key(EngineInfo("e", "m"), plain).hex() == "ea7525cd1768f15f8363b5b0e41b3801"


def with_sampling(**changes: Any) -> bytes:
    return cache_key(INFO, dataclasses.replace(FULL, sampling=dataclasses.replace(FULL.sampling, **changes)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"temperature": 1}, {"temperature": 1.0}),
        ({"temperature": 0.0}, {"temperature": -0.0}),
        ({"temperature": 0.1 + 0.2}, {"temperature": 0.30000000000000004}),
        ({"top_p": np.float64(0.9)}, {"top_p": 0.9}),
        ({"top_k": np.int32(3)}, {"top_k": 3}),
        ({"stop": ["a"]}, {"stop": ("a",)}),
        ({"extra": {"a": 1, "b": {"c": 2, "d": 3}}}, {"extra": {"b": {"d": 3.0, "c": 2}, "a": 1.0}}),
    ],
)
def test_equal_values_written_differently_have_one_key(one, other):
    assert with_sampling(**one) == with_sampling(**other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"temperature": 0.3}, {"temperature": 0.1 + 0.2}),
        ({"extra": {"a": True}}, {"extra": {"a": 1}}),
        ({"extra": {"a": None}}, {"extra": {}}),
        ({"extra": {"a": "1"}}, {"extra": {"a": 1}}),
        ({"extra": {"a": [1]}}, {"extra": {"a": 1}}),
        ({"stop": ("ab",)}, {"stop": ("a", "b")}),
        ({"stop": ('a","b',)}, {"stop": ("a", "b")}),
        ({"stop": ("\ud800",)}, {"stop": ("\ud801",)}),
        ({"stop": ("\ud800",)}, {"stop": ("\\ud800",)}),
    ],
)
def test_different_values_that_look_alike_have_two(one, other):
    assert with_sampling(**one) != with_sampling(**other)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, {1, 2}, b"x", object(), 1j])
def test_what_json_cannot_say_is_refused_by_name(value):
    with pytest.raises(ValueError, match=r"request\.sampling\.extra\.deep\[1\] is "):
        with_sampling(extra={"deep": [0, value]})


TEXTS = st.text(st.sampled_from('ab",[]{}:\\\x1f\n\ud800é'), max_size=3)
REQUESTS = st.builds(
    Request,
    row=TEXTS,
    step=TEXTS,
    messages=st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), TEXTS), max_size=2).map(tuple),
    sampling=st.builds(
        Sampling,
        max_tokens=st.integers(1, 2),
        seed=st.none() | st.integers(0, 1),
        temperature=st.sampled_from([0, 0.0, 1, 1.0, 0.5]),
        stop=st.lists(TEXTS, max_size=2).map(tuple),
        json_schema=st.none() | TEXTS,
    ),
    prompt_ids=st.lists(st.integers(0, 12), max_size=2).map(tuple),
    generated_ids=st.lists(st.integers(0, 12), max_size=2).map(tuple),
    generated_text=TEXTS,
)


@given(REQUESTS, REQUESTS, st.data())
def test_keys_are_equal_exactly_when_requests_are(one, other, data):
    assert (cache_key(INFO, one) == cache_key(INFO, other)) == (one == other)
    name = data.draw(st.sampled_from([field.name for field in dataclasses.fields(Request)]))
    near = dataclasses.replace(one, **{name: getattr(other, name)})
    assert (cache_key(INFO, one) == cache_key(INFO, near)) == (one == near)
