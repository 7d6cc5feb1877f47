"""The embedders of one's own models: a file for OpenVINO, and stand-ins for packages that are not installed here."""

import json
import sys
import types

import numpy as np
import pyarrow as pa
import pytest

from ropewalk.schemas import minilm as minilm_files
from ropewalk.schemas import safetensors
from ropewalk.schemas.recipe import RecipeError, parse_recipe
from ropewalk.schemas.similarity import EmbedConfig
from ropewalk.transforms.embedders import load, model_files, onnx, openvino_model, sentence_transformers, static, vllm
from ropewalk.transforms.embedders.encoder import EmbedderError
from ropewalk.transforms.embedders.minilm import MiniLM, graph
from ropewalk.transforms.embedders.windows import WindowEmbedder

WEIGHTS, TOKENIZER = minilm_files.checked_files()
TEXTS = pa.array(["The cat sat on the mat.", "hello world", "rope " * 700], pa.large_string())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as sentence-transformers lays one out, with MiniLM's graph in OpenVINO's format."""
    place = tmp_path_factory.mktemp("model")
    openvino = openvino_model.import_openvino()
    (place / "openvino").mkdir()
    model = graph(safetensors.tensors(WEIGHTS))
    openvino.save_model(model, str(place / "openvino" / "openvino_model.xml"), compress_to_fp16=False)
    (place / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
    (place / "sentence_bert_config.json").write_text('{"max_seq_length": 256}')
    (place / "config.json").write_text('{"hidden_size": 384, "max_position_embeddings": 512}')
    return place


def number(value):
    """A varint of protobuf."""
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + number(value >> 7)


def message(*fields):
    """A message of protobuf: (field number, int, text, bytes or message)."""
    found = b""
    for place, value in fields:
        if isinstance(value, int):
            found += number(place << 3) + number(value)
        else:
            value = value.encode() if isinstance(value, str) else value
            found += number(place << 3 | 2) + number(len(value)) + value
    return found


def write_onnx(folder):
    """A `model.onnx` with an output for each token: a row of the table of words, times the mask.

    Field numbers of onnx.proto3; the file was also read by `onnx.checker` once.
    """
    table = safetensors.tensors(WEIGHTS)["embeddings.word_embeddings.weight"][:, :8].astype(np.float32)
    float32, int64 = 1, 7

    def node(kind, inputs, output, *attributes):
        return 1, message(*((1, name) for name in inputs), (2, output), (4, kind), *((5, a) for a in attributes))

    def tensor(name, values, kind):
        return 5, message(*((1, n) for n in values.shape), (2, kind), (8, name), (9, values.tobytes()))

    def value(place, name, kind, *sizes):
        dims = [(1, message((1, n) if isinstance(n, int) else (2, n))) for n in sizes]
        return place, message((1, name), (2, message((1, message((1, kind), (2, message(*dims)))))))

    graph = message(
        node("Gather", ["table", "input_ids"], "words"),
        node("Cast", ["attention_mask"], "mask", message((1, "to"), (3, float32), (20, 2))),
        node("Unsqueeze", ["mask", "axis"], "seen"),
        node("Mul", ["words", "seen"], "last_hidden_state"),
        (2, "graph"),
        tensor("table", table, float32),
        tensor("axis", np.array([2]), int64),
        value(11, "input_ids", int64, "texts", "tokens"),
        value(11, "attention_mask", int64, "texts", "tokens"),
        value(12, "last_hidden_state", float32, "texts", "tokens", 8),
    )
    (folder / "model.onnx").write_bytes(message((1, 8), (7, graph), (8, message((1, ""), (2, 17)))))
    (folder / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
    return table


def test_a_model_file_is_what_it_was_made_from(folder):
    made = load.embedder(EmbedConfig(embedder="onnx", model=str(folder)))
    plain = load.embedder(EmbedConfig(embedder="minilm"))
    assert (made.encoder.limit, made.dimensions) == (254, 384)
    found, expected = made.embed_windows(TEXTS), plain.embed_windows(TEXTS)
    assert np.array_equal(found.num_windows, expected.num_windows) and found.num_windows[2] == 3
    assert np.abs(found.vectors.astype(float) - expected.vectors.astype(float)).max() <= 2**-11


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_states_of_an_onnx_file_are_pooled(tmp_path, pooling):
    table = write_onnx(tmp_path)
    if pooling != "mean":
        flags = {flag: name == pooling for flag, name in onnx.POOLINGS.items()}
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(flags))
    model_files.find.cache_clear()
    encoder = onnx.Onnx(str(tmp_path))
    pieces = encoder.pieces(TEXTS.slice(0, 2))
    expected = []
    for ids in pieces:
        rows = table[[101, *ids.tolist(), 102]]
        expected.append({"mean": rows.mean(axis=0), "cls": rows[0], "last": rows[-1]}[pooling])
    assert np.abs(encoder.encode(pieces) - np.array(expected)).max() < 1e-6
    assert encoder.limit == onnx.DEFAULT_LIMIT - 2 and encoder.dimensions == 8


def test_model_files_that_cannot_be_used(tmp_path):
    with pytest.raises(EmbedderError, match="'no/such/model/here': no such folder, and not a Hub id"):
        model_files.find("no/such/model/here")
    with pytest.raises(EmbedderError, match="`hf download nobody/nothing --revision v1` fetches it"):
        model_files.find("nobody/nothing@v1")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EmbedderError, match=r"there is no .*tokenizer\.json"):
        onnx.Onnx(str(tmp_path)).setup()
    (tmp_path / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
    with pytest.raises(EmbedderError, match="none of model.onnx, onnx/model.onnx"):
        onnx.Onnx(str(tmp_path)).setup()
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(EmbedderError, match="OpenVINO cannot read it"):
        onnx.Onnx(str(tmp_path)).setup()
    with pytest.raises(EmbedderError, match=r"its config.json has no hidden_size"):
        assert vllm.Vllm(str(tmp_path)).dimensions


def test_the_fingerprint_follows_the_files(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    first = onnx.Onnx(str(tmp_path)).fingerprint
    (tmp_path / "model.onnx").write_bytes(b"other")
    model_files.find.cache_clear()
    assert onnx.Onnx(str(tmp_path)).fingerprint != first


class Engine:
    """vLLM's `LLM`, as far as it is used."""

    def __init__(self, **options):
        assert options.pop("runner") == "pooling"
        self.options, self.calls = options, []
        self.llm_engine = types.SimpleNamespace(engine_core=types.SimpleNamespace(shutdown=lambda: None))

    def embed(self, prompts, *, use_tqdm):
        assert use_tqdm is False
        self.calls.append(len(prompts))
        windows = [np.array(prompt["prompt_token_ids"][1:-1], np.uint32) for prompt in prompts]
        assert all(prompt["prompt_token_ids"][0] == 101 and prompt["prompt_token_ids"][-1] == 102 for prompt in prompts)
        output = [types.SimpleNamespace(embedding=row.tolist()) for row in MiniLM().encode(windows)]
        return [types.SimpleNamespace(outputs=row) for row in output]


def test_vllm_gets_windows_as_tokens(folder, monkeypatch):
    made = []
    stand_in = types.SimpleNamespace(LLM=lambda **options: made.append(Engine(**options)) or made[-1])
    monkeypatch.setitem(sys.modules, "vllm", stand_in)
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    vllm._engine.cache_clear()
    config = EmbedConfig(
        embedder="vllm", model=str(folder), batch=4, window=254, options={"max_model_len": 300, "seed": 1}
    )
    embedder = load.embedder(config)
    assert embedder.encoder.limit == 298 and embedder.dimensions == 384
    found = embedder.embed(TEXTS)
    assert np.array_equal(found, WindowEmbedder(MiniLM()).embed(TEXTS))
    assert len(made) == 1 and made[0].calls == [4, 1]
    assert made[0].options == {"model": str(folder), "max_model_len": 300, "seed": 1}
    vllm._engine.cache_clear()


def test_sentence_transformers_gets_windows_of_one_length(folder, monkeypatch):
    shapes = []

    class Tensor(np.ndarray):
        def float(self):
            return self

        cpu = numpy = float

    class Model:
        device = "cpu"

        def __init__(self, path, *, local_files_only):
            assert path == str(folder) and local_files_only

        def eval(self):
            return self

        def get_max_seq_length(self):
            return 256

        def get_sentence_embedding_dimension(self):
            return 384

        def __call__(self, features):
            ids = features["input_ids"]
            assert (features["attention_mask"] == 1).all() and features["attention_mask"].shape == ids.shape
            shapes.append(ids.shape)
            return {"sentence_embedding": MiniLM().encode(list(ids[:, 1:-1].astype(np.uint32))).view(Tensor)}

    class Nothing:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

    torch = types.SimpleNamespace(
        inference_mode=Nothing, ones_like=np.ones_like, as_tensor=lambda values, device: np.asarray(values)
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "sentence_transformers", types.SimpleNamespace(SentenceTransformer=Model))
    sentence_transformers._model.cache_clear()
    embedder = load.embedder(EmbedConfig(embedder="sentence_transformers", model=str(folder), batch=2))
    assert np.array_equal(embedder.embed(TEXTS), WindowEmbedder(MiniLM()).embed(TEXTS))
    assert max(shape[0] for shape in shapes) == 2 and max(shape[1] for shape in shapes) == 256
    sentence_transformers._model.cache_clear()


@pytest.mark.parametrize("name", ["vllm", "sentence_transformers"])
def test_a_package_that_is_missing_is_named(folder, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    module = {"vllm": vllm, "sentence_transformers": sentence_transformers}[name]
    for cached in ("_engine", "_model"):
        getattr(getattr(module, cached, None), "cache_clear", lambda: None)()
    with pytest.raises(EmbedderError, match=f"embedder {name} needs .*: pip install"):
        load.embedder(EmbedConfig(embedder=name, model=str(folder))).setup()


def test_static_vectors_are_distilled(monkeypatch):
    random = np.random.default_rng(0)
    vectors = random.normal(size=(500, 20)) @ np.diag(np.linspace(3, 0.1, 20)) @ random.normal(size=(20, 20))
    vectors[[0, 7]] = np.nan
    table = static.distil(vectors.astype(np.float32), 5)
    assert table.shape == (500, 5) and table.dtype == np.int16 and not table[[0, 7]].any()
    assert np.abs(table).max() == static.LARGEST
    # Against NumPy's own SVD: the same subspace, the same weights.
    known = np.delete(vectors, [0, 7], axis=0)
    centred = known - known.mean(axis=0)
    ranks = 1 / np.arange(2, 500)
    weights = 1e-4 / (1e-4 + ranks / ranks.sum())
    expected = centred @ np.linalg.svd(centred, full_matrices=False)[2][:5].T * weights[:, None]
    found = np.delete(table, [0, 7], axis=0) * (np.abs(expected).max() / static.LARGEST)
    assert np.abs(np.abs(found) - np.abs(expected)).max() < 2 * np.abs(expected).max() / static.LARGEST
    flipped = static.distil(vectors[:, ::-1].astype(np.float32), 5)
    assert np.abs(np.abs(flipped.astype(int)) - np.abs(table.astype(int))).max() <= 1


def test_static_vectors_by_hand(monkeypatch):
    random = np.random.default_rng(0)
    table = random.integers(-300, 300, (30522, static.DIMENSIONS)).astype(np.int16)
    monkeypatch.setattr(static, "table", lambda: table)
    embedder = load.embedder(EmbedConfig(embedder="static", dimensions=16))
    texts = pa.array(["The cat sat.", "", "rope rope [SEP]"], pa.large_string())
    found = embedder.embed(texts)
    assert found.shape == (3, 16) and not found[1].any() and embedder.dimensions == 16
    for row, ids in ((0, [1996, 4937, 2938, 1012]),):
        expected = table[ids, :16].astype(np.float64).sum(axis=0)
        assert np.abs(found[row] - expected / np.linalg.norm(expected)).max() <= 2**-12 + 1e-4
    others = [load.embedder(EmbedConfig(embedder="static", dimensions=16), threads) for threads in (1, 2, 5)]
    assert all(np.array_equal(other.embed(texts), found) for other in others)
    assert len({other.fingerprint for other in others}) == 1 != len({embedder.fingerprint, "x"})
    with pytest.raises(EmbedderError, match="has at most 256"):
        load.embedder(EmbedConfig(embedder="static", dimensions=300))


def test_the_table_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []
    vectors = np.random.default_rng(0).normal(size=(300, 384)).astype(np.float32)
    monkeypatch.setattr(static, "encode_vocabulary", lambda: calls.append(1) or vectors)
    for _ in range(2):
        static.table.cache_clear()
        assert static.table().shape == (300, 256)
    assert len(calls) == 1 and len(list((tmp_path / "ropewalk").iterdir())) == 1
    static.table.cache_clear()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embedder": "onnx"}, "embedder onnx needs `model`"),
        ({"embedder": "openai", "model": "x"}, "embedder openai needs `url`"),
        ({"max_windows": 3}, "max_windows does nothing for embedder lexical: leave it out, or choose `minilm` or"),
        ({"embedder": "vllm", "model": "x", "temperature": 0.5}, "temperature does nothing .* choose `minilm`"),
        ({"embedder": "minlm"}, "minlm"),
        ({"embeder": "minilm"}, "did you mean 'embedder'"),
        ({"embedder": "minilm", "overlap": 0.9}, "less than or equal to 0.5"),
        ({"embedder": "minilm", "dimensions": 1024}, "less than or equal to 512"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(RecipeError, match=message):
        parse_recipe({"output": "x", "input": "x", "embed": settings})
