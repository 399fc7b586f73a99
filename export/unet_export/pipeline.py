"""The whole way: load, export, prove, accept. Nothing is where a device would look for it until all have passed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_export.errors import ParityError
from unet_export.formats import DEFAULT_FORMATS, FORMATS, Builder, GraphOptions
from unet_export.gate import parity
from unet_export.gate.gate import GATES, Gate, ParityResult
from unet_export.gate.runners import Run, Say
from unet_export.gate.study import calibration_study
from unet_export.photos import PhotoSource, choose_photos
from unet_export.repair import MORE_PHOTOS, repaired
from unet_export.report.report import Report, write_report
from unet_export.source_model import Description, load_model
from unet_export.staging import accept, reject, staging_folder
from unet_runtime.core.spec import ModelSpec


@dataclass(frozen=True)
class ExportOptions:
    """What a user may choose."""

    formats: tuple[str, ...] = DEFAULT_FORMATS
    gates: dict[str, Gate] = field(default_factory=lambda: dict(GATES))
    """By precision."""
    repair: bool = False
    """Whether a quantised artifact that fails is tried again with each cure of ``repair.py``."""
    study: bool = False
    """Whether the report shows what fewer calibration photos would have cost."""
    graph: GraphOptions = field(default_factory=GraphOptions)
    description: Description | None = None
    """Of a model without a spec."""
    command: str = ""
    """For the report: what the user typed."""


def export_model(
    model: Path,
    source: PhotoSource,
    output: Path,
    options: ExportOptions = ExportOptions(),
    say: Say = lambda line: None,
) -> list[ParityResult]:
    """Export ``model`` to every format asked for, and accept all of them or none.

    Args:
        model: a ``.keras`` file with a spec inside, or one that ``options.description`` describes.
        source: where the photos are that calibrate and prove.
        output: gets the artifacts, ``parity.json`` and ``report.html``, in place of a previous export's.
        options: what to make and how equal it must be.
        say: receives one line of progress at a time.

    Returns:
        What the gate found, one result an artifact, all passed; their paths are in ``output``.

    Raises:
        ParityError: the gate failed; ``output`` is as before but for ``rejected/``, which has the artifacts, those
            that passed too, and the report.
        ModelFileError, ExportError: the model cannot be exported, or the photos cannot be used for it.
        SourceError, ImageError: the data cannot be used.
        OutputError: ``output`` cannot be written.
        ValueError: a count below its minimum.
    """
    keras, spec = load_model(model, options.description)
    if options.repair:
        source = replace(source, reserve=(MORE_PHOTOS - 1) * source.calibration_count)
    photos = choose_photos(source, spec.provenance.split, spec.input)
    with staging_folder(output) as folder:
        builder = Builder(keras, spec, photos, folder / "work", options.graph)
        candidates = _write(builder, spec, folder, options, say)
        say(f"proving {len(candidates)} artifacts on {len(photos.parity)} photos")
        results = parity.prove(reference(keras), candidates, photos.parity, spec, say)
        if options.repair:
            results = [repaired(result, builder, reference(keras), photos.parity, spec, say) for result in results]
        panels = {result.path.name: result.panels for result in results if result.quantization}
        image = builder.images(1)
        report = Report(
            model.name,
            spec,
            photos,
            results,
            panels,
            command=options.command,
            parameters=keras.count_params(),
            keras_milliseconds=parity.milliseconds(lambda: keras.predict(image, verbose=0)),
        )
        if options.study:
            report = _with_study(report, builder, reference(keras), options, folder, say)
        _settle(report, folder, output)
    return [replace(result, path=output / result.path.name) for result in results]


def _write(builder: Builder, spec: ModelSpec, folder: Path, options: ExportOptions, say: Say) -> list[parity.Candidate]:
    """Every artifact, complete with spec and digest, in ``folder``."""
    candidates = []
    for name in options.formats:
        form = FORMATS[name]
        path = folder / form.file_name(spec, dynamic=options.graph.dynamic)
        say(f"exporting {path.name}")
        builder.write(form, path, form.quantization)
        candidates.append(parity.Candidate(form, path, options.gates[form.precision]))
    return candidates


def reference(model: Any) -> Run:
    """The trained model itself, in float32."""

    def run(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        result: npt.NDArray[np.float32] = model(images, training=False).numpy()
        return result

    return run


def _with_study(report: Report, builder: Builder, run: Run, options: ExportOptions, folder: Path, say: Say) -> Report:
    """Of the first integer format of the export."""
    for form in (FORMATS[name] for name in options.formats):
        if form.quantized:
            points = calibration_study(
                form, form.quantization, builder, run, report.photos.parity, report.spec, folder, say
            )
            return replace(report, calibration_study=points, study_artifact=form.file_name(report.spec))
    return report


def _settle(report: Report, folder: Path, output: Path) -> None:
    """Move everything into place if all passed; else into ``rejected``, where what failed has its twins beside it."""
    made = [*(result.path for result in report.results), *write_report(report, folder)]
    if failed := [result.path.name for result in report.results if not result.passed]:
        place = reject(output, made)
        raise ParityError(
            f"{', '.join(failed)}: not equal enough to {report.model}: nothing was accepted, {place} has all of it "
            "and the reasons",
            list(report.results),
        )
    accept(folder, output, [path.name for path in made])
