"""Settings of the stages that look for what is there already: `dedup`, `passages` and `semantic`."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ropewalk.schemas.settings import Settings


class NormalizeConfig(Settings):
    """What of a text does not count when texts are compared. The text itself is never changed."""

    case: bool = True
    """Lower-case."""
    punctuation: bool = True
    """Punctuation, symbols and spaces only separate words. False: each sign is a word of its own."""
    digits: bool = False
    """A run of digits counts as `0`."""
    accents: bool = False
    """Combining marks are dropped and accented letters count as their base: é as e (NFD without marks)."""
    nfc: bool = True
    """Composed and decomposed characters count as the same (NFC)."""


PRESETS: dict[str, dict[str, Any]] = {
    "datatrove": {
        "bands": 14, "rows": 8, "ngram": 5, "unit": "word",
        "normalize": {"case": True, "punctuation": True, "digits": True, "accents": True},
    },
    "nemo": {
        "bands": 20, "rows": 13, "ngram": 24, "unit": "character",
        "normalize": {"case": False, "punctuation": False, "nfc": False},
    },
    "slimpajama": {"bands": 9, "rows": 13, "ngram": 13, "unit": "character"},
    "lee": {"bands": 450, "rows": 20, "ngram": 5, "unit": "word"},
}  # fmt: skip
"""Published settings by name; see recipes-corpus: datatrove 0.10, NeMo Curator, SlimPajama, Lee et al. 2022
(arXiv 2107.06499). What they set can be set otherwise beside `preset`."""


class DedupConfig(Settings):
    """Exact and near duplicates. The S-curve of the bands is 1 - (1 - s^rows)^bands."""

    preset: Literal["datatrove", "nemo", "slimpajama", "lee"] | None = None
    """Bands, rows, shingles and normalisation as another tool has them; what is named beside it wins."""
    near: bool = True
    """Also find near-duplicates; false: exact copies (up to `normalize`) only."""
    url: bool = False
    """Documents with the same URL (without scheme, fragment, trailing slash and `www.`) are copies."""
    unit: Literal["word", "character"] = "word"
    """What shingles are made of. Words of scripts without spaces are single characters."""
    ngram: int = Field(default=5, ge=1, le=64)
    """Words or characters in a shingle. A shorter document is one shingle."""
    normalize: NormalizeConfig = NormalizeConfig()
    """What does not count when texts are compared."""
    signature: Literal["affine32", "one_permutation"] = "affine32"
    """`affine32`: datasketch's MinHash, bit for bit. `one_permutation`: one pass whatever the number of values,
    optimally densified (Shrivastava 2017); quicker with many values."""
    bands: int | None = Field(default=14, ge=1, le=512)
    """LSH bands; documents that agree on all rows of one band are candidates. None: derived, see `recall`."""
    rows: int | None = Field(default=8, ge=1, le=64)
    """Signature values in a band. None: derived."""
    recall: float = Field(default=0.95, gt=0, lt=1)
    """Where `bands` and `rows` are none: the share of pairs at `threshold` that must become candidates."""
    values: int = Field(default=256, ge=1, le=16384)
    """Where `bands` and `rows` are none: values that a signature may have."""
    threshold: float = Field(default=0.75, ge=0, le=1)
    """Smallest Jaccard similarity of shingle sets for which two documents count as copies."""
    verify: Literal["exact", "signature", "none"] = "exact"
    """How a candidate pair's similarity is found: from the shingle sets, estimated from the signatures, or not."""
    clusters: Literal["star", "components"] = "components"
    """`components`: everything linked by copies of copies is one group with one survivor. `star`: a document goes only
    if it is itself a copy of a survivor."""
    quality: str | None = None
    """A number in `metadata`, by field name: the copy with the higher one is kept, before length, priority and id."""
    against: tuple[str, ...] = ()
    """Older corpora that were deduplicated with `index: true` and the same settings; their documents win."""
    index: bool = False
    """Leave an index (`index/dedup`), so that later corpora can be deduplicated against this one."""
    components_mb: int = Field(default=1024, ge=0)
    """Memory for joining copies in one worker, 128 bytes a pair; more pairs go by rounds of large-star and small-star,
    with the same result."""
    max_source_share: float = Field(default=0.95, gt=0, le=1)
    """Stop if more than this share of a source (of 1,000 documents or more) would go: a wiped-out source is a mistake
    more often than not."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        preset = PRESETS.get(value.get("preset") or "") if isinstance(value, dict) else None
        if not preset:
            return value
        merged = preset | value
        if isinstance(value.get("normalize"), dict) and "normalize" in preset:
            merged["normalize"] = preset["normalize"] | value["normalize"]
        return merged

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.bands is None) != (self.rows is None):
            raise ValueError("bands and rows are given together, or both derived: `bands: null` and `rows: null`")
        if not self.near and self.verify != "exact":
            raise ValueError(f"verify={self.verify!r} is about near-duplicates, and `near` is false")
        return self


class PassagesConfig(Settings):
    """Repeated passages: all copies but the first are cut out of the text that the later stages see."""

    paragraphs: int | None = Field(default=None, ge=1)
    """Cut paragraphs (between blank lines) whose words occurred before as a paragraph, of at least so many bytes; case,
    punctuation and line breaks do not count. None: leave paragraphs alone."""
    lines: int | None = Field(default=None, ge=1)
    """The same for lines, in what paragraphs left."""
    substrings: int | None = Field(default=None, ge=8)
    """Cut runs of at least so many bytes that occurred before, byte for byte, wherever they begin, in what the others
    left (Lee et al. 2022: 50 tokens, 100 bytes). The first copy stays whole."""
    snap: Literal["line", "word", "character"] = "line"
    """Cuts of substrings are narrowed to whole lines, whole words or whole characters."""
    min_left: int = Field(default=50, ge=0)
    """A document that was cut and has fewer characters left is out, with first copies that are in the rest."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.paragraphs is self.lines is self.substrings is None:
            raise ValueError("name what to cut: `paragraphs: 40`, `lines: 40` or `substrings: 100` (bytes, at least)")
        return self


class SemanticConfig(Settings):
    """Semantic duplicates: documents of one cluster whose vectors nearly agree (SemDeDup, arXiv 2303.09540)."""

    epsilon: float = Field(default=0.05, gt=0, lt=1)
    """Two documents are duplicates if their cosine is above 1 - epsilon."""
    rule: Literal["survivor", "earlier"] = "survivor"
    """`survivor`: a document goes if it is a duplicate of one that stays, as the paper says. `earlier`: if it is one of
    any earlier document, as the published code does."""
    prefer: Literal["hard", "easy"] = "hard"
    """Which documents come first: the farthest from the centroid, or the nearest."""
