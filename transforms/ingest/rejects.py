"""Dead letters: what could not be read, where it lies, and why."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from ropewalk.schemas import tables

REASONS = {
    "empty_file": "the file has no bytes",
    "unreadable_file": "the file cannot be opened, or reading it failed",
    "truncated_file": "the file ends too early; what came before the break was read",
    "damaged_file": "the file cannot be read (further)",
    "damaged_rows": "a part of the file cannot be read; the parts after it were",
    "duplicate_column": "two columns of the file have one name",
    "html_too_deep": "a page with too many elements inside one another",
    "oversized_record": "longer than `max_record_bytes`",
    "invalid_utf8": "not UTF-8",
    "broken_json": "not JSON",
    "not_an_object": "JSON, but not an object",
    "missing_text": "no text field",
    "null_text": "the text field is null",
    "text_not_string": "the text field is not a string",
    "lone_surrogate": "the text has half of a surrogate pair, for which there is no UTF-8",
}
"""Every reason code; its counter is `<reason>-records`."""


@dataclass(frozen=True)
class Reject:
    """One dead letter; see `tables.REJECTS` for the fields."""

    reason: str
    detail: str
    path: str
    line: int | None = None
    byte_offset: int | None = None
    payload: bytes | None = None


def unreadable(path: str, error: OSError) -> Reject:
    """The dead letter of a file that the filesystem does not give: no permission, gone since the listing, bad disk."""
    detail = f"{error.strerror or error or type(error).__name__}: make it readable, and run again"
    return Reject("unreadable_file", detail, path)


def reject_batch(rejects: Sequence[Reject], *, source: str, payload_limit: int) -> pa.RecordBatch:
    """Rows of `tables.REJECTS`, each payload cut at `payload_limit` bytes."""
    columns = {
        "stage": ["ingest"] * len(rejects),
        "reason": [reject.reason for reject in rejects],
        "detail": [reject.detail.encode(errors="backslashreplace").decode() for reject in rejects],
        "source": [source] * len(rejects),
        "path": [reject.path.encode(errors="backslashreplace").decode() for reject in rejects],
        "line": [reject.line for reject in rejects],
        "byte_offset": [reject.byte_offset for reject in rejects],
        "payload": [None if r.payload is None else r.payload[:payload_limit] for r in rejects],
    }
    return pa.RecordBatch.from_pydict(columns, schema=tables.REJECTS)
