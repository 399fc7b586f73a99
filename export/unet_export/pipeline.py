"""The whole way: load, export, prove, accept. Nothing is where a device would look for it until all have passed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_export import calibration, keras_model, parity
from unet_export.errors import ExportError, ParityError
from unet_export.gate import FLOAT_GATE, INT8_GATE, ParityResult
from unet_export.onnx import export_onnx
from unet_export.report import as_json
from unet_export.saved_model import export_saved_model
from unet_export.staging import REPORT_NAME, accept, reject, staging_folder
from unet_export.tflite import export_int8
from unet_runtime.artifact import Artifact, read_artifact
from unet_runtime.errors import SourceError
from unet_runtime.labelled import LabelledPhoto, check_split, evenly, read_split

Say = Callable[[str], object]


def export_model(
    model: Path, data: Path, output: Path, *, calibration_count: int = calibration.DEFAULT_COUNT,
    parity_count: int = parity.DEFAULT_COUNT, say: Say = lambda line: None,
) -> list[ParityResult]:  # fmt: skip
    """Export ``model`` to SavedModel, ONNX and int8 TFLite, and accept all three or none.

    Args:
        model: a ``.keras`` file with a spec inside.
        data: folder in Oxford-IIIT Pet's layout, with the split that the model was trained on.
        output: gets ``saved_model/``, ``<name>.onnx``, ``<name>.int8.tflite`` and ``parity.json``,
            in place of a previous export's.
        calibration_count: photos of the trainval part that int8 ranges are measured on.
        parity_count: photos of the test part that the gate runs.
        say: receives one line of progress at a time.

    Returns:
        What the gate found, one result an artifact, all passed; their paths are in ``output``.

    Raises:
        ParityError: the gate failed; ``output`` is as before but for ``rejected/parity.json``.
        ModelFileError, ExportError: the model cannot be exported.
        SourceError, ImageError: the data cannot be used.
        OutputError: ``output`` cannot be written.
        ValueError: a count below its minimum.
    """
    artifact = _read_model(model)
    split = artifact.spec.provenance.split
    trainval, test = read_split(data, split, "trainval"), read_split(data, split, "test")
    calibration_photos = _choose(trainval, calibration_count, calibration.MIN_COUNT, "calibrating", say)
    parity_photos = _choose(test, parity_count, parity.MIN_COUNT, "proving", say)
    with staging_folder(output) as folder:
        say(f"loading {model}")
        keras = keras_model.load(artifact)
        candidates = _build(keras, artifact, calibration_photos, folder, say)
        say(f"proving {len(candidates)} artifacts on {len(parity_photos)} photos of the test part")
        results = parity.prove(_reference(keras), candidates, parity_photos, artifact.spec)
        report = as_json(results, artifact.spec, calibration_photos, parity_photos)
        if failed := [result.path.name for result in results if not result.passed]:
            path = reject(folder, output, report)
            text = f"{', '.join(failed)}: not equal enough to {model}: nothing was accepted, {path} has the figures"
            raise ParityError(text, results)
        (folder / REPORT_NAME).write_text(report, encoding="utf-8")
        accept(folder, output, [*(candidate.path.name for candidate in candidates), REPORT_NAME])
    return [replace(result, path=output / result.path.name) for result in results]


def _read_model(path: Path) -> Artifact:
    artifact = read_artifact(path)
    name, split = artifact.spec.name, artifact.spec.provenance.split
    if path.suffix != ".keras":
        raise ExportError(f"{path}: suffix {path.suffix}, expected a .keras file of unet-train")
    if not split:
        raise ExportError(f"{path}: its spec does not say which photos were held out: train it with unet-train")
    try:
        check_split(split)
    except SourceError as error:
        raise ExportError(f"{path}: its spec names {error}: train it again") from error
    if Path(name).name != name:  # it becomes a file's name
        raise ExportError(f"{path}: the model's name is {name!r}, expected one without folders")
    return artifact


def _choose(photos: list[LabelledPhoto], count: int, minimum: int, purpose: str, say: Say) -> list[LabelledPhoto]:
    """``count`` photos spread over the part, or all of a smaller part."""
    if count < minimum:
        raise ValueError(f"{count} photos for {purpose}, expected at least {minimum}")
    if len(photos) < count:
        say(f"{purpose} on all {len(photos)} photos of the part: {count} were asked for")
    return evenly(photos, count)


def _build(
    model: Any, artifact: Artifact, photos: list[LabelledPhoto], folder: Path, say: Say
) -> list[parity.Candidate]:
    """Write the three artifacts into ``folder``, complete with spec and digest."""
    spec = artifact.spec
    saved_model = folder / "saved_model"
    say("exporting SavedModel")
    export_saved_model(model, spec, saved_model)
    say("exporting ONNX")
    onnx = folder / f"{spec.name}.onnx"
    onnx.write_bytes(export_onnx(model, spec))
    say(f"exporting int8 TFLite, calibrated on {len(photos)} photos of the trainval part")
    tflite = folder / f"{spec.name}.int8.tflite"
    images = calibration.calibration_images(photos, spec.input)
    tflite.write_bytes(export_int8(model, spec, images, folder / "work"))
    return [
        parity.Candidate("saved_model", saved_model, FLOAT_GATE),
        parity.Candidate("onnx", onnx, FLOAT_GATE),
        parity.Candidate("tflite", tflite, INT8_GATE),
    ]


def _reference(model: Any) -> parity.Run:
    """The trained model itself, in float32."""

    def run(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        result: npt.NDArray[np.float32] = model(images, training=False).numpy()
        return result

    return run
