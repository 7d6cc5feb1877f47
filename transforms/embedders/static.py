"""Static vectors: a table with a vector for each token, distilled once from all-MiniLM-L6-v2; no model runs after that.

The recipe of model2vec (Tulkens and van Dongen 2024): every token of the vocabulary goes through the encoder alone, the
vectors are reduced by PCA, and each is weighed by SIF (Arora, Liang and Ma 2017), a / (a + p), where the probability p
of a token comes from Zipf's law and its place in the vocabulary, which is in order of frequency.

The table is kept in the user's cache folder, under a name made from the hash of the weights.
"""

import functools
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ropewalk.kernels import grid, pool_tokens
from ropewalk.schemas import files, minilm
from ropewalk.transforms import tokenizers, utf8
from ropewalk.transforms.embedders.encoder import EmbedderError
from ropewalk.transforms.embedders.minilm import MiniLM

DIMENSIONS = 256
SIF = 1e-4
"""model2vec's coefficient `a`."""
LARGEST = 32767
"""The largest number of the table, in absolute value: int16."""
VERSION = 1


@dataclass
class StaticEmbedder:
    """An `embed.Embedder`.

    Attributes:
        dimensions: Numbers of a vector, at most `DIMENSIONS`: the leading components of the table.
        threads: Threads of the tokenizer and the kernel.
    """

    dimensions: int = DIMENSIONS
    threads: int = 1
    name = "static"
    reusable = True
    windowed = False

    def __post_init__(self) -> None:
        if self.dimensions > DIMENSIONS:
            raise EmbedderError(f"embed.dimensions is {self.dimensions}: embedder static has at most {DIMENSIONS}")

    @property
    def fingerprint(self) -> str:
        """Hash of what the table is made from."""
        return hashlib.sha256(f"{_recipe()} {self.dimensions}".encode()).hexdigest()

    def setup(self) -> None:
        """Loads the table, or distils it: half a minute, once."""
        table()

    def embed(self, texts: pa.Array) -> np.ndarray:
        """See `embed.Embedder.embed`; a text without a token gets the zero vector."""
        ids, lengths = _tokenizer(self.threads).encode(texts)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.ascontiguousarray(table()[:, : self.dimensions])
        found = np.empty((len(texts), self.dimensions), np.float16)

        def run(first: int, last: int) -> None:
            found[first:last] = grid.snap(pool_tokens.pool(ids, offsets[first : last + 1], rows))

        utf8.spread(run, offsets, self.threads)
        return found


def _recipe() -> str:
    return f"static {VERSION} {minilm.SHA256} {minilm.TOKENIZER_SHA256} {DIMENSIONS} {SIF}"


def cache_folder() -> Path:
    """Where the table is kept: `ropewalk` in `XDG_CACHE_HOME` or `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ropewalk"


@functools.lru_cache(maxsize=1)
def table() -> np.ndarray:
    """The table: int16[vocabulary, DIMENSIONS].

    Raises:
        EmbedderError: It is not there, and the package it is distilled from is not installed.
    """
    path = cache_folder() / f"static-{hashlib.sha256(_recipe().encode()).hexdigest()[:16]}.npy"
    try:
        made: np.ndarray = np.load(path)
        return made
    except FileNotFoundError:
        made = distil(encode_vocabulary())
    try:
        with files.atomic(str(path)) as sink:
            np.save(sink, made)
    except OSError:  # a home that cannot be written to: it will be distilled again
        pass
    return made


def encode_vocabulary() -> np.ndarray:
    """What the encoder says of each token alone, NaN for special ones: float32[vocabulary, 384]."""
    encoder = MiniLM(threads=os.cpu_count() or 1)
    try:
        _, path = minilm.checked_files()
    except (FileNotFoundError, ValueError) as error:
        raise EmbedderError(f"embedder static: {error}") from None
    import tokenizers as library

    vocabulary = library.Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True)
    vectors = np.full((max(vocabulary.values()) + 1, encoder.dimensions), np.nan, np.float32)
    known = np.array(sorted(i for token, i in vocabulary.items() if not re.fullmatch(r"\[.+\]", token)))
    vectors[known] = encoder.encode(list(known.astype(np.uint32)[:, None]))
    return vectors


def distil(vectors: np.ndarray, dimensions: int = DIMENSIONS) -> np.ndarray:
    """Reduces and weighs token vectors: float32[vocabulary, d], NaN where a token has none -> int16[vocabulary, dims].

    The signs of the components are fixed, so that LAPACK's choice does not show.
    """
    known = np.isfinite(vectors).all(axis=1)
    wide = vectors[known].astype(np.float64)
    wide -= wide.mean(axis=0)
    _, components = np.linalg.eigh(wide.T @ wide)
    components = components[:, ::-1][:, :dimensions]
    largest = components[np.abs(components).argmax(axis=0), np.arange(components.shape[1])]
    reduced = wide @ (components * np.where(largest < 0, -1, 1))
    ranks = 1.0 / np.arange(2, known.sum() + 2)
    weights = SIF / (SIF + ranks / ranks.sum())
    weighed = np.zeros((len(vectors), components.shape[1]))
    weighed[known] = reduced * weights[:, None]
    scale = LARGEST / max(np.abs(weighed).max(), 1e-300)
    found: np.ndarray = np.rint(weighed * scale).astype(np.int16)
    return found


@functools.lru_cache(maxsize=1)
def _tokenizer(threads: int) -> tokenizers.JsonTokenizer:
    tokenizers.use_threads(threads)
    _, path = minilm.checked_files()
    return tokenizers.JsonTokenizer(tokenizers.TokenizerSource("minilm", path.read_text(encoding="utf-8"), None))
