"""The whole export: load, convert, prove, accept. Nothing is put in place that has not passed."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from unet_export.errors import ExportError
from unet_export.foreign.load import Description, load_model
from unet_export.formats import DEFAULT_FORMATS, FORMATS, Builder, Format, format_named
from unet_export.formats.base import NotIntegerError
from unet_export.formats.onnx_model import load_onnx, refuse_formats
from unet_export.gate import parity
from unet_export.gate.gate import GATES, Gate, ParityError, ParityResult, Refusal
from unet_export.gate.runners import Run, exact_runner, keras_runner
from unet_export.photos import PhotoSource, choose_photos
from unet_export.repair import MORE_PHOTOS, repair
from unet_export.report.card import write_card
from unet_export.report.page import write_report
from unet_export.report.report import Report
from unet_export.staging import (
    COMMAND,
    PARITY_NAME,
    REJECTED_NAME,
    REPORT_NAME,
    accept,
    reject,
    staging_folder,
)
from unet_runtime.bench.machine import this_machine
from unet_runtime.core.spec import ModelSpec
from unet_runtime.io.places import Places

logger = logging.getLogger(__name__)

STUDY_SIZES = (1, 8, 50, 200)
"""Numbers of calibration photos in a study; the last is the default of an export."""


@dataclass(frozen=True)
class ExportOptions:
    """Choices of an export."""

    formats: tuple[str, ...] = DEFAULT_FORMATS
    """Names of ``FORMATS``."""
    gates: Mapping[str, Gate] = field(default_factory=lambda: dict(GATES))
    """Tolerances by precision."""
    repair: bool = False
    """Try the remedies of ``repair.py`` on an integer artifact that fails."""
    all_or_nothing: bool = False
    """Accept no artifact unless all that were asked for are made and pass."""
    study: bool = False
    """Show in the report what fewer calibration photos would have cost."""
    dynamic: bool = False
    """ONNX files take any height and width that is a multiple of what the network halves by."""
    labels: bool = False
    """ONNX files have a second output, ``labels``: the argmax, uint8 (n, h, w)."""
    description: Description | None = None
    """Description of a model without a spec."""
    command: str = ""
    """Command line that the user typed, for the report."""
    overwrite: bool = False
    """Replace files of others, too."""


def export_model(
    model: Path, source: PhotoSource, output: Path, options: ExportOptions = ExportOptions()
) -> list[ParityResult]:
    """Export ``model`` to every format asked for, and accept each artifact that passes.

    Args:
        model: a ``.keras`` file with a spec inside, a Keras model of any origin that ``options.description``
            describes, or a float32 ``.onnx`` file that was adopted.
        source: where the photos for calibration and proof are.
        output: gets the artifacts, ``parity.json`` and ``report.html``, in place of a previous export's.
        options: what to make and how close to the trained model it must be.

    Returns:
        One result per artifact, all passed; their paths are in ``output``.

    Raises:
        ParityError: an artifact failed its gate, or could not be made. Those that passed are in ``output``, the others
            in ``output/rejected``; with ``all_or_nothing``, and where none passed, ``output`` is as before but for
            ``rejected/``, which has all of them and the report.
        ModelFileError, ExportError: the model cannot be exported, or the photos cannot be used for it.
        SourceError, ImageError: the data cannot be used.
        OutputError: ``output`` cannot be written, or something in it must stay.
        ValueError: a count below its minimum.

    Example:
        >>> from pathlib import Path
        >>> from unet_export import ExportOptions, PhotoSource, export_model
        >>> results = export_model(
        ...     Path("artifacts/model.keras"),
        ...     PhotoSource(Path("data/oxford-iiit-pet")),
        ...     Path("artifacts/export"),
        ...     ExportOptions(formats=("onnx", "tflite-int8")),
        ... )  # doctest: +SKIP
        >>> [result.path.name for result in results]  # doctest: +SKIP
        ['pets-edge-160.float32.onnx', 'pets-edge-160.int8.tflite']
    """
    machine = this_machine()  # now: the export is a load itself
    keras, spec = _load(model, options)
    _check_output(model, output, spec, options)
    photos = choose_photos(source, spec)
    reference = keras_runner(keras)
    with staging_folder(output) as folder:
        builder = Builder(keras, spec, photos, folder / "work", dynamic=options.dynamic, labels=options.labels)
        candidates, refused = _write_artifacts(builder, folder, options)
        logger.info("proving %d artifacts on %d photos", len(candidates), len(photos.parity))
        results = parity.prove(reference, candidates, photos.parity, spec, partial(exact_runner, keras))
        if options.repair and any(map(_may_be_repaired, results)):
            results = _repaired(results, builder, reference, source)
        image = builder.images(1)
        (milliseconds,) = parity.milliseconds([lambda: keras.predict(image, verbose=0)])
        report = Report(
            model.name,
            spec,
            photos,
            results,
            command=options.command,
            parameters=keras.count_params(),
            keras_milliseconds=milliseconds,
            machine=machine,
            refused=refused,
            all_or_nothing=options.all_or_nothing,
        )
        integer = [form for form in (format_named(result.format) for result in results) if form.quantized]
        if options.study and integer:
            report = _with_study(report, integer[0], builder, reference, folder)
        _settle(report, folder, output, overwrite=options.overwrite)
    return [replace(result, path=output / result.path.name) for result in results]


def _load(model: Path, options: ExportOptions) -> tuple[Any, ModelSpec]:
    """The model that is exported, called as a Keras model is, and its spec."""
    if model.suffix != ".onnx":
        return load_model(model, options.description)
    refuse_formats(model, options.formats, dynamic=options.dynamic, labels=options.labels)
    return load_onnx(model)


def _check_output(model: Path, output: Path, spec: ModelSpec, options: ExportOptions) -> None:
    """Refuse a folder with files of others under the names that this export needs; raises OutputError."""
    places = Places([model], overwrite=options.overwrite, command=COMMAND, folders=True)
    names = [REPORT_NAME, PARITY_NAME]
    for name in options.formats:
        for form in (FORMATS[name], FORMATS[name].mixed):
            if form is not None:
                names.append(form.file_name(spec, dynamic=options.dynamic))
    for folder in (output, output / REJECTED_NAME):
        places.check_files(folder, names)


def _write_artifacts(
    builder: Builder, folder: Path, options: ExportOptions
) -> tuple[list[parity.Candidate], list[Refusal]]:
    """Write every artifact, complete with spec and digest, to ``folder``; and which cannot be made.

    Raises ExportError where none can, or one cannot and all are wanted.
    """
    candidates = []
    refused = []
    for name in options.formats:
        try:
            candidates.append(_write_artifact(FORMATS[name], builder, folder, options))
        except ExportError as error:
            if options.all_or_nothing or len(options.formats) == 1:
                raise
            file = FORMATS[name].file_name(builder.spec, dynamic=options.dynamic)
            logger.warning("%s cannot be made: %s", file, error)
            refused.append(Refusal(name, file, str(error)))
    if not candidates:
        raise ExportError("; ".join(f"{refusal.file}: {refusal.reason}" for refusal in refused))
    return candidates, refused


def _write_artifact(form: Format, builder: Builder, folder: Path, options: ExportOptions) -> parity.Candidate:
    """One artifact; a mixed one in place of an integer one whose model has operators without an integer kernel."""
    path = folder / form.file_name(builder.spec, dynamic=options.dynamic)
    logger.info("exporting %s", path.name)
    try:
        builder.write(form, path, form.quantization)
    except NotIntegerError as error:
        if form.mixed is None:
            raise
        path.unlink(missing_ok=True)
        form = form.mixed
        path = folder / form.file_name(builder.spec, dynamic=options.dynamic)
        logger.warning("%s: exporting %s in its place", error, path.name)
        builder.write(form, path, form.quantization)
    return parity.Candidate(form, path, options.gates[form.precision], options.gates)


def _may_be_repaired(result: ParityResult) -> bool:
    return not result.passed and format_named(result.format).quantized


def _repaired(
    results: Sequence[ParityResult], builder: Builder, reference: Run, source: PhotoSource
) -> list[ParityResult]:
    """The results with those of repaired artifacts in place of those that failed; says how long it took."""
    start = time.perf_counter()
    logger.info("trying remedies, which takes minutes: --repair none leaves them out")
    reserve = (MORE_PHOTOS - 1) * source.calibration_count
    photos = choose_photos(replace(source, reserve=reserve), builder.spec)
    builder.add_reserve(photos)
    repaired = [repair(result, builder, reference, photos.parity, builder.spec) for result in results]
    logger.info("remedies took %.0f s", time.perf_counter() - start)
    return repaired


def _with_study(report: Report, form: Format, builder: Builder, reference: Run, folder: Path) -> Report:
    """The report with metrics of an integer format on calibration sets of ``STUDY_SIZES``, in the first engine here."""
    study = {}
    path = folder / f"study{form.suffix}"
    for count in STUDY_SIZES:
        logger.info("calibrating %s on %d photos, for the study", form.name, count)
        builder.write(form, path, replace(form.quantization, photos=count))
        candidate = parity.Candidate(form, path, GATES[form.precision])
        (result,) = parity.prove(reference, [candidate], report.photos.parity, report.spec)
        path.unlink()
        for entry in result.checked[:1]:
            assert entry.metrics is not None
            study[count] = entry.metrics
    return replace(report, calibration_study=study, study_artifact=form.file_name(report.spec))


def _settle(report: Report, folder: Path, output: Path, *, overwrite: bool) -> None:
    """Move what is accepted into place, and the rest into ``rejected``. Raises ParityError if there is a rest."""
    pages = write_report(report, folder)
    kept = report.kept
    to_accept = [path.name for path in (*map(attrgetter("path"), kept), *pages)]
    if kept:
        to_accept += write_card(report, kept, folder, output, overwrite=overwrite)
    if report.accepted:
        accept(folder, output, to_accept)
        return
    names = [*(result.path.name for result in report.failed), *map(attrgetter("file"), report.refused)]
    verdict = f"{', '.join(names)}: {'not made, or ' if report.refused else ''}too different from {report.model}"
    if not kept:
        place = reject(output, [*map(attrgetter("path"), report.results), *pages])
        message = f"{verdict}: nothing was accepted, {place} has all of it and the reasons"
    else:
        copies = folder / "copies"
        copies.mkdir()
        for page in pages:
            shutil.copyfile(page, copies / page.name)
        place = reject(output, [*map(attrgetter("path"), report.failed), *copies.iterdir()])
        accept(folder, output, to_accept, all_passed=False)
        accepted = ", ".join(result.path.name for result in kept)
        message = f"{verdict}: {place} has it and the reasons; accepted in {output}: {accepted}"
    raise ParityError(message, list(report.results), report.refused)
