"""What happens to a row, as it happens: the one stream that telemetry, displays and traces are made from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ropewalk.synth.engine import Completion, Request

Kind = Literal[
    "started",  # the row's coroutine begins
    "asked",  # a request goes to the engine
    "answered",  # the engine answered it; it is in the cache now
    "cached",  # the cache answered it
    "retried",  # it failed and is asked again after a pause
    "failed",  # it failed for good
    "continued",  # an answer reached the end of a segment, or of its first ceiling, and goes on
    "accepted",  # an answer became a result
    "refused",  # an answer will not do
    "note",  # a line left by the recipe
    "done",  # the row is made
    "rejected",  # the row makes no sample
]


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        kind: What.
        row: Id of the row.
        step: Step of the recipe; empty for the row as a whole.
        attempt: Try of the step.
        segment: Segment of the try.
        reason: Short code, where something was refused, failed or rejected; the decision of a note.
        detail: What exactly.
        request: The whole request: of `asked`, `answered`, `cached`, `retried` and `failed`.
        completion: The whole answer: of `answered` and `cached`.
        text: The whole text a decision was made on: of `accepted` and `refused`.
        facts: Figures and facts, by name.
    """

    kind: Kind
    row: str
    step: str = ""
    attempt: int = 0
    segment: int = 0
    reason: str = ""
    detail: str = ""
    request: Request | None = None
    completion: Completion | None = None
    text: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


Observer = Callable[[Event], None]
"""Is told of every event, on the event loop: it must be quick and must not raise."""
