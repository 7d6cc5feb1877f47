"""The stepped engine around a fake model whose answers are known: whatever happens, each request is answered once."""

import asyncio
import signal
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ropewalk.synth.engine import EngineDead, EngineInfo, Message, Repetition, Request, RequestError, Sampling
from ropewalk.synth.engines.stepped import GUARD_EVERY, Finished, SteppedEngine, cut_at_stop, fit, new_text

END = 256  # Tokens 0 to 255 are bytes.
ASSISTANT = 257


class FakeStepper:
    """Reads the answer off the prompt: the user's message, byte for byte, from where the assistant's beginning ends.

    A message `!add`, `!run` or `!die` fails when added, fails while running, or takes the engine down.
    """

    def __init__(self, places=4, context=None, pause=0.0, peeks=True):
        self.places, self.context, self.pause, self.peeks = places, context, pause, peeks
        self.waiting, self.running, self.aborted, self.calls = {}, {}, [], []
        self.threads = set()
        self.loads = self.unloads = 0

    def _here(self):
        self.threads.add(threading.get_ident())

    def load(self):
        self._here()
        self.loads += 1
        return EngineInfo("fake 1", "fake", max_sequences=self.places, context_length=self.context)

    def encode_chat(self, messages):
        return [*messages[-1].content.encode(), ASSISTANT]

    def encode(self, text):
        return list(text.encode())

    def decode(self, token_ids):
        return bytes(token for token in token_ids if token < END).decode(errors="replace")

    def add(self, number, prompt_ids, sampling):
        self._here()
        place = prompt_ids.index(ASSISTANT)
        message, before = prompt_ids[:place], prompt_ids[place + 1 :]
        if bytes(message) == b"!add":
            raise RequestError("bad_request", "as told", transient=False)
        assert before == message[: len(before)], "an answer goes on where it stopped"
        self.waiting[number] = (message, [*message, END][len(before) :], sampling, [])

    def step(self):
        self._here()
        time.sleep(self.pause)
        while self.waiting and len(self.running) < self.places:
            number = next(iter(self.waiting))
            self.running[number] = self.waiting.pop(number)
        ended = []
        for number, (message, answer, sampling, new) in list(self.running.items()):
            new.append(answer[len(new)])
            if bytes(message) == b"!die":
                raise RuntimeError("out of memory")
            if bytes(message) == b"!run" and len(new) == 3:
                ended.append(Finished(number, error=RequestError("server", "as told", transient=True)))
            elif len(new) == sampling.max_tokens or new[-1] == END:
                reason = "stop" if new[-1] == END else "length"
                ended.append(Finished(number, tuple(new), reason, cached=7, first_token=0.5))
        for finished in ended:
            del self.running[finished.number]
        self.calls.append(len(self.running))
        return ended

    def tokens(self, number):
        return self.running[number][3] if self.peeks and number in self.running else ()

    def abort(self, number):
        self._here()
        self.aborted.append(number)
        self.running.pop(number, None) or self.waiting.pop(number)

    def unfinished(self):
        return bool(self.running or self.waiting)

    def stats(self):
        return {"running-requests": float(len(self.running))}

    def unload(self):
        self._here()
        self.unloads += 1


def request(text, *, max_tokens=1000, row="r", generated_ids=(), generated_text="", **sampling):
    return Request(
        row=row,
        step="s",
        messages=(Message("user", text),),
        sampling=Sampling(max_tokens=max_tokens, **sampling),
        generated_ids=tuple(generated_ids),
        generated_text=generated_text,
    )


def run(stepper, work, **options):
    """Runs `work(engine)` on a started engine; checks what must hold however it went."""

    async def main():
        engine = SteppedEngine(stepper, **options)
        await engine.start()
        try:
            return await work(engine)
        finally:
            await engine.close()

    before = threading.active_count()
    try:
        return asyncio.run(main())
    finally:
        assert stepper.loads == stepper.unloads == 1
        assert len(stepper.threads) == 1 and threading.get_ident() not in stepper.threads
        assert threading.active_count() == before


JOBS = st.lists(
    st.tuples(
        st.one_of(st.text(max_size=40), st.sampled_from(["!add", "!run"])),
        st.integers(1, 30),
        st.none() | st.integers(0, 40),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(JOBS, st.integers(1, 4))
def test_each_request_is_answered_once_and_right(jobs, places):
    stepper = FakeStepper(places)

    async def work(engine):
        async def one(text, max_tokens, patience):
            task = asyncio.create_task(engine.generate(request(text, max_tokens=max_tokens)))
            if patience is not None:
                for _ in range(patience):
                    await asyncio.sleep(0)
                task.cancel()
            return (await asyncio.gather(task, return_exceptions=True))[0]

        found = await asyncio.gather(*(one(*job) for job in jobs))
        # The aborts are on their way; one more request comes after them in the queue.
        await engine.generate(request("x"))
        return found

    found = run(stepper, work)
    for (text, max_tokens, patience), answer in zip(jobs, found, strict=True):
        if isinstance(answer, asyncio.CancelledError):
            assert patience is not None
        elif text == "!add":
            assert isinstance(answer, RequestError) and answer.reason == "bad_request"
        elif text == "!run" and max_tokens >= 3:
            assert isinstance(answer, RequestError) and answer.transient
        else:
            whole = [*text.encode(), END]
            assert list(answer.token_ids) == whole[:max_tokens]
            assert answer.finish_reason == ("stop" if len(whole) <= max_tokens else "length")
            assert text.startswith(answer.text)
            assert answer.usage.generated == len(answer.token_ids)
            assert (answer.usage.prompt, answer.usage.cached) == (len(text.encode()) + 1, 7)
            assert answer.engine == "fake 1"
            assert 0.5 <= answer.timing.first_token and 0 <= answer.timing.queued <= answer.timing.total
    assert not stepper.running and not stepper.waiting


def test_the_batch_is_filled():
    stepper = FakeStepper(places=8, pause=0.001)

    async def work(engine):
        await asyncio.gather(*(engine.generate(request("x" * 50)) for _ in range(8)))

    run(stepper, work)
    assert max(stepper.calls) == 8


def test_cancelling_frees_the_place():
    stepper = FakeStepper(places=1, pause=0.001)

    async def work(engine):
        endless = asyncio.create_task(engine.generate(request("x" * 100_000, max_tokens=100_000)))
        while not stepper.running:
            await asyncio.sleep(0.001)
        endless.cancel()
        answer = await engine.generate(request("next"))
        assert endless.cancelled()
        return answer.text

    assert run(stepper, work) == "next"
    assert stepper.aborted == [0]


@pytest.mark.parametrize("errors", ["replace", "ignore", "run"])
@settings(max_examples=100, deadline=None)
@given(
    data=st.text(st.sampled_from("aé日本語𝒳🧵\n "), max_size=12).map(str.encode) | st.binary(max_size=12),
    cuts=st.lists(st.integers(1, 12)),
)
@example(data="🧵日".encode(), cuts=[1, 2, 3, 4, 5, 6])
@example(data="日日".encode(), cuts=[3, 4])
@example(data=b"\xe6\xe6\x97", cuts=[1, 2])
def test_segments_joined_are_the_text_of_all_tokens(errors, data, cuts):
    def decode(token_ids):
        if errors != "run":
            return bytes(token_ids).decode(errors=errors)
        # As byte fallback in `tokenizers`: a run of bytes is characters throughout, or none of it is.
        try:
            return bytes(token_ids).decode()
        except UnicodeDecodeError:
            return "\ufffd" * len(token_ids)

    try:
        data.decode()
    except UnicodeDecodeError:
        if errors == "run":
            return  # what was told as characters cannot be taken back
    places = [0, *sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    for knows in (True, errors == "run"):  # whether the caller hands back the text as well as the tokens
        told = ""
        for start, stop in zip(places, places[1:], strict=False):
            text = new_text(decode, list(data[:start]), list(data[start:stop]), told if knows else "")
            told += text if stop == len(data) else text.rstrip("\ufffd")
        assert told == decode(list(data))


@settings(max_examples=40, deadline=None)
@given(st.text(st.sampled_from("aé日本🧵"), min_size=1, max_size=20), st.integers(1, 9), st.booleans())
def test_a_segmented_answer_is_the_whole_answer(text, segment, as_text):
    async def work(engine):
        ids, told, reason = [], "", "length"
        while reason == "length":
            answer = await engine.generate(
                request(text, max_tokens=segment, generated_ids=ids, generated_text=told if as_text else "")
            )
            ids, told, reason = [*ids, *answer.token_ids], told + answer.text, answer.finish_reason
        return ids, told

    ids, told = run(FakeStepper(), work)
    assert ids == [*text.encode(), END]
    assert told == text


def test_it_goes_on_after_text_and_from_token_ids():
    async def work(engine):
        after_text = await engine.generate(request("some answer", generated_text="some"))
        ids = (*b"given", ASSISTANT, *b"gi")
        from_ids = await engine.generate(Request("r", "s", (), Sampling(max_tokens=9), prompt_ids=ids))
        return after_text, from_ids

    after_text, from_ids = run(FakeStepper(), work)
    assert after_text.text == " answer"
    assert after_text.usage.prompt == len("some answer") + 1 + len("some")
    assert from_ids.text == "ven"


def test_a_request_without_a_prompt_is_refused():
    async def work(engine):
        with pytest.raises(RequestError, match="neither messages nor prompt_ids") as caught:
            await engine.generate(Request("r", "s", (), Sampling(max_tokens=1)))
        return caught.value

    error = run(FakeStepper(), work)
    assert (error.reason, error.transient) == ("bad_request", False)


def test_stop_strings_are_cut():
    async def work(engine):
        # The fake does not look for them: it ends by itself.
        return await engine.generate(request("one STOP two END", stop=("END", "STOP")))

    answer = run(FakeStepper(), work)
    assert (answer.text, answer.stop_reason, answer.finish_reason) == ("one ", "STOP", "stop")
    assert cut_at_stop("a\n\n\nb", ("\n", "\n\n")) == ("a", "\n\n")
    assert cut_at_stop("ab", ("c", "")) == ("ab", None)


def test_an_answer_is_cut_to_the_context():
    async def work(engine):
        answer = await engine.generate(request("x" * 15, max_tokens=50, min_tokens=10))
        with pytest.raises(RequestError, match="20 tokens, the model takes 20") as caught:
            await engine.generate(request("x" * 19))
        return answer, caught.value

    answer, error = run(FakeStepper(context=20), work)
    assert (answer.text, answer.finish_reason) == ("xxxx", "length")
    assert (error.reason, error.transient) == ("prompt_too_long", False)


@given(st.integers(1, 100), st.integers(1, 100), st.none() | st.integers(1, 100), st.none() | st.integers(1, 100))
def test_fit(wanted, prompt, context, cache):
    info = EngineInfo("e", "m", context_length=context, max_tokens=cache)
    room = min((room for room in (context, cache) if room is not None), default=10**9)
    sampling = Sampling(max_tokens=wanted, min_tokens=wanted)
    if prompt >= room:
        with pytest.raises(RequestError, match=f"takes {room} of"):
            fit(sampling, prompt, info)
    else:
        found = fit(sampling, prompt, info)
        assert found.max_tokens == found.min_tokens == min(wanted, room - prompt)


def test_the_death_of_the_engine_reaches_all():
    stepper = FakeStepper(places=2)

    async def work(engine):
        waiting = [asyncio.create_task(engine.generate(request("x" * 900))) for _ in range(5)]
        while not stepper.running:
            await asyncio.sleep(0.001)
        answers = await asyncio.gather(*waiting, engine.generate(request("!die")), return_exceptions=True)
        for again in (engine.generate(request("x")), engine.start()):
            with pytest.raises(EngineDead, match="out of memory"):
                await again
        return answers

    # Of two places one becomes free for the deadly request when four have ended and the fifth is running.
    *done, running, deadly = run(stepper, work)
    assert [answer.text for answer in done] == ["x" * 900] * 4
    for answer in (running, deadly):
        assert isinstance(answer, EngineDead) and str(answer) == "RuntimeError: out of memory"


def test_lost_requests_are_the_death_of_the_engine():
    class Forgetful(FakeStepper):
        def step(self):
            self.running.clear()
            self.waiting.clear()
            return []

    async def work(engine):
        with pytest.raises(EngineDead, match="lost 1 requests"):
            await engine.generate(request("x"))

    run(Forgetful(), work)


@pytest.mark.parametrize(
    ("error", "message"),
    [(EngineDead("install it"), "^install it$"), (OSError("no disk"), "^OSError: no disk$")],
)
def test_a_model_that_does_not_load(error, message):
    class Broken(FakeStepper):
        def load(self):
            super().load()
            raise error

    stepper = Broken()

    async def main():
        engine = SteppedEngine(stepper)
        with pytest.raises(EngineDead, match="start it first"):
            await engine.generate(request("x"))
        for _ in range(2):
            with pytest.raises(EngineDead, match=message):
                await engine.start()
        await engine.close()

    asyncio.run(main())
    assert stepper.loads == stepper.unloads == 1


def test_start_and_close_may_come_twice_and_again():
    stepper = FakeStepper(pause=0.001)

    async def main():
        engine = SteppedEngine(stepper)
        await engine.close()
        infos = await asyncio.gather(engine.start(), engine.start())
        assert infos[0] == infos[1] == await engine.start()
        assert stepper.loads == 1
        waiting = asyncio.create_task(engine.generate(request("x" * 900)))
        while not stepper.running:
            await asyncio.sleep(0.001)
        await asyncio.gather(engine.close(), engine.close())
        with pytest.raises(EngineDead, match="closed"):
            await waiting
        with pytest.raises(EngineDead, match="not running"):
            await engine.generate(request("x"))
        stepper.running.clear()
        await engine.start()
        assert (await engine.generate(request("again"))).text == "again"
        await engine.close()

    asyncio.run(main())
    assert stepper.loads == stepper.unloads == 2


def test_a_cancelled_start_does_not_harm_the_other():
    class Slow(FakeStepper):
        def load(self):
            time.sleep(0.1)
            return super().load()

    async def main():
        engine = SteppedEngine(Slow())
        first, second = asyncio.create_task(engine.start()), asyncio.create_task(engine.start())
        await asyncio.sleep(0.01)
        first.cancel()
        assert (await second).model == "fake"
        await engine.close()

    asyncio.run(main())


def test_loops_are_ended_where_they_are_looked_for():
    looks = []

    def find_loop(tokens):
        looks.append(len(tokens))
        return "a loop" if len(tokens) >= 2 * GUARD_EVERY + 10 else None

    text = "x" * 2000
    guarded = request(text, max_tokens=2000, repetition=Repetition(), generated_ids=b"x" * 10)
    free = request(text, max_tokens=2000)

    async def work(engine):
        return await asyncio.gather(engine.generate(guarded), engine.generate(free))

    stepper = FakeStepper()
    ended, whole = run(stepper, work, find_loop=find_loop)
    assert looks == [GUARD_EVERY + 10, 2 * GUARD_EVERY + 10]
    assert (ended.finish_reason, ended.stop_reason) == ("repetition", "a loop")
    assert ended.text == "x" * (2 * GUARD_EVERY)
    assert (whole.finish_reason, whole.text) == ("length", text)
    assert len(stepper.aborted) == 1
    looks.clear()
    answer, _ = run(FakeStepper(peeks=False), work, find_loop=find_loop)
    assert answer.finish_reason == "stop" and looks == []


def test_stats_are_the_steppers():
    async def work(engine):
        assert engine.stats() == {}
        await engine.generate(request("x"))
        await engine.generate(request("x"))
        return engine.stats()

    assert run(FakeStepper(), work) == {"running-requests": 0.0}


END_OF_PROCESS = """
import asyncio, sys, time
from ropewalk.synth.engine import EngineInfo, Message, Request, Sampling
from ropewalk.synth.engines.stepped import SteppedEngine

class Endless:
    def load(self): return EngineInfo("e", "m")
    def encode_chat(self, messages): return [1]
    def add(self, *_): pass
    def step(self): time.sleep(0.02); return []
    def abort(self, number): pass
    def unfinished(self): return True
    def stats(self): return {}
    def unload(self): print("unloaded", flush=True)

async def main():
    engine = SteppedEngine(Endless())
    await engine.start()
    task = asyncio.create_task(engine.generate(Request("r", "s", (Message("user", "x"),), Sampling(max_tokens=9))))
    await asyncio.sleep(0.1)
    print("running", flush=True)
    if sys.argv[1] == "leave":
        return
    await task

asyncio.run(main())
"""


@pytest.mark.parametrize("way", ["leave", "interrupt"])
def test_the_thread_does_not_keep_the_process_alive(way):
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", END_OF_PROCESS, way], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "running\n"
    if way == "interrupt":
        process.send_signal(signal.SIGINT)
    # Not `communicate`, which would miss what `readline` has read ahead.
    out, err = process.stdout.read(), process.stderr.read()
    process.wait(60)
    assert out == "unloaded\n"
    assert process.returncode == (0 if way == "leave" else -signal.SIGINT), err
    assert ("KeyboardInterrupt" in err) is (way == "interrupt")
