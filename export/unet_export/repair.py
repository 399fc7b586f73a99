"""Cures for an integer artifact that failed its gate, cheapest first; the first that passes is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from unet_export.diagnosis.diagnose import diagnose, guilty_layers
from unet_export.errors import ExportError
from unet_export.formats import FORMATS, Builder, Format
from unet_export.gate.gate import ParityResult
from unet_export.gate.parity import Candidate, prove
from unet_export.gate.runners import Run, Say
from unet_export.photos import Photo
from unet_export.quantization import Quantization
from unet_runtime.core.spec import ModelSpec

MORE_PHOTOS = 4
"""Times as many calibration photos."""

_DIAGNOSED = 16
"""Calibration photos that tell which layers are to blame."""

_GUILTY = (3, 8)
"""How many of the worst layers are kept precise, one try each."""

_FINETUNE_STEPS = 60


def repaired(
    result: ParityResult, builder: Builder, reference: Run, photos: Sequence[Photo], spec: ModelSpec, say: Say
) -> ParityResult:
    """``result`` itself where it passed or is of a float format; else that of the first cure which passes.

    Args:
        result: what the gate found; its file is replaced by the cured one, and is as before if no cure helps.
        builder: of the same export.
        reference, photos, spec: as the gate had them.
        say: receives one line a cure.

    Raises:
        OSError: the file cannot be written.
    """
    form = FORMATS[result.format]
    if result.passed or not form.quantized:
        return result
    failed = result.path.read_bytes()
    for words, quantization in cures(form, lambda made: _guilty(form, result.path, builder, made)):
        say(f"{result.path.name} failed its gate, trying: {words}")
        try:
            builder.write(form, result.path, quantization)
        except ExportError as error:
            say(f"  not possible: {error}")
            continue
        candidate = Candidate(form, result.path, result.gate)
        (found,) = prove(reference, [candidate], photos, spec)
        if found.passed:
            say(f"  {result.path.name} passes with {words}")
            return found
        say(f"  {found.failures[0]}")
    result.path.write_bytes(failed)
    return result


def _guilty(form: Format, path: Path, builder: Builder, made: Quantization) -> list[str]:
    """Keras layers of the file as it was just ``made``, those that add most noise first; none where it cannot be
    taken apart."""
    layers = [layer.name for layer in builder.model(made).layers]
    twin = builder.baseline(form, made)
    with suppress(ExportError):
        return guilty_layers(diagnose(twin, path.read_bytes(), builder.images(_DIAGNOSED), path.suffix, layers))
    return []


def cures(form: Format, guilty: Callable[[Quantization], Sequence[str]]) -> Iterator[tuple[str, Quantization]]:
    """What to try, in order of cost: (in words, settings). What costs a device nothing is kept for those after."""
    start = form.quantization
    for method in form.methods:
        if method != start.method:
            yield f"calibration by {method}", replace(start, method=method)
    yield f"{MORE_PHOTOS} times the calibration photos", replace(start, photos=start.photos * MORE_PHOTOS)
    equal = replace(start, equalized=True)
    yield "channels of equal range", equal
    names = guilty(equal)  # of what equal ranges left
    for count in _GUILTY:
        if precise := tuple(names[:count]):
            yield f"{', '.join(precise)} more precise", replace(equal, precise=precise)
    yield f"{_FINETUNE_STEPS} steps of fine-tuning", replace(equal, finetune_steps=_FINETUNE_STEPS)
