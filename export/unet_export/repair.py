"""Remedies for an integer artifact that failed its gate, cheapest first; the first one that passes is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from unet_export.diagnosis.diagnose import diagnose_export, main_contributors
from unet_export.errors import ExportError
from unet_export.formats import Builder, Format, format_named
from unet_export.formats.base import measuring_norms
from unet_export.gate.gate import ParityResult
from unet_export.gate.parity import Candidate, prove
from unet_export.gate.runners import Run
from unet_export.photos import Photo
from unet_export.quantization import Quantization
from unet_runtime.core.spec import ModelSpec

logger = logging.getLogger(__name__)

MORE_PHOTOS = 4
"""Factor by which the number of calibration photos is raised."""

_PRECISE_LAYERS = (3, 8)
"""Numbers of main contributors that are kept precise, one attempt each."""

_FINETUNE_STEPS = 60


def repair(
    result: ParityResult, builder: Builder, reference: Run, photos: Sequence[Photo], spec: ModelSpec
) -> ParityResult:
    """Try remedies on an integer artifact that failed, and log each; its file is replaced by the first that passes.

    Returns that one's result; ``result`` if it passed already, is of a float format, or no remedy helps, and the file
    is as before.
    """
    form = format_named(result.format)
    if result.passed or not form.quantized:
        return result
    if (mixed := _mixed(result, form, builder, reference, photos)) is not None:
        return mixed
    failed = result.path.read_bytes()
    for name, quantization in remedies(form, lambda made: _contributors(form, result.path, builder, made)):
        logger.info("%s failed its gate, trying: %s", result.path.name, name)
        try:
            builder.write(form, result.path, quantization)
        except ExportError as error:
            logger.info("  not possible: %s", error)
            continue
        candidate = Candidate(form, result.path, result.gate)
        (repaired,) = prove(reference, [candidate], photos, spec)
        if repaired.passed:
            logger.info("  %s passes with %s", result.path.name, name)
            return repaired
        logger.info("  %s", repaired.failures[0])
    result.path.write_bytes(failed)
    return result


def _mixed(
    result: ParityResult, form: Format, builder: Builder, reference: Run, photos: Sequence[Photo]
) -> ParityResult | None:
    """The file in which normalisations that measure a deviation compute in float, if that one passes; else None.

    No calibration and no training holds a square and its reciprocal root in 8 bits. The file has another name.
    """
    if form.mixed is None or not measuring_norms(builder.model(form.quantization)):
        return None
    path = result.path.with_name(form.mixed.file_name(builder.spec, dynamic=builder.dynamic))
    logger.info("%s failed its gate, trying: normalisations in float, %s", result.path.name, path.name)
    try:
        builder.write(form.mixed, path, form.mixed.quantization)
    except ExportError as error:
        logger.info("  not possible: %s", error)
        path.unlink(missing_ok=True)
        return None
    (made,) = prove(reference, [Candidate(form.mixed, path, result.gate)], photos, builder.spec)
    if made.passed:
        result.path.unlink()
        return made
    logger.info("  %s", made.failures[0])
    path.unlink()
    return None


def _contributors(form: Format, path: Path, builder: Builder, made: Quantization) -> list[str]:
    """Keras layers that add most noise to the file as it was just ``made``; empty if its layers cannot be compared."""
    with suppress(ExportError):
        return main_contributors(diagnose_export(builder, form, path, made))
    return []


def remedies(form: Format, contributors: Callable[[Quantization], Sequence[str]]) -> Iterator[tuple[str, Quantization]]:
    """Remedies in order of cost: (description, settings). Those that are free on the device come first,
    and are kept for the rest.

    ``contributors``, called when needed, returns the layers of a file made with these settings that add most noise.
    """
    start = form.quantization
    for method in form.methods:
        if method != start.method:
            yield f"calibration by {method}", replace(start, method=method)
    yield f"{MORE_PHOTOS} times the calibration photos", replace(start, photos=start.photos * MORE_PHOTOS)
    equalized = replace(start, equalized=True)
    yield "channels of equal range", equalized
    tuned = replace(equalized, finetune_steps=_FINETUNE_STEPS)
    yield f"{_FINETUNE_STEPS} steps of fine-tuning", tuned
    names = contributors(tuned)
    for count in _PRECISE_LAYERS:
        if precise := tuple(names[:count]):
            yield f"{', '.join(precise)} more precise", replace(tuned, precise=precise)
