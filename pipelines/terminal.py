"""Text from anyone, made fit for a terminal: no control codes, no markup."""

from rich.markup import escape


def clean(text: str) -> str:
    """Text without control codes, which could drive the terminal; line ends and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def shown(text: object) -> str:
    """A value as it can stand in rich markup."""
    return escape(clean(str(text)))
