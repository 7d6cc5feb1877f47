"""Ends requests that go in circles while they are being written, inside vLLM: a logits processor for each model runner.

vLLM's own `repetition_detection` finds copies of short patterns only (its cost grows with the pattern); a block of 92
lines written 32 times passes it. Here every `loop_guard` tokens the tail of the answer is shown to `guards.loops`, and
if it is a loop, the next token is the end of the sequence, whatever the model would have said. Since vLLM then reports
`stop`, `ended_by_guard` tells such an end from the model's own, by the same rule.

vLLM 0.32 has two model runners with a logits processor interface each, and takes classes of the one it runs only:
`LoopGuardV1` (no Triton: the CPU build) and `LoopGuardV2` (any usual GPU install). `class_path` names the right one,
and either works in a server too:

    vllm serve MODEL --logits-processors ropewalk.synth.engines.vllm_loop_guard:LoopGuardV2

where a request asks for it by `"vllm_xargs": {"loop_guard": 256}`. The classes are made when asked for: a subclass
needs its base, and vLLM is heavy. Requests with `ignore_eos`, models without an end token, structured output (its
grammar must not be broken) and speculative decoding (vLLM refuses processors there) go unguarded.

`LoopGuardV2` has been tested against stand-ins of vLLM's request states only: it has never run on a GPU.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

KEY = "loop_guard"
"""Name in a request's `extra_args`; its value: tokens between two looks, 0 for none."""


@dataclass(frozen=True)
class Guard:
    """How one request is guarded.

    Attributes:
        every: Tokens between two looks.
        end: Token that ends the sequence.
    """

    every: int
    end: int

    @classmethod
    def of(cls, params: Any) -> Self | None:
        """The guard a request asks for; none if it asks for none, or cannot be ended by a token.

        Args:
            params: vLLM's `SamplingParams`, after the engine has put the end token in.
        """
        every = (params.extra_args or {}).get(KEY, 0)
        if not every or params.eos_token_id is None or params.structured_outputs is not None:
            return None
        return cls(every, params.eos_token_id)

    def is_due(self, generated: int) -> bool:
        """Whether to look now: after a fixed number of tokens, so that the batch has no say in it."""
        return generated > 0 and generated % self.every == 0


def check(params: Any) -> None:
    """Refuses a wrong `loop_guard`.

    Raises:
        ValueError: It is not a whole number, or negative.
    """
    every = (params.extra_args or {}).get(KEY, 0)
    if not isinstance(every, int) or isinstance(every, bool) or every < 0:
        raise ValueError(f"{KEY} is {every!r}: give the tokens between two looks as a whole number, or 0 for none")


def ended_by_guard(token_ids: Sequence[int], every: int) -> bool:
    """Whether a request that ended with its end token was ended by the guard.

    Args:
        token_ids: All it generated, the end token included.
        every: Its `loop_guard`.
    """
    from ropewalk.synth.guards import loops

    generated = len(token_ids) - 1
    return bool(every) and generated > 0 and generated % every == 0 and loops.find_loop(token_ids[:-1]) is not None


def class_path(vllm_config: Any) -> str | None:
    """`module:class` for the model runner of a configured engine; none where vLLM takes no logits processors."""
    if vllm_config.speculative_config is not None:
        return None
    return f"{__name__}:LoopGuardV{2 if vllm_config.use_v2_model_runner else 1}"


@functools.cache
def _v1() -> type:
    from vllm.v1.sample.logits_processor import LogitsProcessor, MoveDirectionality

    from ropewalk.synth.guards import loops

    class LoopGuardV1(LogitsProcessor):
        """For the first model runner: state by row of the batch, moved when rows move."""

        def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
            self._rows: dict[int, tuple[Guard, list[int]]] = {}

        @classmethod
        def validate_params(cls, sampling_params: Any) -> None:
            check(sampling_params)

        def is_argmax_invariant(self) -> bool:
            return False

        def update_state(self, batch_update: Any) -> None:
            if batch_update is None:
                return
            for row in batch_update.removed:
                self._rows.pop(row, None)
            for row, params, _, token_ids in batch_update.added:
                guard = Guard.of(params)
                if guard is None:
                    self._rows.pop(row, None)
                else:
                    self._rows[row] = guard, token_ids  # a live list: vLLM appends to it
            for source, target, direction in batch_update.moved:
                moved, replaced = self._rows.pop(source, None), self._rows.pop(target, None)
                if moved is not None:
                    self._rows[target] = moved
                if replaced is not None and direction == MoveDirectionality.SWAP:
                    self._rows[source] = replaced

        def apply(self, logits: Any) -> Any:
            for row, (guard, token_ids) in self._rows.items():
                if guard.is_due(len(token_ids)) and loops.find_loop(token_ids) is not None:
                    logits[row] = float("-inf")
                    logits[row, guard.end] = 0.0
            return logits

    return LoopGuardV1


@functools.cache
def _v2() -> type:
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor

    from ropewalk.synth.guards import loops

    class LoopGuardV2(LogitsProcessor):
        """For the second model runner: state by slot of a request; slots are used again."""

        def __init__(self, vllm_config: Any, req_states: Any) -> None:
            self._states = req_states
            self._slots: dict[int, Guard] = {}

        @classmethod
        def validate_params(cls, sampling_params: Any) -> None:
            check(sampling_params)

        def add_request(self, req_idx: int, sampling_params: Any) -> bool:
            self._slots.pop(req_idx, None)
            guard = Guard.of(sampling_params)
            if guard is not None:
                self._slots[req_idx] = guard
            return guard is not None

        def apply(self, logits: Any, ctx: Any) -> Any:
            # Lengths are known here without waiting for the device; only a request that is due is read from it.
            lengths = ctx.seq_lens_upper_bound_np.tolist()  # exact without speculative decoding
            for slot, length in zip(ctx.idx_mapping_np.tolist(), lengths, strict=True):
                guard = self._slots.get(slot)
                if guard is None:
                    continue
                prompt = int(self._states.prompt_len.np[slot])
                if not guard.is_due(length - prompt):
                    continue
                token_ids = self._states.all_token_ids.gpu[slot, prompt:length].cpu().numpy()
                if loops.find_loop(token_ids) is not None:
                    rows = ctx.expanded_idx_mapping == slot
                    logits.masked_fill_(rows.unsqueeze(1), float("-inf"))
                    logits[:, guard.end].masked_fill_(rows, 0.0)
            return logits

    return LoopGuardV2


def __getattr__(name: str) -> type:
    """The classes, by name: vLLM finds them as attributes of this module, and so does pickle."""
    makers = {"LoopGuardV1": _v1, "LoopGuardV2": _v2}
    if name not in makers:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = makers[name]()
    made.__module__, made.__qualname__ = __name__, name
    return made
