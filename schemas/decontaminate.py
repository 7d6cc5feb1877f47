"""Settings of the stage `decontaminate`: benchmarks, and what counts as having seen them."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ropewalk.schemas.settings import Settings

RULES: dict[str, dict[str, Any]] = {
    "gpt3": {"ngram": 13, "max_documents": 10, "action": "mask", "window": 200, "min_piece": 200, "max_pieces": 10},
    "llama2": {"ngram": 10, "skips": 4, "share": 0.8, "share_of": "words", "clean_below": 0.2},
    "palm": {"ngram": 8, "share": 0.7, "share_of": "ngrams"},
    "datatrove": {"ngram": 12, "parts": "answers"},
}
"""Published rules as settings; what a recipe sets beside `rule` wins. Sources and readings: docs/decontamination.md."""


class BenchmarkConfig(Settings):
    """A benchmark's items."""

    path: str
    """JSONL, JSON, Parquet or Arrow file, folder (also one of `save_to_disk`) or glob, here or at any fsspec URL; or
    the name of a benchmark of the list in `docs/decontamination.md`."""
    name: str | None = None
    """What the report calls it; default: derived from the path. A name of the list also brings its fields."""
    fields: tuple[str, ...] = ()
    """Fields whose text a model must not have seen, lists and objects included; `qa.question` is the field `question`
    of the object, or of every object of the list, `qa`. None: all text but the answers and the id."""
    answers: tuple[str, ...] = ()
    """Fields that hold the answer, for rules that look at it by itself."""
    id: str = "id"
    """Field that names an item; items without one go by their number, from 0."""


class DecontaminateConfig(Settings):
    """Benchmark items in the documents."""

    benchmarks: tuple[BenchmarkConfig, ...] = Field(min_length=1)
    """What to look for."""
    rule: Literal["gpt3", "llama2", "palm", "datatrove"] = "gpt3"
    """Where the settings below come from unless they are set; see `docs/decontamination.md`."""
    ngram: int | None = Field(default=13, ge=2, le=64)
    """Words of a match. None: for each benchmark the 5th percentile of its items' lengths (of the longest text each),
    at least 8 and at most 13, as GPT-3's evaluation chose it. Shorter texts cannot match and are counted."""
    parts: Literal["all", "answers"] = "all"
    """`answers`: only n-grams of an answer, and those that begin in the item's other text and end in its answer."""
    skips: int | None = Field(default=None, ge=0, le=64)
    """A match must be longer than `ngram` words, of which those behind the first `ngram` may differ in so many places,
    the last word not among them. None: a match is an n-gram."""
    share: float = Field(default=0.0, ge=0, le=1)
    """Share of one text of an item that matches in one document must cover; 0: any match will do."""
    share_of: Literal["words", "ngrams"] = "words"
    """What `share` is a share of."""
    clean_below: float | None = Field(default=None, ge=0, le=1)
    """The report counts an item as touched from this share on, though no document reaches `share`."""
    max_documents: int | None = Field(default=None, ge=1)
    """N-grams found in more documents than that are common phrases and do not count. None: all count."""
    action: Literal["drop", "mask", "flag"] = "drop"
    """`drop`: contaminated documents are out; `mask`: the matches are cut out of their text; `flag`: only told."""
    window: int = Field(default=0, ge=0)
    """With `mask`: characters that are cut on either side of a match."""
    min_piece: int = Field(default=0, ge=0)
    """With `mask`: what is left between cuts goes as well if it has fewer characters."""
    max_pieces: int | None = Field(default=None, ge=1)
    """With `mask`: a document that the cuts split into more pieces, short ones counted, is out."""

    @model_validator(mode="before")
    @classmethod
    def _rule(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        benchmarks = value.get("benchmarks")
        if isinstance(benchmarks, str | dict):
            benchmarks = [benchmarks]
        if isinstance(benchmarks, list | tuple):
            value = value | {"benchmarks": [{"path": b} if isinstance(b, str) else b for b in benchmarks]}
        rule = value.get("rule", "gpt3")
        return (RULES.get(rule, {}) if isinstance(rule, str) else {}) | value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.skips is not None and (self.share_of != "words" or self.ngram is None):
            raise ValueError("skips: matches with skips need a given `ngram`, and cover words: set `share_of: words`")
        if self.clean_below is not None and self.clean_below > self.share:
            raise ValueError(f"clean_below={self.clean_below} is above share={self.share}: lower it, or leave it out")
        return self
