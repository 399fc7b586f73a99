"""Adoption: a file of another tool, described, tried, measured and proven, becomes an artifact of the runtime."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unet_export.adopt.describe import Choices, Row, UnknownError, described
from unet_export.adopt.facts import Facts
from unet_export.adopt.measure import Infer, Measurement, Open, check, measure, suggested
from unet_export.adopt.reader import read
from unet_export.adopt.reference import (
    FOREIGN_GATE,
    Proof,
    other_file_pairs,
    prove,
    recorded_pairs,
    with_spec,
)
from unet_export.errors import ExportError
from unet_export.formats.onnx_optimizers import wrong_optimizers
from unet_export.gate.gate import FOREIGN_GATES, EngineResult, Gate, ParityError, ParityResult
from unet_export.photos import PhotoSets, trial_pictures
from unet_export.report.card import write_card
from unet_export.report.report import Report, as_json
from unet_export.staging import COMMAND, PARITY_NAME, accept, staging_folder
from unet_runtime import Segmenter
from unet_runtime.core import masks
from unet_runtime.core.errors import BackendError, ModelFileError, UnetRuntimeError
from unet_runtime.core.spec import ModelSpec
from unet_runtime.engines import ENGINES, install_hint, installed, readers
from unet_runtime.engines.foreign import ForeignBackend
from unet_runtime.io.places import Places

logger = logging.getLogger(__name__)

ADOPTION_GATES: dict[str, Gate] = {**FOREIGN_GATES, "float32": FOREIGN_GATE}
"""As an export's, less strict for float32, whose origin is another framework."""

_NO_REFERENCE = "no --reference was given"


@dataclass(frozen=True)
class Adoption:
    """What became of a file."""

    path: Path
    spec: ModelSpec
    rows: list[Row]
    """What is known of it, and from where."""
    measurement: Measurement | None
    proofs: tuple[Proof, ...]
    """One for each engine; empty without a reference."""
    result: ParityResult


@dataclass(frozen=True)
class Evidence:
    """What an adoption is checked on."""

    data: Path | None = None
    """Folder of photos with masks."""
    reference: Path | None = None
    """Recorded inputs and outputs (``.npz``), or the same model in another format."""
    gates: Mapping[str, Gate] | None = None
    """Tolerances by precision; None: ``ADOPTION_GATES``."""
    alternatives: bool = True
    """Whether other preprocessing is tried on ``data``."""


def adopt(
    model: Path, choices: Choices, output: Path, evidence: Evidence = Evidence(), *, overwrite: bool = False
) -> Adoption:
    """Give a file of another tool a spec, and write both as one file into ``output``; nothing is written on an error.

    Args:
        model: a ``.onnx`` or ``.tflite`` file.
        choices: what the user says of it.
        output: gets the file and ``parity.json``, in place of a previous export's.
        evidence: what it is measured on and proven with.
        overwrite: replace files of others in ``output``, too.

    Raises:
        UnknownError: something is not known; with ``evidence.data`` the message says what the photos speak for.
        ExportError: it cannot be adopted, or other preprocessing is better on the user's photos.
        ParityError: it differs from its reference.
        SourceError, ImageError: the photos cannot be used.
        OutputError: ``output`` cannot be written, or something in it must stay.
    """
    facts = read(model)
    try:
        spec, rows = described(facts, choices)
    except UnknownError as error:
        raise _with_suggestion(error, facts, choices, evidence) from error
    spec, rows = _without_wrong_optimizers(facts, spec, rows)
    name = _file_name(spec, model.suffix)
    read_files = [model] if evidence.reference is None else [model, evidence.reference]
    Places(read_files, overwrite=overwrite, command=COMMAND, folders=True).check_files(output, (name, PARITY_NAME))
    with staging_folder(output) as folder:
        path = folder / name
        path.write_bytes(with_spec(model, facts.content, spec).content)
        segmenters, absent = _opened(path)
        _try(segmenters[0], model)
        measurement = None
        if evidence.data is not None:
            measurement = measure(_under(segmenters[0]), spec, evidence.data, tried=evidence.alternatives)
            check(measurement)
        gate = (evidence.gates or ADOPTION_GATES)[spec.precision]
        proofs = tuple(_prove(entry, evidence, choices, gate) for entry in segmenters) if evidence.reference else ()
        engines = [proof.result for proof in proofs] or [_unproven(entry) for entry in segmenters]
        result = ParityResult(
            f"adopted{model.suffix}",
            spec.precision,
            path,
            path.stat().st_size,
            hashlib.sha256(path.read_bytes()).hexdigest(),
            gate,
            (*engines, *absent),
            {},
        )
        if proofs and not result.passed:
            raise ParityError(
                f"{model}: too different from {evidence.reference}: {'; '.join(result.failures)}: nothing was written",
                [result],
            )
        report = Report(model.name, spec, PhotoSets((), (), (), ""), [result])
        (folder / PARITY_NAME).write_text(as_json(report), encoding="utf-8")
        card = write_card(report, [result], folder, output, overwrite=overwrite)
        accept(folder, output, [path.name, PARITY_NAME, *card])
    return Adoption(output / path.name, spec, rows, measurement, proofs, replace(result, path=output / path.name))


def _without_wrong_optimizers(facts: Facts, spec: ModelSpec, rows: list[Row]) -> tuple[ModelSpec, list[Row]]:
    """The spec of a float ONNX file with the optimisers of ONNX Runtime that get it wrong, and a row that says so."""
    if facts.path.suffix != ".onnx" or not installed("onnx"):
        return spec, rows
    try:
        found = wrong_optimizers(with_spec(facts.path, facts.content, spec))
    except (BackendError, ModelFileError):  # another engine may open it; _opened says what is wrong
        return spec, rows
    if found:
        rows = [*rows, Row("disabled optimizers", ", ".join(found), "measured: ONNX Runtime is wrong with them")]
    return replace(spec, disabled_optimizers=found), rows


def _file_name(spec: ModelSpec, suffix: str) -> str:
    if Path(spec.name).name != spec.name:
        raise ExportError(f"the model's name is {spec.name!r}, expected one without folders: --name")
    height, width = spec.input.height, spec.input.width
    size = f"{height}" if height == width else f"{height}x{width}"
    return f"{spec.name}-{size}.{spec.precision}{suffix}"


def _opened(path: Path) -> tuple[list[Segmenter], list[EngineResult]]:
    """The file in each engine that opens it, one at least; and why not in the others."""
    found: list[Segmenter] = []
    absent: list[EngineResult] = []
    errors: list[UnetRuntimeError] = []
    for name in readers(path.suffix):
        label = ENGINES[name].label
        if not installed(name):
            reason = f"{label} is not installed: {install_hint(name)}"
            absent.append(EngineResult(name, "cpu", label, None, not_checked=reason))
            continue
        try:
            found.append(Segmenter(path, backend=name, device="cpu"))
        except (BackendError, ModelFileError) as error:
            errors.append(error)
            absent.append(EngineResult(name, "cpu", label, None, not_checked=f"does not open it: {error}"))
    if not found:
        raise errors[0] if errors else ExportError(f"no engine for {path.suffix} files is installed")
    return found, absent


def _try(segmenter: Segmenter, model: Path) -> None:
    """Run pictures through the whole of it: an activation or class id that is not as described shows here."""
    pictures = trial_pictures(segmenter.spec)
    try:
        found = np.concatenate([segmenter.infer(picture[np.newaxis]) for picture in pictures])
    except (BackendError, ModelFileError) as error:
        raise ExportError(f"{model}: is not as described: {error}") from error
    if len(np.unique(found.argmax(axis=-1))) == 1:
        logger.warning(
            "%s: every pixel of %d trial pictures is of one class: are --range, --mean and --channels right?",
            model,
            len(pictures),
        )


def _under(segmenter: Segmenter) -> Open:
    """The model run under other specs: its engine holds it once."""
    backend = segmenter.backend
    inner = getattr(backend, "inner", backend)

    def opened(spec: ModelSpec) -> Infer:
        changed = ForeignBackend(inner, spec)

        def infer(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            return masks.activated(np.array(changed.run(images)), spec)

        return infer

    return opened


def _prove(segmenter: Segmenter, evidence: Evidence, choices: Choices, gate: Gate) -> Proof:
    reference = evidence.reference
    assert reference is not None
    if reference.suffix == ".npz":
        pairs = recorded_pairs(segmenter, reference)
    else:
        pairs = other_file_pairs(segmenter, reference, choices, trial_pictures(segmenter.spec))
    return prove(pairs, segmenter.spec, gate, _result(segmenter))


def _unproven(segmenter: Segmenter) -> EngineResult:
    return replace(_result(segmenter), not_checked=_NO_REFERENCE)


def _result(segmenter: Segmenter) -> EngineResult:
    backend = segmenter.backend
    return EngineResult(backend.name, backend.device, backend.engine, None)


def _with_suggestion(error: UnknownError, facts: Facts, choices: Choices, evidence: Evidence) -> ExportError:
    """The error, with what the user's photos speak for where preprocessing alone is unknown."""
    words = {entry.option.split()[0] for entry in error.unknown}
    if evidence.data is None or not words <= {"--channels", "--range"}:
        return error
    low_high = (0.0, 1.0) if choices.range is None else choices.range
    try:
        spec, _ = described(facts, replace(choices, range=low_high, channels=choices.channels or "rgb"))
    except ExportError:
        return error
    with suppress(BackendError, ModelFileError), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{facts.path.suffix}"
        path.write_bytes(with_spec(facts.path, facts.content, spec).content)
        segmenters, _ = _opened(path)
        found = suggested(_under(segmenters[0]), spec, evidence.data)
        return UnknownError(f"{error}; {found}: give what is right", error.unknown)
    return error
