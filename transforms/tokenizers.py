"""Tokenizers: from Arrow text to token ids, in bounded memory, no token added and none taken for a command.

A document is data: text that spells a special token (`<|endoftext|>` on a web page) is encoded as ordinary characters,
so that a document cannot forge a border between documents. Special tokens come from the pipeline alone.

The `tokenizers` library holds some hundred bytes for each token of the texts it is given at once. Texts are therefore
handed over `BATCH_BYTES` at a time, and a longer text is cut where cutting cannot change a token: see `cut`.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from ropewalk.transforms import utf8

PIECE_CHARS = 1 << 16
"""Texts up to this length are encoded whole; longer ones in pieces of about this length, in codepoints."""
BATCH_BYTES = 1 << 20
"""Text handed to the tokenizer at once, in UTF-8 bytes."""

_CUT = re.compile(r"(?<=\S)\n(?=\S)|(?<=[A-Za-z])(?= [A-Za-z])")
_PROBE = (
    "The end of the rope\nin the harbour isn't 12,345 m long; it's spliced.\n\n    def walk(self):\n\treturn self\nA"
    " word of  the wise:\n中文字\n第二行 und Größe\nlast: x = y\nin order to be on the safe side of it"
)


class TokenizerError(ValueError):
    """A tokenizer cannot be found, read or used; the message names the remedy."""


class Tokenizer(Protocol):
    """What the pipeline needs of a tokenizer.

    Attributes:
        name: What it is called in a recipe.
        fingerprint: Hash of all that decides which ids a text gets, hex.
        vocab_size: One more than the largest id.
        eos: Id that ends a document, or none.
        eos_token: The text of that token, or none.
    """

    name: str
    fingerprint: str
    vocab_size: int
    eos: int | None
    eos_token: str | None

    def encode(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all texts (large_string[n], no nulls), one after the other: uint32[sum]; length of each: int64[n]."""


class ByteTokenizer:
    """A token is a byte, 256 ends a document: no vocabulary, no loss, any language."""

    name = "bytes"
    fingerprint = hashlib.sha256(b"id = byte of the UTF-8 text, 256 = end of text").hexdigest()
    vocab_size = 257
    eos: int | None = 256
    eos_token: str | None = "<|endoftext|>"

    def encode(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """See `Tokenizer.encode`; a widening copy of Arrow's buffer."""
        data, offsets = utf8.buffers(texts)
        return data[offsets[0] : offsets[-1]].astype(np.uint32), np.diff(offsets)


@dataclass(frozen=True)
class TokenizerSource:
    """A tokenizer as plain text: enough to build it anywhere.

    Attributes:
        name: What it is called in a recipe.
        json: Content of its `tokenizer.json`.
        eos_token: Token that ends a document; none if it has none.
    """

    name: str
    json: str
    eos_token: str | None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the JSON and the end-of-text token, hex."""
        return hashlib.sha256(f"{self.json}\0{self.eos_token or ''}".encode()).hexdigest()


class JsonTokenizer:
    """A tokenizer of the `tokenizers` library, with truncation, padding and special tokens switched off."""

    def __init__(self, source: TokenizerSource) -> None:
        import tokenizers

        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_str(source.json)
        except Exception as error:  # the library raises bare Exception
            raise TokenizerError(f"{source.name}: not a tokenizer.json that this version reads: {error}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self.name, self.fingerprint = source.name, source.fingerprint
        self.vocab_size: int = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.eos_token = source.eos_token
        self.eos: int | None = None
        if source.eos_token is not None:
            self.eos = self._tokenizer.token_to_id(source.eos_token)
            if self.eos is None:
                raise TokenizerError(
                    f"{source.name}: its end-of-text token {source.eos_token!r} is not in the vocabulary: correct "
                    f"`eos_token` in the tokenizer_config.json beside it"
                )
        self.cuttable = self._is_cuttable()

    def encode(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """See `Tokenizer.encode`."""
        lengths = np.zeros(len(texts), np.int64)
        parts = [np.empty(0, np.uint32)]
        for documents, pieces in _groups(texts, PIECE_CHARS if self.cuttable else None):
            for document, encoding in zip(documents, self._encode(pieces), strict=True):
                parts.append(np.array(encoding.ids, np.uint32))
                lengths[document] += len(parts[-1])
        return np.concatenate(parts), lengths

    def decode(self, ids: np.ndarray) -> str:
        """Text of some ids, special tokens included."""
        return str(self._tokenizer.decode(ids.tolist(), skip_special_tokens=False))

    def _encode(self, texts: list[str]) -> Any:
        return self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)

    def _is_cuttable(self) -> bool:
        if self._tokenizer.pre_tokenizer is None:  # merges may then cross any place
            return False
        whole, *pieces = self._encode([_PROBE, *cut(_PROBE, 0)])
        return bool(whole.ids == [i for piece in pieces for i in piece.ids])


def cut(text: str, size: int) -> Iterator[str]:
    """Cuts a text into pieces that are encoded like the whole, each the shortest such piece of at least `size`.

    A cut lies after a line feed that stands between two characters which are no white space, or before a space that
    stands between two ASCII letters. The splitting expressions of GPT-2, of cl100k, Llama 3 and Qwen, and splitting at
    white space, all end a token there, so that no merge crosses the cut. Tokenizers that do otherwise (those that put
    a mark before every text, as SentencePiece's) are found by a probe when they are loaded, and get their texts whole.

    Args:
        text: Any text.
        size: Shortest piece but the last, in codepoints.

    Yields:
        Pieces, which joined give the text.
    """
    start = 0
    while len(text) - start > size:
        found = _CUT.search(text, start + size)
        if found is None or found.end() >= len(text):
            break
        if found.end() > start:
            yield text[start : found.end()]
        start, size = found.end(), max(size, 1)
    yield text[start:]


def use_threads(threads: int) -> None:
    """Tells the `tokenizers` library how many threads it may use, unless the user has; before it first encodes."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if threads > 1 else "false")
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))


def _groups(texts: pa.Array, piece_chars: int | None) -> Iterator[tuple[list[int], list[str]]]:
    documents: list[int] = []
    pieces: list[str] = []
    size = 0
    for document, text in enumerate(texts):
        whole = text.as_py()
        for piece in cut(whole, piece_chars) if piece_chars else (whole,):
            documents.append(document)
            pieces.append(piece)
            size += len(piece) if piece.isascii() else len(piece.encode())
            if size >= BATCH_BYTES:
                yield documents, pieces
                documents, pieces, size = [], [], 0
    if pieces:
        yield documents, pieces
