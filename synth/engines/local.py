"""The embedded engine: OpenVINO GenAI on this machine's CPU, with SmolLM2-135M where no other model is named.

It needs no server, no GPU and, with its default model, no download. SmolLM2-135M shows that everything works; what it
writes is a demonstration, not training data. Any other model that OpenVINO reads is named by its path or Hub id.

The text of a request depends on the batch it ran in: the matrix products round differently for 1 and 16 sequences, so
the same seed gives the same text only in the same company. What makes a run repeatable is the cache, not the seed.
OpenVINO does not tell how much of a prompt it found in its prefix cache: `usage.cached` is 0, though the cache is on.
"""

import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ropewalk.schemas.synth_recipe import EngineConfig
from ropewalk.synth.engine import (
    Engine,
    EngineDead,
    EngineInfo,
    FinishReason,
    Message,
    RequestError,
    Sampling,
    revision_with,
)
from ropewalk.synth.engines import local_models
from ropewalk.synth.engines.stepped import Finished, SteppedEngine
from ropewalk.synth.guards.loops import find_loop

INSTALL = "pip install 'ropewalk[local]'"
MAX_SEQUENCES = 16
BLOCK_TOKENS = 32
"""Tokens in a block of OpenVINO's KV cache on CPU."""
BLOCKS_PER_SEQUENCE = 128
"""KV blocks for each of `max_sequences` where `num_kv_blocks` is not set: 4,096 tokens, of SmolLM2 55 MB."""
SCHEDULER_OPTIONS = ("num_kv_blocks", "max_num_batched_tokens", "enable_prefix_caching")
"""Attributes of OpenVINO's `SchedulerConfig` that may be set in `engine.options`."""
CHANGING = (
    "INFERENCE_PRECISION_HINT", "KV_CACHE_PRECISION", "EXECUTION_MODE_HINT", "DYNAMIC_QUANTIZATION_GROUP_SIZE",
)  # fmt: skip
"""Properties of the CPU device that change what a model answers."""
EXTRA = ("presence_penalty", "frequency_penalty", "ignore_eos", "stop_token_ids")
"""Attributes of OpenVINO's `GenerationConfig` that may be set in `sampling.extra`. Not `no_repeat_ngram_size`: it is
taken without a word, but heeded by beam search only."""

_CONTROL = [chr(code) for code in (*range(32), 127) if chr(code) not in "\t\n\r"]


def from_config(config: EngineConfig) -> Engine:
    """The engine of a recipe.

    `options` are OpenVINO's own: the scheduler's (`SCHEDULER_OPTIONS`) and, in capitals, properties of the CPU device,
    such as `INFERENCE_NUM_THREADS: 2`.

    Raises:
        ValueError: An option is unknown.
    """
    stepper = OpenVinoStepper(config.model, max_sequences=config.max_sequences, options=config.options)
    return SteppedEngine(stepper, find_loop=find_loop)


def import_openvino() -> Any:
    """The package `openvino_genai`, its telemetry cut off.

    Importing OpenVINO sends an event to Google Analytics and writes to `~/intel`, consent or not asked for. Without
    the package `openvino_telemetry` it uses a stub of its own; so that package is made to look absent.

    Raises:
        EngineDead: It is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino_genai
    except ImportError as error:
        raise EngineDead(f"the local engine needs OpenVINO: {INSTALL} ({error})") from error
    return openvino_genai


@dataclass(eq=False)
class _Run:
    """A request in the pipeline."""

    handle: Any
    sampling: Sampling
    added: float
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    first_token: float = 0.0


class OpenVinoStepper:
    """A `stepped.Stepper` around OpenVINO's `ContinuousBatchingPipeline`.

    Args:
        model: Path or Hub id, as in `local_models.find`; none for SmolLM2-135M.
        max_sequences: Requests in one batch; default: `MAX_SEQUENCES`.
        options: See `from_config`.

    Raises:
        ValueError: An option is unknown.
    """

    def __init__(
        self, model: str | None = None, *, max_sequences: int | None = None, options: Mapping[str, Any] | None = None
    ) -> None:
        self._model = model
        self._max_sequences = max_sequences or MAX_SEQUENCES
        self._scheduler_options, self._properties = _sorted_options(options or {})
        self._pipe: Any = None
        self._tokenizer: Any = None
        self._runs: dict[int, _Run] = {}
        self._unknown: dict[int, None] = {}
        self._bad_schemas: dict[str, str] = {}
        """JSON schemas that do not compile, and why."""

    def load(self) -> EngineInfo:
        """Loads the model: 4 to 15 seconds for SmolLM2."""
        self._ov = import_openvino()
        model = local_models.find(self._model)
        scheduler = self._scheduler_config()
        try:
            self._pipe = self._ov.ContinuousBatchingPipeline(str(model.path), scheduler, "CPU", self._properties)
        except RuntimeError as error:
            raise EngineDead(
                f"{model.path}: OpenVINO cannot load it: {_gist(error)}; {local_models.READABLE}"
            ) from error
        self._tokenizer = self._pipe.get_tokenizer()
        vocabulary: dict[bytes, int] = self._tokenizer.get_vocab()
        self._vocabulary_size = max(vocabulary.values()) + 1
        self._cut_at = self._truncation(model.context_length)
        self._unknown = {ord(sign): None for sign in _CONTROL if not self._knows(sign)}
        return EngineInfo(
            engine=f"openvino-genai {self._ov.__version__}",
            model=model.name,
            revision=revision_with(model.revision, self._properties, CHANGING),
            template=_fingerprint(self._tokenizer.chat_template, vocabulary),
            max_sequences=self._max_sequences,
            max_tokens=scheduler.num_kv_blocks * BLOCK_TOKENS,
            context_length=model.context_length,
        )

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """See `Stepper.encode_chat`."""
        if not self._tokenizer.chat_template:
            detail = "the model has no chat template: use one that is tuned for instructions"
            raise RequestError("bad_request", detail, transient=False)
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(turns, add_generation_prompt=True)
        except RuntimeError as error:
            detail = f"the model's chat template refuses {[message.role for message in messages]}: {_gist(error)}"
            raise RequestError("bad_request", detail, transient=False) from error
        return self.encode(text)

    def encode(self, text: str) -> list[int]:
        """See `Stepper.encode`.

        OpenVINO's tokenizer silently drops what lies beyond the model's context. Longer texts are cut in two at an
        end of a line (or a space, or anywhere) next to their middle: their tokens may differ at the cut, none is lost.
        Control characters that the vocabulary lacks are left out; OpenVINO would put the first token for them, which
        in SmolLM2 ends a document.
        """
        text = text.translate(self._unknown)
        token_ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).input_ids.data[0].tolist()
        if self._cut_at is None or len(token_ids) < self._cut_at or len(text) < 2:
            return token_ids
        middle = len(text) // 2
        cut = next((place + 1 for sign in "\n " if (place := text.rfind(sign, 0, middle)) > 0), middle)
        return [*self.encode(text[:cut]), *self.encode(text[cut:])]

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `Stepper.decode`; bytes that are no character are left out."""
        return str(self._tokenizer.decode(list(token_ids))) if token_ids else ""

    def add(self, number: int, prompt_ids: Sequence[int], sampling: Sampling) -> None:
        """See `Stepper.add`."""
        import numpy as np
        import openvino

        ids = np.array([prompt_ids], dtype=np.int64)
        if ids.min() < 0 or ids.max() >= self._vocabulary_size:
            wrong = int(ids.min() if ids.min() < 0 else ids.max())
            detail = f"token {wrong} is not one of the model's {self._vocabulary_size}: was it another tokenizer's?"
            raise RequestError("bad_request", detail, transient=False)
        if sampling.json_schema in self._bad_schemas:
            raise _refused(self._bad_schemas[sampling.json_schema])
        handle = self._pipe.add_request(number, openvino.Tensor(ids), self._generation_config(sampling))
        self._runs[number] = _Run(handle, sampling, time.perf_counter())

    def step(self) -> list[Finished]:
        """See `Stepper.step`."""
        try:
            self._pipe.step()
        except RuntimeError as error:
            return self._refuse_schemas(error)
        ended = [finished for number, run in self._runs.items() if (finished := self._read(number, run))]
        for finished in ended:
            del self._runs[finished.number]
        return ended

    def tokens(self, number: int) -> Sequence[int]:
        """See `Stepper.tokens`; where stop strings are set, up to the last few."""
        return self._runs[number].token_ids

    def abort(self, number: int) -> None:
        """See `Stepper.abort`; the memory is freed in the next step."""
        self._runs.pop(number).handle.cancel()

    def unfinished(self) -> bool:
        """See `Stepper.unfinished`."""
        return bool(self._pipe.has_non_finished_requests())

    def stats(self) -> dict[str, float]:
        """See `Stepper.stats`."""
        metrics = self._pipe.get_metrics()
        return {
            "kv_usage-share": metrics.cache_usage / 100,
            "kv_usage_peak-share": metrics.max_cache_usage / 100,
            "kv_cache-bytes": float(metrics.kv_cache_size_in_bytes),
            "running-requests": float(len(self._runs)),
        }

    def unload(self) -> None:
        """See `Stepper.unload`."""
        pipe, self._pipe, self._tokenizer = self._pipe, None, None
        if pipe is not None:
            self._cancel_all(pipe)

    def _scheduler_config(self) -> Any:
        scheduler = self._ov.SchedulerConfig()
        scheduler.max_num_seqs = self._max_sequences
        scheduler.enable_prefix_caching = True
        scheduler.num_kv_blocks = self._max_sequences * BLOCKS_PER_SEQUENCE
        for name, value in self._scheduler_options.items():
            try:
                setattr(scheduler, name, value)
            except TypeError as error:
                raise EngineDead(f"engine.options: {name} cannot be {value!r}") from error
        return scheduler

    def _generation_config(self, sampling: Sampling) -> Any:
        config = self._pipe.get_config()  # the model's own, with the tokens that end its answers
        config.apply_chat_template = False
        config.max_new_tokens, config.min_new_tokens = sampling.max_tokens, sampling.min_tokens
        config.do_sample = sampling.temperature > 0
        if config.do_sample:
            config.temperature, config.top_p, config.min_p = sampling.temperature, sampling.top_p, sampling.min_p
            config.top_k = sampling.top_k or self._vocabulary_size
            config.rng_seed = sampling.seed or 0
        config.repetition_penalty = sampling.repetition_penalty
        config.stop_strings, config.include_stop_str_in_output = set(sampling.stop), True  # cut by `SteppedEngine`
        config.logprobs = int(sampling.logprobs)
        if sampling.json_schema is not None:
            config.structured_output_config = self._ov.StructuredOutputConfig(json_schema=sampling.json_schema)
        for name, value in sampling.extra.items():
            if name not in EXTRA:
                raise _refused(f"no {name!r} in sampling.extra; the local engine takes {', '.join(EXTRA)}")
            try:
                setattr(config, name, config.stop_token_ids | set(value) if name == "stop_token_ids" else value)
            except TypeError as error:
                raise _refused(f"{name} cannot be {value!r}") from error
        try:
            config.validate()
        except RuntimeError as error:
            raise _refused(_gist(error)) from error
        return config

    def _read(self, number: int, run: _Run) -> Finished | None:
        """Takes over what a request has newly generated; tells it if it has ended."""
        reason: FinishReason | None = None
        while run.handle.can_read():
            for output in run.handle.read().values():
                run.token_ids += output.generated_ids
                run.logprobs += output.generated_log_probs
                if output.finish_reason == self._ov.GenerationFinishReason.STOP:
                    reason = "stop"
                elif output.finish_reason == self._ov.GenerationFinishReason.LENGTH:
                    reason = "length"
        if run.token_ids and not run.first_token:
            run.first_token = time.perf_counter() - run.added
        if reason is None:
            if run.handle.get_status() == self._ov.GenerationStatus.RUNNING:
                return None
            detail = "the KV cache cannot hold prompt and answer: raise engine.options.num_kv_blocks"
            return Finished(number, error=RequestError("kv_cache_full", detail, transient=False))
        logprobs = run.logprobs if run.sampling.logprobs else None
        return Finished(number, run.token_ids, reason, logprobs=logprobs, first_token=run.first_token)

    def _refuse_schemas(self, error: RuntimeError) -> list[Finished]:
        """After a failed step: ends all requests, and finds those whose JSON schema was at fault.

        A schema is compiled in the first step of its request, and if that fails, so does the step, for all of them
        and for good: there is no way to try it before. So all requests are cancelled, the new schemas are tried one
        by one, and the requests that did no wrong may be sent again.

        Raises:
            RuntimeError: It was none of the schemas.
        """
        ended, self._runs = self._runs, {}
        new = {run.sampling.json_schema for run in ended.values() if not run.token_ids} - {None}
        if not new:
            raise error
        for run in ended.values():
            run.handle.cancel()
        self._pipe.step()
        for schema in sorted(filter(None, new)):
            self.add(0, [0], Sampling(max_tokens=1, json_schema=schema))
            try:
                self._pipe.step()
            except RuntimeError as fault:
                self._bad_schemas[schema] = f"the JSON schema does not compile: {_gist(fault)}"
            self._cancel_all(self._pipe)
        if not new & self._bad_schemas.keys():
            raise error
        again = RequestError("interrupted", "another request's JSON schema failed the whole batch", transient=True)
        return [
            Finished(
                number, error=_refused(why) if (why := self._bad_schemas.get(run.sampling.json_schema or "")) else again
            )
            for number, run in ended.items()
        ]

    def _cancel_all(self, pipe: Any) -> None:
        """Cancels all requests and has their memory freed; OpenVINO complains where a pipeline ends without."""
        for number in list(self._runs):
            self.abort(number)
        if pipe.has_non_finished_requests():
            pipe.step()

    def _knows(self, sign: str) -> bool:
        """Whether a character survives tokenization."""
        text = f"a{sign}a"
        return self.decode(self._tokenizer.encode(text, add_special_tokens=False).input_ids.data[0].tolist()) == text

    def _truncation(self, context_length: int | None) -> int | None:
        """Tokens at which the tokenizer cuts texts, found by a text of more; none if it does not."""
        most = (context_length or 131072) + 1
        found = self._tokenizer.encode("x\n" * most, add_special_tokens=False).input_ids.data.shape[1]
        return found if found < most else None


def _sorted_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the scheduler, and properties of the device."""
    properties = {name: value for name, value in options.items() if name.isupper()}
    scheduler = {name: value for name, value in options.items() if name not in properties}
    for name in scheduler:
        if name not in SCHEDULER_OPTIONS:
            known = ", ".join(SCHEDULER_OPTIONS)
            raise ValueError(f"engine.options: no {name!r}; there are {known}, and in capitals OpenVINO's own")
    return scheduler, properties


def _refused(why: str) -> RequestError:
    return RequestError("bad_request", f"OpenVINO refuses the sampling: {why}", transient=False)


def _gist(error: Exception) -> str:
    """The part of an OpenVINO message that says something: without paths of its build machine."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "/jenkins/" not in line] or [line.rpartition(": ")[2] for line in lines]
    return " ".join(telling)[:500]


def _fingerprint(template: str, vocabulary: Mapping[bytes, int]) -> str:
    """Hash of chat template and vocabulary."""
    digest = hashlib.blake2b(template.encode(), digest_size=16)
    for token in sorted(vocabulary, key=vocabulary.__getitem__):
        digest.update(b"%d %d " % (vocabulary[token], len(token)) + token)
    return digest.hexdigest()
