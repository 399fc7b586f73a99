"""Examination of an integer file: layers that add noise, and pixels where its masks differ from the model's."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from unet_export.diagnosis.diagnose import MEASURED, diagnose_export
from unet_export.diagnosis.heat_maps import POSITIONS_NAME, WORST_NAME, heat_maps
from unet_export.diagnosis.layer_errors import LayerError
from unet_export.foreign.load import Description, load_model
from unet_export.formats import FORMATS, Builder
from unet_export.gate.gate import masks_of
from unet_export.gate.runners import Run, first_runner, keras_runner
from unet_export.photos import PhotoSource, choose_photos, inputs
from unet_export.staging import COMMAND, staging_folder
from unet_runtime.core.files import write_text
from unet_runtime.io.kind import STAMP_KEY
from unet_runtime.io.places import Places

logger = logging.getLogger(__name__)

REPORT_NAME = "diagnosis.json"

_BATCH = 8

IntegerFormat = Literal["onnx-int8", "tflite-int8", "tflite-int16x8"]


@dataclass(frozen=True)
class Diagnosis:
    """Result of ``examine``."""

    errors: list[LayerError]
    """The main contributor first."""
    agreement: float
    """Share of pixels (0..1) with the same class, on the held-out photos."""
    files: list[Path]
    """``diagnosis.json`` and pictures."""


def examine(
    model: Path,
    format_name: IntegerFormat,
    source: PhotoSource,
    output: Path,
    description: Description | None = None,
    *,
    overwrite: bool = False,
) -> Diagnosis:
    """Export ``model`` to one integer format and compare it with its float32 counterpart, layer by layer.

    Args:
        model: a ``.keras`` file.
        format_name: of the integer format.
        source: its calibration photos are compared layer by layer, the held-out ones give the heat maps.
        output: folder for what is written.
        description: of a model without a spec.
        overwrite: replace files of others in ``output``, too.

    Raises as ``export_model``.
    """
    places = Places([model], overwrite=overwrite, command=COMMAND)
    places.check_files(output, (REPORT_NAME, POSITIONS_NAME, WORST_NAME))
    keras, spec = load_model(model, description)
    photos = choose_photos(source, spec)
    form = FORMATS[format_name]
    quantization = form.quantization
    with staging_folder(output) as folder:
        builder = Builder(keras, spec, photos, folder / "work")
        path = folder / form.file_name(spec)
        logger.info("exporting %s and its float32 counterpart", path.name)
        builder.write(form, path, quantization)
        logger.info("comparing every layer on %d photos", min(MEASURED, len(photos.calibration)))
        errors = diagnose_export(builder, form, path, quantization)
        logger.info("comparing masks on %d photos", len(photos.parity))
        images = inputs(photos.parity, spec.input)
        expected = _masks(keras_runner(keras), images)
        actual = _masks(first_runner(form, path), images)
    agreement = float((expected == actual).mean())
    names = list(map(attrgetter("name"), photos.parity))
    files = heat_maps(names, images, expected, actual, spec, output)
    content = {
        STAMP_KEY: COMMAND,
        "model": spec.name,
        "format": form.name,
        "quantization": quantization.as_dict(),
        "agreement": agreement,
        "layers": list(map(asdict, errors)),
    }
    write_text(output / REPORT_NAME, json.dumps(content, indent=1) + "\n", "choose another --output")
    return Diagnosis(errors, agreement, [*files, output / REPORT_NAME])


def _masks(run: Run, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """uint8 (n, h, w, 3) -> class ids (n, h', w')."""
    masks = []
    for start in range(0, len(images), _BATCH):
        masks.append(masks_of(run(images[start : start + _BATCH])))
    return np.concatenate(masks)
