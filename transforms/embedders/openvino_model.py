"""Runs a model on OpenVINO's CPU device: batches of windows of one length, some at a time.

Each stream has one thread, and no window is padded. Measured on OpenVINO 2026.4 (AMX, 20 to 256 tokens, batches of 1,
2, 3, 8 and 32): a window then has the same bits in any batch, in float32 as in bfloat16.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from ropewalk.transforms.embedders.encoder import EmbedderError, Pieces, equal_lengths

INSTALL = "pip install 'ropewalk[minilm]'"
BATCH = 8
"""Windows in one request: larger ones are no faster."""
Precision = Literal["f32", "bf16"]


def import_openvino() -> Any:
    """The package `openvino`, its telemetry cut off.

    Importing it sends an event to Google Analytics and writes to `~/intel`, consent or not asked for. Without the
    package `openvino_telemetry` it uses a stub of its own; so that package is made to look absent.

    Raises:
        EmbedderError: It is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise EmbedderError(f"this embedder needs OpenVINO: {INSTALL} ({error})") from error
    return openvino


def compile_model(model: Any, precision: Precision, threads: int) -> Any:
    """A model ready to run, with as many streams as threads."""
    properties = {"INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": threads, "INFERENCE_NUM_THREADS": threads}
    return import_openvino().Core().compile_model(model, "CPU", properties)


def run(
    compiled: Any,
    windows: Sequence[Pieces],
    inputs: Callable[[np.ndarray], Any],
    outputs: Callable[[Any], np.ndarray],
    *,
    threads: int,
    dimensions: int,
    batch: int = BATCH,
) -> np.ndarray:
    """A vector of each window: float32[n, dimensions].

    Args:
        compiled: From `compile_model`.
        windows: In any order.
        inputs: From the indices of some windows of one length to the model's inputs.
        outputs: From a finished request to their vectors.
        threads: Requests at once.
        dimensions: Numbers of a vector.
        batch: Windows in a request.
    """
    found = np.empty((len(windows), dimensions), np.float32)
    queue = import_openvino().AsyncInferQueue(compiled, threads)
    faults: list[BaseException] = []

    def take(request: Any, chosen: np.ndarray) -> None:
        try:
            found[chosen] = outputs(request)
        except BaseException as error:  # OpenVINO would end the process
            faults.append(error)

    queue.set_callback(take)
    for chosen in equal_lengths(windows, batch):
        queue.start_async(inputs(chosen), chosen)
    queue.wait_all()
    if faults:
        raise faults[0]
    return found
