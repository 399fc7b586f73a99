"""An artifact in every engine that may run it on a device: opened as a user would, its digest verified."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_export.formats import Format
from unet_export.formats.saved_model import SIGNATURE_NAME
from unet_export.formats.web import WEB, model_files
from unet_export.gate import browser
from unet_export.gate.gate import EngineResult
from unet_export.source_model import INPUT_NAME, OUTPUT_NAME, import_keras
from unet_runtime import Segmenter
from unet_runtime.core.artifact import read_artifact, read_saved_model_spec
from unet_runtime.core.errors import BackendError, MissingDependencyError, ModelFileError
from unet_runtime.engines import ENGINES, Device, install_hint, installed

Run = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""uint8 (n, h, w, 3), RGB in 0..255, NHWC -> float32 probabilities (n, h', w', classes)."""


ExactRun = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float64]]
"""The same in float64."""

Runner = tuple[EngineResult, Run | None]
"""One artifact in one engine: the result to be filled in, which says why where there is no ``Run``."""


def open_runners(form: Format, path: Path, stack: ExitStack) -> list[Runner]:
    """The artifact in each engine of its format, on each device, open until ``stack`` is closed.

    An engine that is not installed leaves it not checked, one that refuses the file makes it fail.
    """
    runners = []
    for backend in form.engines:
        if backend == "tensorflow":
            runners.append(_open_saved_model(path))
        elif backend == "chromium":
            runners += _open_page(path, stack)
        elif path.is_dir():
            runners.append(_open(backend, model_files(path)[form.precision], "cpu"))
        else:
            runners.append(_open(backend, path, "cpu"))
            if "cuda" in ENGINES[backend].devices and installed(backend):
                runners.append(_open(backend, path, "cuda"))
    return runners


def first_runner(form: Format, path: Path) -> Run:
    """The artifact in the first engine that runs it here. Raises BackendError, with all reasons, where none does."""
    reasons: list[str] = []
    for result, run in open_runners(form, path, ExitStack()):
        if run is not None:
            return run
        reasons += result.failures or (result.not_checked,)
    raise BackendError(f"{path.name}: no engine runs it here: {'; '.join(reasons)}")


def keras_runner(model: Any) -> Run:
    """The trained model itself, in float32: the reference."""

    def run(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        probabilities: npt.NDArray[np.float32] = model(images, training=False).numpy()
        return probabilities

    return run


def exact_runner(model: Any) -> ExactRun:
    """The trained model in float64, to tell whose rounding a difference is. Raises what Keras raises."""
    keras = import_keras()

    def precise(layer: Any) -> Any:
        return type(layer).from_config({**layer.get_config(), "dtype": "float64"})

    copy = keras.models.clone_model(model, clone_function=precise, recursive=True)
    copy.set_weights(model.get_weights())

    def run(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        probabilities: npt.NDArray[np.float64] = copy(images, training=False).numpy()
        return probabilities

    return run


def _open(backend: str, path: Path, device: Device) -> Runner:
    label = ENGINES[backend].label
    suffix = " CUDA" if device == "cuda" else ""
    result = EngineResult(backend, device, label + suffix, None)
    if not installed(backend):
        return replace(result, not_checked=f"{label} is not installed: {install_hint(backend)}"), None
    try:
        segmenter = Segmenter(path, backend=backend, device=device)
    except (BackendError, MissingDependencyError, ModelFileError) as error:
        if device == "cuda" and not isinstance(error, ModelFileError):  # the artifact is not to blame for a missing GPU
            return replace(result, not_checked=str(error)), None
        return replace(result, failures=(f"does not open it: {error}",)), None
    return replace(result, engine=segmenter.backend.engine + suffix), segmenter.infer


def _open_saved_model(path: Path) -> Runner:
    import tensorflow as tf

    result = EngineResult("tensorflow", "cpu", f"TensorFlow {tf.__version__}", None)
    try:
        read_saved_model_spec(path)
        loaded = tf.saved_model.load(str(path))
    except ModelFileError as error:
        return replace(result, failures=(f"does not open it: {error}",)), None

    def run(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        # ``loaded`` is held here: without it the signature loses its variables.
        outputs = loaded.signatures[SIGNATURE_NAME](**{INPUT_NAME: tf.constant(images)})
        probabilities: npt.NDArray[np.float32] = outputs[OUTPUT_NAME].numpy()
        return probabilities

    return result, run


def _open_page(path: Path, stack: ExitStack) -> list[Runner]:
    """Each model of a page in headless Chromium; that of the page's own precision is the artifact, others are parts."""
    result = EngineResult("chromium", "browser", "Chromium", None)
    files = model_files(path)
    try:
        page, name = stack.enter_context(browser.open_page(path))
    except (MissingDependencyError, browser.NoBrowserError) as error:
        return [(replace(result, not_checked=str(error)), None)]
    except BackendError as error:
        return [(replace(result, failures=(str(error),)), None)]
    runners: list[Runner] = []
    for index, (precision, file) in enumerate(files.items()):
        run = browser.Page(page, index, read_artifact(file).spec, file)
        part = "" if precision == WEB.precision else precision
        label = ", ".join(filter(None, (name, part)))
        runners.append((replace(result, engine=label, part=part), run))
    return runners
