import asyncio
import dataclasses
import json
import queue
import re
import threading
import time
from types import SimpleNamespace

import pytest

from ropewalk.schemas.synth_recipe import EngineConfig
from ropewalk.synth.engine import EngineDead, Repetition, RequestError
from ropewalk.synth.engines import stepped, vllm

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

# Without a strong penalty, greedy random weights say one token for ever. It counts prompt and answer together, so it
# does not see where a segment begins.
PENALTY = 20.0
GREEDY = {"temperature": 0.0, "repetition_penalty": PENALTY}
PROMPTS = [list(range(20 + i, 60 + 7 * i)) for i in range(6)]


def test_what_the_engine_says_of_itself(tiny, tiny_model):
    import vllm as package
    from transformers import AutoTokenizer

    info = tiny.info
    assert info.engine == f"vllm {package.__version__}" and info.model == str(tiny_model)
    assert (info.max_sequences, info.context_length) == (16, 4096)
    # a token: keys and values of 2 layers with 2 heads of 32 float32
    assert info.max_tokens == pytest.approx((1 << 26) / (2 * 2 * 2 * 32 * 4), rel=0.01)
    # hash of the weights, and of the options that change answers: the fixture asks for float32
    assert re.fullmatch(r"[0-9a-f]{32}\+[0-9a-f]{16}", info.revision)
    assert len(info.template) == 32
    text = "Vado bito, 12 kufe:\n\tpuva über 中文"
    assert tiny.engine.count_tokens(text) == len(AutoTokenizer.from_pretrained(tiny_model).encode(text))


def test_messages_go_through_the_chat_template(tiny, tiny_model, make_request):
    from transformers import AutoTokenizer

    rendered = "<|im_start|>user\nvado bito<|im_end|>\n<|im_start|>assistant\n"
    ids = AutoTokenizer.from_pretrained(tiny_model).encode(rendered)
    spoken, raw = tiny.answers(
        [make_request("vado bito", max_tokens=20, **GREEDY), make_request(ids, max_tokens=20, **GREEDY)]
    )
    assert spoken.token_ids == raw.token_ids
    assert spoken.usage.prompt == raw.usage.prompt == len(ids)
    assert spoken.usage.generated == len(spoken.token_ids)


def test_the_tokens_are_those_of_transformers(tiny, tiny_model, make_request):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    for prompt in PROMPTS[:2]:
        expected = model.generate(
            torch.tensor([prompt]), max_new_tokens=40, do_sample=False, repetition_penalty=PENALTY, pad_token_id=0
        )[0, len(prompt) :].tolist()
        assert len(set(expected)) > 20  # worth comparing
        assert list(tiny.answer(make_request(prompt, max_tokens=40, **GREEDY)).token_ids) == expected


@pytest.mark.parametrize("sampling", [GREEDY, {"temperature": 1.0, "seed": 11}, {"top_p": 0.9, "top_k": 50, "seed": 5}])
def test_a_request_gets_the_same_tokens_again_alone_and_in_a_batch(tiny, make_request, sampling):
    requests = [make_request(prompt, max_tokens=60, **sampling) for prompt in PROMPTS]
    first, again = tiny.answers(requests), tiny.answers(list(reversed(requests)))[::-1]
    alone = [tiny.answer(request) for request in requests]
    ids = [answer.token_ids for answer in first]
    assert ids == [answer.token_ids for answer in again] == [answer.token_ids for answer in alone]
    assert len(set(ids)) == len(ids)


def test_seeds_differ(tiny, make_request):
    requests = [make_request(PROMPTS[0], max_tokens=30, temperature=1.0, seed=seed) for seed in (1, 2, 1)]
    one, two, same = (answer.token_ids for answer in tiny.answers(requests))
    assert one == same != two


@pytest.mark.parametrize("segment", [1, 7, 64, 150])
def test_segments_give_the_tokens_and_the_text_of_the_whole(tiny, make_request, segment):
    whole = tiny.answer(make_request(PROMPTS[3], max_tokens=150, **GREEDY))
    assert whole.finish_reason == "length" and len(set(whole.token_ids)) > 60
    ids: list[int] = []
    texts = []
    while len(ids) < 150:
        part = tiny.answer(make_request(PROMPTS[3], generated=ids, max_tokens=min(segment, 150 - len(ids)), **GREEDY))
        assert part.finish_reason == "length" and part.usage.prompt == len(PROMPTS[3]) + len(ids)
        ids += part.token_ids
        texts.append(part.text)
    assert tuple(ids) == whole.token_ids
    assert "".join(texts) == whole.text


def test_the_prefix_cache_is_used_and_told(tiny, make_request):
    prompt = [7 * i % 1000 + 10 for i in range(1000)]
    first, second = (tiny.answer(make_request(prompt, max_tokens=4, **GREEDY)) for _ in range(2))
    assert (first.usage.prompt, first.usage.cached) == (1000, 0)
    assert second.usage.cached == 992  # whole blocks of 32, less the last token
    assert first.token_ids == second.token_ids
    assert tiny.engine.stats()["prefix_hit-tokens"] >= 992


def test_times_add_up(tiny, make_request):
    before = time.perf_counter()
    answer = tiny.answer(make_request(PROMPTS[0], max_tokens=50, **GREEDY))
    assert 0 <= answer.timing.queued <= answer.timing.first_token <= answer.timing.total
    assert 0 < answer.timing.first_token and answer.timing.total <= time.perf_counter() - before


def test_a_json_schema_is_kept(tiny, make_request):
    schema = {
        "type": "object",
        "properties": {"sure": {"type": "boolean"}, "count": {"enum": [1, 20, 300]}},
        "required": ["sure", "count"],
        "additionalProperties": False,
    }
    requests = [
        make_request("?", max_tokens=120, seed=seed, json_schema=json.dumps(schema), repetition=Repetition())
        for seed in range(4)
    ]
    for answer in tiny.answers(requests):
        assert answer.finish_reason == "stop", answer
        said = json.loads(answer.text)
        assert set(said) == {"sure", "count"} and said["count"] in (1, 20, 300) and isinstance(said["sure"], bool)


def test_a_stop_string_ends_the_text_and_is_no_part_of_it(tiny, make_request):
    whole = tiny.answer(make_request(PROMPTS[3], max_tokens=100, **GREEDY)).text
    stop = next(
        whole[i : i + 5] for i in range(30, 90) if whole[i : i + 5].isascii() and whole[i : i + 5].isprintable()
    )
    answer = tiny.answer(make_request(PROMPTS[3], max_tokens=100, stop=(stop, "never said"), **GREEDY))
    assert (answer.finish_reason, answer.stop_reason) == ("stop", stop)
    assert answer.text == whole[: whole.index(stop)]


def test_min_tokens_put_the_end_off(tiny, make_request):
    # the end token made likely: without min_tokens it comes at once
    bias = {"logit_bias": {"2": 100.0}}
    early, late = tiny.answers(
        [make_request(PROMPTS[0], max_tokens=40, min_tokens=least, extra=bias, **GREEDY) for least in (0, 25)]
    )
    assert (early.finish_reason, len(early.token_ids), early.text) == ("stop", 1, "")
    assert (late.finish_reason, len(late.token_ids)) == ("stop", 26)


def test_logprobs_are_those_of_transformers(tiny, tiny_model, make_request):
    import torch
    from transformers import AutoModelForCausalLM

    answer = tiny.answer(make_request(PROMPTS[1], max_tokens=12, temperature=1.0, seed=3, logprobs=True))
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor([[*PROMPTS[1], *answer.token_ids]])).logits[0]
    at = torch.log_softmax(logits, -1)[len(PROMPTS[1]) - 1 : -1]
    expected = [float(row[token]) for row, token in zip(at, answer.token_ids, strict=True)]
    assert answer.logprobs == pytest.approx(expected, abs=1e-4)
    assert tiny.answer(make_request(PROMPTS[1], max_tokens=2)).logprobs is None


def test_short_repetition_is_vllms_own(tiny, make_request):
    found, free = tiny.answers(
        [make_request(PROMPTS[0], max_tokens=200, temperature=0.0, repetition=rule)
         for rule in (Repetition(max_pattern=8, min_pattern=1, min_count=12), None)]
    )  # fmt: skip
    assert free.finish_reason == "length"
    assert (found.finish_reason, found.stop_reason) == ("repetition", "repetition_detected")
    assert found.token_ids == free.token_ids[: len(found.token_ids)] and len(found.token_ids) < 200


def test_a_prompt_that_is_too_long_fails_alone(tiny, make_request):
    long, good = tiny.answers(
        [make_request([5] * 4096, max_tokens=1), make_request(PROMPTS[0], max_tokens=8, **GREEDY)]
    )
    assert isinstance(long, RequestError) and long.reason == "prompt_too_long" and not long.transient
    assert "4096" in long.detail
    assert len(good.token_ids) == 8


def test_the_end_of_the_context_is_length(tiny, make_request):
    answer = tiny.answer(make_request([5] * 4090, max_tokens=100, extra={"ignore_eos": True}, **GREEDY))
    assert (answer.finish_reason, len(answer.token_ids)) == ("length", 6)


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        ({"extra": {"presense_penalty": 1.0}}, "presense_penalty; did you mean presence_penalty?"),
        ({"extra": {"temperature": 1.0}}, "temperature cannot be set here"),
        ({"extra": {"n": 2}}, "n cannot be set here"),
        ({"extra": {"presence_penalty": "much"}}, "presence_penalty: "),
        ({"extra": {"presence_penalty": 7.0}}, "presence_penalty must be in"),
        ({"extra": {"allowed_token_ids": [99999]}}, "allowed_token_ids"),
        ({"extra": {"loop_guard": "often"}}, "loop_guard is 'often'"),
        ({"temperature": 9.0}, "temperature must be in"),
        ({"json_schema": '{"type": "nonsense"}'}, "nonsense"),
        ({"repetition": Repetition(min_count=1)}, "min_count"),
    ],
)
def test_wrong_parameters_fail_alone_and_are_named(tiny, make_request, sampling, said):
    wrong, good = tiny.answers(
        [make_request(PROMPTS[0], max_tokens=8, **sampling), make_request(PROMPTS[0], max_tokens=8, **GREEDY)]
    )
    assert isinstance(wrong, RequestError) and (wrong.reason, wrong.transient) == ("bad_request", False), wrong
    assert said in wrong.detail
    assert len(good.token_ids) == 8


def test_extra_parameters_arrive(tiny, make_request):
    allowed = [30, 31, 32]
    answer = tiny.answer(
        make_request(PROMPTS[0], max_tokens=50, seed=1, extra={"allowed_token_ids": allowed, "presence_penalty": 0.1})
    )
    assert set(answer.token_ids) == set(allowed)


def test_a_cancelled_request_frees_its_place(tiny, make_request, monkeypatch):
    monkeypatch.setattr(stepped, "STATS_EVERY", 0.0)  # a fast machine is done with three requests in a second

    async def cancel_two_of_three():
        asked = [make_request(prompt, max_tokens=2000, extra={"ignore_eos": True}) for prompt in PROMPTS[:3]]
        tasks = [asyncio.create_task(tiny.engine.generate(request)) for request in asked]
        while tiny.engine.stats().get("running-requests", 0) < 3:
            assert not any(task.done() for task in tasks)
            await asyncio.sleep(0.01)
        for task in tasks[:2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        while tiny.engine.stats()["running-requests"] > 0:  # the figures come a moment after the answer
            await asyncio.sleep(0.01)
        return answers

    one, two, answered = tiny.run(cancel_two_of_three())
    assert isinstance(one, asyncio.CancelledError) and isinstance(two, asyncio.CancelledError)
    assert len(answered.token_ids) == 2000
    stats = tiny.engine.stats()
    assert stats["waiting-requests"] == stats["kv_usage-share"] == 0


def test_the_template_is_part_of_what_the_engine_says(tiny_model):
    def fingerprint(**chat):
        from transformers import AutoTokenizer

        return vllm.template_fingerprint(AutoTokenizer.from_pretrained(tiny_model), chat)

    shout = "{% for m in messages %}{{ m['content'] | upper }}{{ mark }}{% endfor %}"
    found = {
        fingerprint(),
        fingerprint(chat_template=shout),
        fingerprint(chat_template=shout, default_chat_template_kwargs={"mark": "!"}),
    }
    assert len(found) == 3 and fingerprint() in found


def test_the_folders_fingerprint_sees_a_changed_weight(tiny_model, tmp_path):
    (tmp_path / "config.json").write_bytes((tiny_model / "config.json").read_bytes())
    weights = bytearray((tiny_model / "model.safetensors").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(weights)
    before = vllm.folder_fingerprint(tmp_path)
    assert vllm.folder_fingerprint(tmp_path) == before
    step = len(weights) // 64
    weights[5 * step + 100] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert vllm.folder_fingerprint(tmp_path) != before


# From here on, tests that need an engine of their own.


def test_preemptions_are_counted_and_harmless(served, tiny_model, make_request):
    requests = [make_request(prompt, max_tokens=300, extra={"ignore_eos": True}, **GREEDY) for prompt in PROMPTS]
    roomy = [answer.token_ids for answer in served(tiny_model).answers(requests)]
    # 1,024 tokens for six requests that grow to some 350 each
    tight = served(tiny_model, kv_cache_memory_bytes=1 << 20, max_model_len=512, enable_prefix_caching=False)
    assert tight.info.max_tokens <= 1024
    assert [answer.token_ids for answer in tight.answers(requests)] == roomy
    assert tight.engine.stats()["preemptions-requests"] >= 1


def test_a_template_and_its_variables_from_the_options(served, tiny_model, make_request):
    shout = "{% for m in messages %}{{ m['content'] | upper }}{{ mark }}{% endfor %}"
    shouting = served(tiny_model, chat_template=shout, default_chat_template_kwargs={"mark": "!"})
    ids = tuple(shouting.engine._stepper.encode("VADO!"))
    spoken, raw = shouting.answers([make_request(p, max_tokens=20, **GREEDY) for p in ("vado", ids)])
    assert spoken.token_ids == raw.token_ids and spoken.usage.prompt == len(ids)


def test_a_template_that_fails_fails_its_request(served, tiny_model, make_request):
    refusing = served(tiny_model, chat_template="{{ raise_exception('no poems here') }}")
    with pytest.raises(RequestError, match="no poems here") as caught:
        refusing.answer(make_request("a poem", max_tokens=5))
    assert not caught.value.transient
    assert len(refusing.answer(make_request(PROMPTS[0], max_tokens=5, **GREEDY)).token_ids) == 5


def test_death_reaches_everyone_and_a_new_engine_can_start(served, tiny_model, make_request, monkeypatch):
    dying = served(tiny_model, max_num_seqs=4)
    served._config = None  # it will be dead: not to be kept
    core = dying.engine._stepper._engine
    step, steps = core.step, []

    def fail_at_the_third():
        steps.append(1)
        if len(steps) == 3:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return step()

    monkeypatch.setattr(core, "step", fail_at_the_third)
    for answer in dying.answers([make_request(prompt, max_tokens=50) for prompt in PROMPTS]):
        assert isinstance(answer, EngineDead) and "illegal memory access" in str(answer)
    with pytest.raises(EngineDead, match="illegal memory access"):
        dying.answer(make_request(PROMPTS[0], max_tokens=5))
    dying.run(dying.engine.close())
    assert len(served(tiny_model).answer(make_request(PROMPTS[0], max_tokens=5, **GREEDY)).token_ids) == 5


def test_a_core_process_that_was_killed_is_no_endless_wait():
    """With stand-ins for vLLM's client of a core in its own process, which takes long to start."""
    from vllm.v1.engine.exceptions import EngineDeadError

    class Client:
        def __init__(self):
            self.outputs_queue, self.dead = queue.Queue(), False

        def ensure_alive(self):
            if self.dead:
                raise EngineDeadError

    client = Client()
    stepper = vllm.VllmStepper(EngineConfig(name="vllm", model="m"))
    stepper._engine = SimpleNamespace(engine_core=client, step=lambda: client.outputs_queue.get(timeout=60))
    later = threading.Timer(0.2, client.outputs_queue.put, [[]])
    later.start()
    assert stepper.step() == []
    threading.Timer(0.2, setattr, [client, "dead", True]).start()
    with pytest.raises(EngineDeadError):
        stepper.step()


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (None, {"max_modl_len": 512}, "max_modl_len; did you mean max_model_len?"),
        (None, {"model": "other/model"}, "model cannot be set here"),
        (None, {"max_model_len": 100_000}, "max_model_len"),
        ("/nowhere/at/all", {}, "/nowhere/at/all"),
    ],
)
def test_an_engine_that_cannot_start_says_why(served, tiny_model, model, options, said):
    served.close()
    engine = vllm.from_config(EngineConfig(name="vllm", model=model or str(tiny_model), options=options))
    with pytest.raises(EngineDead) as caught:
        served.run(engine.start())
    assert said in str(caught.value)
    served.run(engine.close())


def test_options_that_change_answers_are_options():
    from vllm import EngineArgs

    assert set(vllm.CHANGING) <= {field.name for field in dataclasses.fields(EngineArgs)}
