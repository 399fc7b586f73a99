"""How much calibration is enough: one integer artifact made anew on ever more photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unet_export.formats import Builder, Format
from unet_export.gate.gate import Gate
from unet_export.gate.parity import Candidate, prove
from unet_export.gate.runners import Run, Say
from unet_export.photos import Photo
from unet_export.quantization import Quantization
from unet_runtime.core.spec import ModelSpec

SIZES = (1, 8, 50, 200)
"""Photos; the last is the default of an export."""

Point = tuple[int, float | None, float | None, float]
"""(calibration photos, change of mean IoU and of border IoU in percentage points, agreement in 0..1)."""


def calibration_study(
    form: Format,
    start: Quantization,
    builder: Builder,
    reference: Run,
    photos: Sequence[Photo],
    spec: ModelSpec,
    folder: Path,
    say: Say,
) -> list[Point]:
    """Export ``form`` with each of ``SIZES`` and measure it in its first engine that runs here.

    Args:
        form: an integer format.
        start: its settings, but for the number of photos.
        builder, reference, photos, spec: as of the export.
        folder: gets a file that is overwritten and removed.
        say: receives one line a size.

    Raises:
        ExportError: the model cannot be converted.
    """
    points: list[Point] = []
    path = folder / f"study{form.suffix}"
    for count in SIZES:
        say(f"calibrating {form.name} on {count} photos, for the study")
        builder.write(form, path, replace(start, photos=count))
        anything = Gate(max_abs=1.0, agreement=0.0, iou_drop=100.0, border_drop=100.0)
        (result,) = prove(reference, [Candidate(form, path, anything)], photos, spec)
        path.unlink()
        if result.checked and (figures := result.checked[0].figures) is not None:
            points.append((count, figures.iou_change, figures.border_change, figures.agreement))
    return points
