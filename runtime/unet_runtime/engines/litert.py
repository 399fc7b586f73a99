"""LiteRT (formerly TensorFlow Lite): small; XNNPACK kernels on the CPU, or its GPU accelerator."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_runtime.core import cores
from unet_runtime.core.artifact import Artifact
from unet_runtime.core.errors import BackendError, ModelFileError
from unet_runtime.engines import drivers
from unet_runtime.engines.base import INT8_TFLITE, Backend, Engine, check_graph, output_position, split_device

if TYPE_CHECKING:
    import numpy.typing as npt


class LiteRTBackend:
    """One interpreter. It holds its tensors, so ``run`` takes turns under a lock."""

    name = "tflite"
    device = "cpu"
    note = ""

    batch = 1

    def __init__(self, interpreter: Any, engine: str, output: int = 0, *, is_real: bool = True) -> None:
        self._interpreter = interpreter
        self._input = interpreter.get_input_details()[0]
        self._output = interpreter.get_output_details()[output]
        self.scaling: tuple[float, int] = self._input["quantization"]
        scaling: tuple[float, int] = self._output["quantization"] if is_real else (0.0, 0)
        self._scale, self._zero_point = scaling
        self._lock = threading.Lock()
        self.engine = engine

    def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, h, w, 3) RGB 0..255 -> float32 probabilities or logits (n, h', w', classes), dequantised.

        A file's batch is fixed at 1, so a larger one is run photo by photo.
        """
        results = _by_channels((len(images), *self._output["shape"][1:]))
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


def _by_channels(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """An array of shape (n, h', w', classes) that lies in memory plane by plane, as masks are made of it."""
    if len(shape) < 4:  # labels
        return np.empty(shape, np.float32)
    return np.moveaxis(np.empty((shape[0], shape[-1], *shape[1:-1]), np.float32), 1, -1)


def load(artifact: Artifact, device: str, threads: int | None) -> Backend:
    """See ``base.Load``."""
    import ai_edge_litert
    from ai_edge_litert.interpreter import Interpreter

    try:
        # By itself it takes a number of its version's choice, today one thread, whatever the machine has. Compare
        # https://tensorflow.org/versions/r2.5/api_docs/python/tf/lite/Interpreter
        count = threads or cores.default_threads()
        interpreter: Any = Interpreter(model_content=artifact.content, num_threads=count)
        _resize(artifact, interpreter)
        interpreter.allocate_tensors()
        position = _check(artifact, interpreter)
    except (ValueError, RuntimeError) as error:  # undamaged, so a model this engine's version cannot run
        raise ModelFileError(f"{artifact.path}: LiteRT refuses it: {error}") from error
    engine = f"LiteRT {ai_edge_litert.__version__}"
    if split_device(device)[0] == "gpu":
        from unet_runtime.engines import litert_gpu

        return litert_gpu.load(artifact, device, interpreter.get_output_details()[position], engine)
    is_real = artifact.spec.output.kind != "labels"
    return LiteRTBackend(interpreter, engine, position, is_real=is_real)


def _resize(artifact: Artifact, interpreter: Any) -> None:
    """Give a file of another tool the spec's size where it leaves it open, and a batch of 1."""
    inputs = interpreter.get_input_details()
    if artifact.spec.is_plain or len(inputs) != 1:
        return
    from unet_runtime.core import tensors

    sizes = tensors.input_sizes(artifact.spec.input)
    is_open = zip(inputs[0]["shape_signature"].tolist(), (-1, *sizes), strict=False)
    if all(known in (-1, size) for known, size in is_open) and len(inputs[0]["shape"]) == 1 + len(sizes):
        interpreter.resize_tensor_input(inputs[0]["index"], (1, *sizes))


def _check(artifact: Artifact, interpreter: Any) -> int:
    """Compare the file with its spec; returns the position of the output."""
    inputs = [(np.dtype(entry["dtype"]).name, _sizes(entry)) for entry in interpreter.get_input_details()]
    outputs = interpreter.get_output_details()
    if not outputs:
        raise ModelFileError(f"{artifact.path}: the model has no output, expected probabilities: export it again")
    position = output_position(artifact, [[entry["name"]] for entry in outputs])
    output = outputs[position]
    dtype = np.dtype(output["dtype"])
    scale, _ = output["quantization"]
    is_label = artifact.spec.output.kind == "labels"
    if dtype.kind in "iu" and not is_label and not (np.isfinite(scale) and scale > 0):
        raise ModelFileError(
            f"{artifact.path}: the model's output is {dtype.name} with scale {scale}, expected a scale above 0 that "
            "makes real numbers of its integers: export it again"
        )
    check_graph(artifact, inputs, (dtype.name, _sizes(output)), quantized=dtype.kind in "iu")
    return position


def _sizes(entry: Any) -> list[int]:
    sizes: list[int] = entry["shape"].tolist()
    return sizes


def _missing_for_gpu() -> str:
    problem = drivers.no_gpu()
    return f"{problem}: {drivers.DRIVERS}" if problem else ""


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
    devices=("cpu", "gpu"),
    missing={"gpu": _missing_for_gpu},
    foreign=True,
)
