"""Values made fit for a terminal: text from anyone without control codes or markup, sizes in words."""

import json
from typing import Any

from rich.markup import escape

SHOWN_CHARS = 600
"""What is shown of a value."""


def clean(text: str) -> str:
    """Text without control codes, which could drive the terminal; line ends and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def shown(text: object) -> str:
    """A value as it can stand in rich markup."""
    return escape(clean(str(text)))


def shorten(value: Any, limit: int = SHOWN_CHARS) -> str:
    """A value as text, cut in the middle."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]} … [{len(text) - 2 * half:,} characters] … {text[-half:]}"
    return clean(text)


def size(count: float) -> str:
    """A number of bytes, in words."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    raise AssertionError
