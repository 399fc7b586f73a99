"""The whole export: load, convert, prove, accept. Nothing is put in place until every artifact has passed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path

from unet_export.formats import DEFAULT_FORMATS, FORMATS, Builder, Format
from unet_export.gate import parity
from unet_export.gate.gate import GATES, Gate, ParityError, ParityResult
from unet_export.gate.runners import Run, keras_runner
from unet_export.photos import PhotoSource, choose_photos
from unet_export.repair import MORE_PHOTOS, repair
from unet_export.report.page import write_report
from unet_export.report.report import Report
from unet_export.source_model import Description, load_model
from unet_export.staging import accept, reject, staging_folder

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


def export_model(
    model: Path, source: PhotoSource, output: Path, options: ExportOptions = ExportOptions()
) -> list[ParityResult]:
    """Export ``model`` to every format asked for, and accept all of them or none.

    Args:
        model: a ``.keras`` file with a spec inside, or one that ``options.description`` describes.
        source: where the photos for calibration and proof are.
        output: gets the artifacts, ``parity.json`` and ``report.html``, in place of a previous export's.
        options: what to make and how close to the trained model it must be.

    Returns:
        One result per artifact, all passed; their paths are in ``output``.

    Raises:
        ParityError: the gate failed; ``output`` is as before but for ``rejected/``, which has the artifacts, those
            that passed too, and the report.
        ModelFileError, ExportError: the model cannot be exported, or the photos cannot be used for it.
        SourceError, ImageError: the data cannot be used.
        OutputError: ``output`` cannot be written.
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
    keras, spec = load_model(model, options.description)
    if options.repair:
        source = replace(source, reserve=(MORE_PHOTOS - 1) * source.calibration_count)
    photos = choose_photos(source, spec)
    reference = keras_runner(keras)
    with staging_folder(output) as folder:
        builder = Builder(keras, spec, photos, folder / "work", dynamic=options.dynamic, labels=options.labels)
        candidates = _write_artifacts(builder, folder, options)
        logger.info("proving %d artifacts on %d photos", len(candidates), len(photos.parity))
        results = parity.prove(reference, candidates, photos.parity, spec)
        if options.repair:
            results = [repair(result, builder, reference, photos.parity, spec) for result in results]
        image = builder.images(1)
        (time,) = parity.milliseconds([lambda: keras.predict(image, verbose=0)])
        report = Report(
            model.name,
            spec,
            photos,
            results,
            command=options.command,
            parameters=keras.count_params(),
            keras_milliseconds=time,
        )
        integer = [name for name in options.formats if FORMATS[name].quantized]
        if options.study and integer:
            report = _with_study(report, FORMATS[integer[0]], builder, reference, folder)
        _settle(report, folder, output)
    return [replace(result, path=output / result.path.name) for result in results]


def _write_artifacts(builder: Builder, folder: Path, options: ExportOptions) -> list[parity.Candidate]:
    """Write every artifact, complete with spec and digest, to ``folder``."""
    candidates = []
    for name in options.formats:
        form = FORMATS[name]
        path = folder / form.file_name(builder.spec, dynamic=options.dynamic)
        logger.info("exporting %s", path.name)
        builder.write(form, path, form.quantization)
        candidates.append(parity.Candidate(form, path, options.gates[form.precision], options.gates))
    return candidates


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


def _settle(report: Report, folder: Path, output: Path) -> None:
    """Move everything into place if all passed, else into ``rejected``."""
    paths = [*map(attrgetter("path"), report.results), *write_report(report, folder)]
    if not report.accepted:
        place = reject(output, paths)
        names = ", ".join(result.path.name for result in report.failed)
        reasons = f"nothing was accepted, {place} has all of it and the reasons"
        raise ParityError(f"{names}: too different from {report.model}: {reasons}", list(report.results))
    accept(folder, output, list(map(attrgetter("name"), paths)))
