"""An artifact in every engine that may run it on a device: opened as a user would, its digest verified."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unet_export.formats import Format
from unet_export.formats.saved_model import SIGNATURE_NAME
from unet_export.gate.gate import EngineResult
from unet_export.source_model import INPUT_NAME, OUTPUT_NAME
from unet_runtime.core.artifact import read_artifact, read_saved_model_spec
from unet_runtime.core.errors import BackendError, ModelFileError
from unet_runtime.engines import ENGINES, install_hint, installed, load

Say = Callable[[str], object]

Run = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""uint8 (n, h, w, 3), RGB in 0..255, NHWC -> float32 (n, h', w', classes)."""


def open_runners(form: Format, path: Path) -> list[EngineResult | tuple[EngineResult, Run]]:
    """The artifact in each engine of its format, on each device: a function beside the result to be filled in, or
    a result alone that says why there is none: not installed (not checked), or it refuses the file (failed)."""
    return list(_open(form, path))


def first_runner(form: Format, path: Path) -> Run:
    """The artifact in the first engine that runs it here.

    Raises:
        BackendError: none does; the message says why of each.
    """
    reasons: list[str] = []
    for entry in open_runners(form, path):
        if isinstance(entry, tuple):
            return entry[1]
        reasons += [*entry.failures, entry.not_checked]
    raise BackendError(f"{path.name}: no engine runs it here: {'; '.join(filter(None, reasons))}")


def _open(form: Format, path: Path) -> Iterator[EngineResult | tuple[EngineResult, Run]]:
    for backend in form.engines:
        if backend == "tensorflow":
            yield _open_saved_model(path)
        elif not installed(backend):
            yield _not_checked(backend, "cpu", f"{ENGINES[backend].package} is not installed: {install_hint(backend)}")
        else:
            yield _open_backend(backend, path, "cpu")
            if backend == "onnx":
                yield _open_cuda(path)


def _open_backend(backend: str, path: Path, device: str) -> EngineResult | tuple[EngineResult, Run]:
    try:
        loaded = load(backend, read_artifact(path), device=device)
    except (BackendError, ModelFileError) as error:
        package = ENGINES[backend].package
        return EngineResult(backend, device, package, None, failures=(f"does not open it: {error}",))
    return EngineResult(backend, loaded.device, loaded.engine, None), loaded.run


def _open_cuda(path: Path) -> EngineResult | tuple[EngineResult, Run]:
    """Not having a GPU is no fault of the artifact."""
    try:
        loaded = load("onnx", read_artifact(path), device="cuda")
    except BackendError as error:
        return _not_checked("onnx", "cuda", str(error))
    except ModelFileError as error:
        return EngineResult("onnx", "cuda", "onnxruntime", None, failures=(f"does not open it: {error}",))
    return EngineResult("onnx", loaded.device, f"{loaded.engine} CUDA", None), loaded.run


def _not_checked(backend: str, device: str, reason: str) -> EngineResult:
    name = ENGINES[backend].package + (" CUDA" if device == "cuda" else "")
    return EngineResult(backend, device, name, None, not_checked=reason)


def _open_saved_model(path: Path) -> EngineResult | tuple[EngineResult, Run]:
    """In TensorFlow; the function holds the loaded object, without which its signature loses its variables."""
    import tensorflow as tf

    result = EngineResult("tensorflow", "cpu", f"TensorFlow {tf.__version__}", None)
    try:
        read_saved_model_spec(path)
        loaded = tf.saved_model.load(str(path))
    except ModelFileError as error:
        return EngineResult("tensorflow", "cpu", result.engine, None, failures=(f"does not open it: {error}",))

    def run(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        probabilities: npt.NDArray[np.float32] = loaded.signatures[SIGNATURE_NAME](**{INPUT_NAME: tf.constant(images)})[
            OUTPUT_NAME
        ].numpy()
        return probabilities

    return result, run
