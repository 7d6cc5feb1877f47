"""Settings of the stage `filter`, and the thresholds of its rules in one table."""

from typing import Self

from pydantic import Field, model_validator

from ropewalk.schemas.settings import Settings


class FilterConfig(Settings):
    """Which documents take part in the later stages."""

    min_chars: int = Field(default=50, ge=0)
    """Shortest document, in codepoints."""
    max_chars: int | None = Field(default=None, ge=1)
    """Longest document, in codepoints; none: no limit."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_chars is not None and self.max_chars < self.min_chars:
            raise ValueError(f"max_chars={self.max_chars} is below min_chars={self.min_chars}: nothing would pass")
        return self
