import asyncio
import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.synth import rollout
from ropewalk.synth.engine import Completion, Message, Request, Sampling, Usage
from ropewalk.synth.engines.echo import EchoEngine, EchoOptions


def rolled(engine, *, ceilings, segment_tokens, stop=(), prefix="", find_loop=None, asked=None):
    base = Request("r", "write", (Message("user", "Write about ropes."),), Sampling(1, temperature=0, stop=tuple(stop)))

    async def ask_segment(segment, wanted, ids, text):
        if asked is not None:
            asked.append((segment, wanted, len(ids), text))
        sampling = dataclasses.replace(base.sampling, max_tokens=wanted)
        return await engine.generate(
            dataclasses.replace(base, segment=segment, sampling=sampling, generated_ids=ids, generated_text=text)
        )

    return asyncio.run(
        rollout.roll_out(
            ask_segment, ceilings=ceilings, segment_tokens=segment_tokens, stop=stop, prefix=prefix, find_loop=find_loop
        )
    )


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.booleans())
def test_segments_make_the_same_answer(segment_tokens, ceiling, token_ids):
    options = EchoOptions(tokens=250, token_ids=token_ids)
    whole = rolled(EchoEngine(options), ceilings=[ceiling], segment_tokens=10**6)
    parts = rolled(EchoEngine(options), ceilings=[ceiling], segment_tokens=segment_tokens)
    assert (parts.text, parts.token_ids, parts.num_tokens) == (whole.text, whole.token_ids, whole.num_tokens)
    assert bool(parts.token_ids) == token_ids
    assert parts.finish_reasons[-1] == whole.finish_reasons[-1]
    assert set(parts.finish_reasons[:-1]) <= {"length"}


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="ab ", min_size=1, max_size=40),
    st.lists(st.text(alphabet="ab ", min_size=1, max_size=6), min_size=1, max_size=2),
    st.integers(1, 8),
)
def test_stop_strings_are_found_across_seams(text, stop, segment_tokens):
    """Oracle: the one complete first in the whole text ends it; of two complete at once, the longer."""
    engine = EchoEngine(reply=lambda request: text)
    parts = rolled(engine, ceilings=[1000], segment_tokens=segment_tokens, stop=stop)
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(s) for s in stop)]
    longest = max((len(s) for s in stop if text[: ends[0]].endswith(s)), default=0) if ends else 0
    assert parts.text == (text[: ends[0] - longest] if ends else text)
    assert parts.finish_reasons[-1] == "stop"


def test_the_second_ceiling_is_gone_to_only_after_the_first():
    asked = []
    engine = EchoEngine(reply=lambda request: "x " * 1000)
    found = rolled(engine, ceilings=[50, 100], segment_tokens=20, asked=asked)
    assert [wanted for _, wanted, _, _ in asked] == [20, 20, 10, 20, 20, 10]
    assert [ids for _, _, ids, _ in asked] == [0, 20, 40, 50, 70, 90]
    assert found.num_tokens == 100 and found.finish_reasons[-1] == "length"
    short = rolled(EchoEngine(reply=lambda request: "x " * 30), ceilings=[50, 100], segment_tokens=100)
    assert short.finish_reasons == ("stop",)


def test_a_prefix_is_continued_as_text():
    asked = []
    engine = EchoEngine(reply=lambda request: "one two three four five six seven")
    found = rolled(engine, ceilings=[100], segment_tokens=2, prefix="one two", asked=asked)
    assert found.text == "one two three four five six seven"
    assert all(ids == 0 for _, _, ids, _ in asked)
    assert [text for _, _, _, text in asked] == [
        "one two",
        "one two three four",
        "one two three four five six",
    ]


def test_a_loop_is_found_at_a_seam():
    seen = []

    def find_loop(tokens):
        seen.append(len(tokens))
        return "loop" if len(tokens) >= 60 else None

    engine = EchoEngine(reply=lambda request: "and so on " * 100)
    found = rolled(engine, ceilings=[300], segment_tokens=20, find_loop=find_loop)
    assert found.finish_reasons == ("length", "length", "repetition") and seen == [20, 40, 60]


def completion(text, tokens=1, finish="length", ids=()):
    return Completion(text, ids, finish, Usage(1, 0, tokens))


def replay(*completions, **kwargs):
    left = list(completions)

    async def ask_segment(segment, wanted, ids, text):
        return left.pop(0)

    found = asyncio.run(rollout.roll_out(ask_segment, ceilings=[100], segment_tokens=10, **kwargs))
    return found, left


def test_no_room_before_the_first_token_and_in_the_middle():
    found, _ = replay(completion("", 0))
    assert found.starved and found.finish_reasons == ("length",)
    found, left = replay(completion("abc", 10), completion("", 0), completion("never"))
    assert not found.starved and found.text == "abc" and found.finish_reasons == ("length", "length") and len(left) == 1


def test_a_character_torn_by_the_cut_comes_whole_from_the_next_segment():
    found, _ = replay(completion("长江\ufffd", 10), completion("水", 1, "stop"))
    assert found.text == "长江水"


def test_ids_that_do_not_say_all_of_the_text_are_not_told():
    found, _ = replay(completion("a", ids=(1,)), completion("b"), completion("c", 1, "stop", ids=(3,)))
    assert found.text == "abc" and found.token_ids == ()


@pytest.mark.parametrize("reason", ["content_filter", "repetition", "stop"])
def test_any_other_reason_ends_it(reason):
    found, left = replay(completion("a"), completion("b", 1, reason), completion("never"))
    assert found.finish_reasons == ("length", reason) and len(left) == 1
