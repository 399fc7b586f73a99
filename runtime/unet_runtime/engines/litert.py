"""LiteRT (formerly TensorFlow Lite): small, CPU only, XNNPACK kernels."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_runtime.core import cores
from unet_runtime.core.artifact import Artifact
from unet_runtime.core.errors import BackendError, ModelFileError
from unet_runtime.engines.base import INT8_TFLITE, Backend, Engine, check_graph

if TYPE_CHECKING:
    import numpy.typing as npt


class LiteRTBackend:
    """One interpreter. It holds its tensors, so ``run`` takes turns under a lock."""

    name = "tflite"
    device = "cpu"
    note = ""

    def __init__(self, interpreter: Any, engine: str) -> None:
        self._interpreter = interpreter
        self._input = interpreter.get_input_details()[0]
        self._output = interpreter.get_output_details()[0]
        self._scale, self._zero_point = self._output["quantization"]
        self._lock = threading.Lock()
        self.engine = engine

    def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, h, w, 3) RGB 0..255 -> float32 probabilities or logits (n, h', w', classes), dequantised.

        A file's batch is fixed at 1, so a larger one is run photo by photo.
        """
        results = np.empty((len(images), *self._output["shape"][1:]), np.float32)
        try:
            with self._lock:
                for index in range(len(images)):
                    self._interpreter.set_tensor(self._input["index"], images[index : index + 1])
                    self._interpreter.invoke()
                    # A view of the interpreter's memory: the assignment is the only copy, and converts to float32.
                    results[index] = self._interpreter.tensor(self._output["index"])()[0]
        except (ValueError, RuntimeError) as error:
            raise BackendError(f"LiteRT failed on input {images.dtype}{images.shape}: {error}") from error
        if self._scale:  # a quantised output; a float one has scale 0
            if self._zero_point:
                results -= self._zero_point
            results *= self._scale
        return results


def load(artifact: Artifact, device: str, threads: int | None) -> Backend:
    """See ``base.Load``."""
    import ai_edge_litert
    from ai_edge_litert.interpreter import Interpreter

    try:
        # By itself it takes a number of its version's choice, today one thread, whatever the machine has. Compare
        # https://tensorflow.org/versions/r2.5/api_docs/python/tf/lite/Interpreter
        count = threads or cores.default_threads()
        interpreter: Any = Interpreter(model_content=artifact.content, num_threads=count)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:  # undamaged, so a model this engine's version cannot run
        raise ModelFileError(f"{artifact.path}: LiteRT refuses it: {error}") from error
    _check(artifact, interpreter)
    return LiteRTBackend(interpreter, f"LiteRT {ai_edge_litert.__version__}")


def _check(artifact: Artifact, interpreter: Any) -> None:
    inputs = [(np.dtype(entry["dtype"]).name, _sizes(entry)) for entry in interpreter.get_input_details()]
    outputs = interpreter.get_output_details()
    if not outputs:
        raise ModelFileError(f"{artifact.path}: the model has no output, expected probabilities: export it again")
    dtype = np.dtype(outputs[0]["dtype"])
    scale, _ = outputs[0]["quantization"]
    if dtype.kind in "iu" and not (np.isfinite(scale) and scale > 0):
        raise ModelFileError(
            f"{artifact.path}: the model's output is {dtype.name} with scale {scale}, expected a scale above 0 that "
            "makes real numbers of its integers: export it again"
        )
    check_graph(artifact, inputs, (dtype.name, _sizes(outputs[0])), quantized=dtype.kind in "iu")


def _sizes(entry: Any) -> list[int]:
    sizes: list[int] = entry["shape"].tolist()
    return sizes


ENGINE = Engine(
    name="tflite",
    label="LiteRT",
    package="ai_edge_litert",
    entry="ai_edge_litert.interpreter",
    extra="tflite",
    suffixes=(".tflite",),
    default_model=INT8_TFLITE,
    default_threads=cores.default_threads,
    load=load,
)
