"""Why an integer file differs from the trained model: its guilty layers, and where its masks differ."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from unet_export.diagnosis.diagnose import diagnose
from unet_export.diagnosis.heat_maps import heat_maps
from unet_export.diagnosis.layer_errors import LayerError
from unet_export.formats import FORMATS, Builder, GraphOptions
from unet_export.gate.runners import Say, first_runner
from unet_export.photos import PhotoSource, choose_photos, inputs
from unet_export.pipeline import reference
from unet_export.source_model import Description, load_model
from unet_export.staging import staging_folder

REPORT_NAME = "diagnosis.json"

MEASURED = 16
"""Calibration photos whose activations are compared; all layers' at once are in memory for one."""

_BATCH = 8


@dataclass(frozen=True)
class Diagnosis:
    """What was found."""

    errors: list[LayerError]
    """The guiltiest layer first."""
    agreement: float
    """Share of pixels (0..1) with the same class on the photos that prove."""
    files: list[Path]
    """``diagnosis.json`` and pictures."""


def examine(
    model: Path,
    format_name: str,
    source: PhotoSource,
    output: Path,
    description: Description | None = None,
    say: Say = lambda line: None,
) -> Diagnosis:
    """Export ``model`` to one integer format and compare it with its float32 twin, layer by layer.

    Args:
        model: a ``.keras`` file.
        format_name: of ``FORMATS``, an integer one.
        source: its calibration photos are compared layer by layer, those that prove give the heat maps.
        output: folder of what is written.
        description: of a model without a spec.
        say: receives one line of progress at a time.

    Raises:
        As ``pipeline.export_model``.
    """
    keras, spec = load_model(model, description)
    photos = choose_photos(source, spec.provenance.split, spec.input)
    form = FORMATS[format_name]
    quantization = form.quantization
    with staging_folder(output) as folder:
        builder = Builder(keras, spec, photos, folder / "work", GraphOptions())
        path = folder / form.file_name(spec)
        say(f"exporting {path.name} and its float32 twin")
        builder.write(form, path, quantization)
        say(f"comparing every layer on {min(MEASURED, len(photos.calibration))} photos")
        twin = builder.baseline(form, quantization)
        errors = diagnose(
            twin, path.read_bytes(), builder.images(MEASURED), path.suffix, [layer.name for layer in keras.layers]
        )
        say(f"comparing masks on {len(photos.parity)} photos")
        run, own = first_runner(form, path), reference(keras)
        images = inputs(photos.parity, spec.input)
        masks = [
            np.concatenate(
                [
                    call(images[start : start + _BATCH]).argmax(axis=-1).astype(np.uint8)
                    for start in range(0, len(images), _BATCH)
                ]
            )
            for call in (own, run)
        ]
        agreement = float((masks[0] == masks[1]).mean())
        names = [photo.name for photo in photos.parity]
        output.mkdir(parents=True, exist_ok=True)
        files = heat_maps(images, masks[0], masks[1], spec, output, names=names)
        report = folder / REPORT_NAME
        content = {
            "model": spec.name,
            "format": form.name,
            "quantization": quantization.as_dict(),
            "agreement": agreement,
            "layers": [asdict(error) for error in errors],
        }
        report.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        files.append(report.replace(output / REPORT_NAME))
    return Diagnosis(errors, agreement, files)
