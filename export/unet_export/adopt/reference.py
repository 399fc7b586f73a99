"""Proof of an adopted file against its origin: recorded inputs and outputs, or the same model in another format."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from unet_export.adopt.describe import Choices, described
from unet_export.adopt.reader import read
from unet_export.errors import ExportError
from unet_export.gate.gate import GATES, EngineResult, Gate, judge
from unet_export.gate.tally import Tally
from unet_runtime import Segmenter
from unet_runtime.core import masks, tensors
from unet_runtime.core.artifact import Artifact, append_to_onnx, append_to_tflite, read_artifact
from unet_runtime.core.errors import BackendError, ModelFileError
from unet_runtime.core.spec import ModelSpec
from unet_runtime.core.text import one_line
from unet_runtime.engines import engine_for, load
from unet_runtime.engines.foreign import ForeignBackend

FOREIGN_GATE = replace(GATES["float32"], max_abs=1e-4)
"""Tolerances of a float32 file whose origin is another framework: its kernels sum in another order than ours."""

_INPUTS = ("inputs", "input", "x", "images", "photos")
_OUTPUTS = ("outputs", "output", "y", "logits", "probabilities", "masks")
_BYTES = 1 << 31

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


class Pair(NamedTuple):
    """One picture: what the adopted file makes of it, and what its origin made."""

    actual: Floats
    """float32 (n, h', w', C), as the file gives it: probabilities or logits."""
    expected: Floats


class Proof(NamedTuple):
    """Result of a comparison."""

    result: EngineResult
    pictures: int
    raw: float
    """Largest difference of an output before its activation."""


def recorded(path: Path) -> tuple[Array, Array]:
    """Inputs and outputs of a ``.npz``: arrays ``inputs`` and ``outputs``.

    Raises:
        ExportError: it cannot be read, or holds no such arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > _BYTES:
            raise ExportError(f"{path}: unpacks to {size:,} bytes, expected at most {_BYTES:,}: record fewer pictures")
        with np.load(path, allow_pickle=False) as content:
            names = list(content.files)
            given, made = _first(_INPUTS, names), _first(_OUTPUTS, names)
            if not given or not made:
                raise ExportError(
                    f"{path}: holds {', '.join(names) or 'nothing'}, expected the arrays inputs and outputs: "
                    "np.savez(path, inputs=..., outputs=...)"
                )
            inputs, outputs = content[given], content[made]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ExportError(
            f"{path}: no recorded arrays ({one_line(error)}): np.savez(path, inputs=..., outputs=...)"
        ) from error
    if not len(inputs) or len(inputs) != len(outputs):
        raise ExportError(f"{path}: {len(inputs)} inputs and {len(outputs)} outputs, expected as many, one at least")
    return inputs, outputs


def _first(words: Sequence[str], names: Sequence[str]) -> str:
    """Find the first of ``words`` that is among ``names``; empty: none is."""
    return next((word for word in words if word in names), "")


def recorded_pairs(segmenter: Segmenter, path: Path) -> Iterator[Pair]:
    """The adopted file beside recorded arrays: photos (uint8, n, h, w, 3), or the input tensor itself.

    Raises:
        ExportError: arrays that are not the model's.
    """
    spec = segmenter.spec
    inputs, outputs = recorded(path)
    sizes = tensors.input_sizes(spec.input)
    photo = (spec.input.height, spec.input.width, 3)
    is_photo = inputs.dtype == np.uint8 and inputs.shape[1:] == photo
    if not is_photo and inputs.shape[1:] != sizes:
        raise ExportError(
            f"{path}: inputs are {inputs.dtype}{inputs.shape}, expected {spec.input.dtype}{('n', *sizes)} as the model "
            f"takes them, or photos uint8{('n', *photo)}"
        )
    run = _runner(segmenter, is_photo=is_photo)
    for index in range(len(inputs)):
        part = slice(index, index + 1)
        try:
            expected = tensors.maps(outputs[part], 1, spec)
        except BackendError as error:
            raise ExportError(f"{path}: outputs are {outputs.dtype}{outputs.shape}: {error}") from error
        yield Pair(run(inputs[part]), expected)


def _runner(segmenter: Segmenter, *, is_photo: bool) -> Callable[[Array], Floats]:
    """Photos, or input tensors -> outputs as the file gives them, NHWC."""
    backend, spec = segmenter.backend, segmenter.spec
    if is_photo or not isinstance(backend, ForeignBackend):
        return backend.run

    def run(tensor: Array) -> Floats:
        return backend.run_tensor(tensor.astype(spec.input.dtype))

    return run


def other_file_pairs(
    segmenter: Segmenter, other: Path, choices: Choices, pictures: npt.NDArray[np.uint8]
) -> Iterator[Pair]:
    """The adopted file beside the same model in another format, on ``pictures`` uint8 (n, h, w, 3).

    Raises:
        ExportError: the other file cannot be run, or gives a map of another size.
    """
    if other.suffix == ".keras":
        run = _keras_runner(other, segmenter.spec)
    else:
        run = _file_runner(other, segmenter.spec, choices)
    for index in range(len(pictures)):
        picture = pictures[index : index + 1]
        actual, expected = segmenter.backend.run(picture), run(picture)
        if actual.shape != expected.shape:
            raise ExportError(
                f"{other}: gives {expected.shape[1:]}, the adopted model {actual.shape[1:]}: not the same model"
            )
        yield Pair(actual, expected)


def _file_runner(other: Path, spec: ModelSpec, choices: Choices) -> Callable[[Array], Floats]:
    try:
        artifact = read_artifact(other)
    except ModelFileError:
        facts = read(other)
        size = (spec.input.height, spec.input.width)
        own = replace(choices, layout=None, output_layout=None, output_name=None, size=size, classes=spec.classes)
        artifact = with_spec(other, facts.content, described(facts, own)[0])
    backend = load(engine_for(other.suffix), artifact, device="cpu")
    if artifact.spec.output.logits != spec.output.logits:
        raise ExportError(f"{other}: one of the two gives probabilities, the other logits: not the same model")
    return backend.run


def _keras_runner(other: Path, spec: ModelSpec) -> Callable[[Array], Floats]:
    from unet_export.source_model import load_keras

    model = load_keras(other)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ExportError(f"{other}: {len(model.inputs)} inputs and {len(model.outputs)} outputs, expected one of each")
    is_first = model.inputs[0].shape[1] in (1, 3) and model.inputs[0].shape[-1] not in (1, 3)
    own = replace(spec.input, layout="nchw" if is_first else "nhwc", dtype=model.inputs[0].dtype)
    if own.dtype == "uint8":
        own = replace(own, range=(0.0, 255.0), mean=(), std=())
    table = tensors.values(own)
    result = replace(spec, output=replace(spec.output, layout=own.layout))

    def run(images: Array) -> Floats:
        made = model(tensors.fed(images, own, table), training=False)
        try:
            return tensors.maps(made.numpy(), len(images), result)
        except BackendError as error:
            raise ExportError(f"{other}: {error}: not the same model") from error

    return run


def with_spec(path: Path, content: bytes, spec: ModelSpec) -> Artifact:
    """A model file with its spec, in memory."""
    append = append_to_onnx if path.suffix == ".onnx" else append_to_tflite
    return Artifact(path, spec, append(content, spec))


def prove(pairs: Iterator[Pair], spec: ModelSpec, gate: Gate, result: EngineResult) -> Proof:
    """The gate's verdict on pictures of which both outputs are known.

    Returns:
        The engine's result with metrics and failures, as for any artifact of an export.
    """
    tally, reference = Tally(spec), Tally(spec)
    raw, count = 0.0, 0
    for actual, expected in pairs:
        raw = float(np.maximum(raw, np.abs(actual.astype(np.float64) - expected).max()))
        ours = masks.activated(np.array(actual, np.float32), spec)
        theirs = masks.activated(np.array(expected, np.float32), spec)
        tally.add(theirs, ours, None)
        reference.add(theirs, theirs, None)
        count += len(actual)
    metrics = tally.metrics(reference)
    done = replace(result, metrics=metrics, histogram=tally.histogram(), failures=judge(metrics, gate))
    return Proof(done, count, raw)
