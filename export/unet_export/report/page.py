"""The page for people: everything the gate found, as one HTML file that loads nothing else and runs nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from unet_export.formats.flatbuffer import Flatbuffer
from unet_export.formats.saved_model import SAVED_MODEL
from unet_export.gate.gate import EngineResult, ParityResult, smallest_gate
from unet_export.report import page_figures

if TYPE_CHECKING:
    from unet_export.report.report import Report

_TEMPLATE = "report.html.j2"

_BYTES = {"FLOAT32": 4, "INT32": 4, "INT64": 8, "INT16": 2, "FLOAT16": 2, "INT8": 1, "UINT8": 1, "BOOL": 1}
"""Of one element."""

_NONE = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Recommendation:
    """Which artifact to use on one kind of device, and how far that is known."""

    device: str
    artifact: str
    """File name; empty where none that passed fits."""
    reason: str
    """Whole sentences."""


def recommend(report: Report, activations: Mapping[str, int] = MappingProxyType({})) -> list[Recommendation]:
    """The choice for a CPU, a small Arm CPU, a GPU and a microcontroller, among the artifacts that passed in every
    engine that checked them. Says of each what was measured and what was not.

    Args:
        report: of the export.
        activations: as ``activation_bytes`` tells, by artifact's file name; an artifact may be missing.
    """
    passed = [result for result in report.results if result.passed]
    return [
        _for_cpu(passed, [*baselines(report.results), *_keras(report)]),
        _for_small_arm(passed),
        _for_gpu(passed, report.results),
        _for_microcontroller(passed, activations),
    ]


Timed = tuple[float, ParityResult, EngineResult]
"""(milliseconds, artifact, engine)."""


def _timed(results: Iterable[ParityResult], device: str) -> Iterator[Timed]:
    """Where the runtime ran it: TensorFlow is no engine of a device."""
    for result in results:
        for entry in result.engines:
            known = entry.milliseconds is not None and entry.verdict == "passed" and entry.backend != "tensorflow"
            if known and entry.device == device:
                assert entry.milliseconds is not None
                yield entry.milliseconds, result, entry


def baselines(results: Iterable[ParityResult]) -> list[tuple[str, float]]:
    """(name, milliseconds) of what speed is compared with, those that were run here; ONNX Runtime's first."""
    found = {
        name: entry.milliseconds
        for result in results
        for entry in result.engines
        for name, key in (
            ("ONNX Runtime float32", ("onnx", "onnx", "cpu")),
            ("TensorFlow on the SavedModel", (SAVED_MODEL.name, "tensorflow", "cpu")),
        )
        if key == (result.format, entry.backend, entry.device) and entry.milliseconds
    }
    return [(name, found[name]) for name in sorted(found)]


def _keras(report: Report) -> list[tuple[str, float]]:
    return [] if report.keras_milliseconds is None else [("Keras predict", report.keras_milliseconds)]


def _for_cpu(passed: Sequence[ParityResult], known: Sequence[tuple[str, float]]) -> Recommendation:
    candidates = sorted(_timed(passed, "cpu"), key=lambda entry: (entry[0], entry[1].size))
    if not candidates:
        return Recommendation("CPU", "", "No artifact that passed was timed on a CPU here.")
    time, result, entry = candidates[0]
    ratios = [f"{value / time:.2f} times as fast as {name}" for name, value in known if value != time]
    words = [f"The fastest on this machine: {milliseconds(time)} ms a photo in {entry.engine}", *ratios]
    return Recommendation("CPU", result.path.name, f"{', '.join(words)}.{_cost(entry)}")


def _cost(entry: EngineResult) -> str:
    """What it costs in accuracy, as a sentence after another."""
    figures = entry.figures
    if figures is None:
        return ""
    if figures.iou_change is None:
        return f" Agreement with the trained model: {percent(figures.agreement)} %."
    border = "" if figures.border_change is None else f", border IoU by {signed(figures.border_change)}"
    return f" Mean IoU changes by {signed(figures.iou_change)} points{border}."


def _for_small_arm(passed: Sequence[ParityResult]) -> Recommendation:
    device, note = "Small Arm CPU", "Speed was not measured on such a CPU."
    found = _smallest(passed, lambda result: result.precision == "int8" and _is_tflite(result))
    if found:
        return Recommendation(device, found.path.name, f"The smallest int8 TFLite: {found.size:,} bytes. {note}")
    found = _smallest(passed, _is_tflite)
    if found:
        reason = f"No int8 TFLite passed; this is the smallest TFLite that did: {found.size:,} bytes. {note}"
        return Recommendation(device, found.path.name, reason)
    return Recommendation(device, "", "No TFLite passed.")


def _is_tflite(result: ParityResult) -> bool:
    return result.format.startswith("tflite")


def _smallest(results: Iterable[ParityResult], fits: Callable[[ParityResult], bool]) -> ParityResult | None:
    return min((result for result in results if fits(result)), key=lambda result: result.size, default=None)


def _for_gpu(passed: Sequence[ParityResult], results: Sequence[ParityResult]) -> Recommendation:
    fitting = [result for result in passed if result.format in ("onnx", "onnx-float16")]
    if not fitting:
        return Recommendation("GPU", "", "No float16 or float32 ONNX passed.")
    timed = sorted(_timed(fitting, "cuda"), key=lambda entry: entry[0])
    if timed:
        time, result, entry = timed[0]
        reason = f"The fastest float ONNX measured on CUDA here: {milliseconds(time)} ms a photo in {entry.engine}."
        return Recommendation("GPU", result.path.name, reason + _cost(entry))
    chosen = min(fitting, key=lambda result: result.size)
    why = next(
        (e.not_checked for result in results for e in result.engines if e.device == "cuda" and e.not_checked),
        "no CUDA device was tried",
    )
    reason = f"The smallest float ONNX that passed, {chosen.precision}, on the CPU. Not measured on a GPU: {why}"
    return Recommendation("GPU", chosen.path.name, reason.rstrip(".") + ".")


def _for_microcontroller(passed: Sequence[ParityResult], activations: Mapping[str, int]) -> Recommendation:
    device = "Microcontroller"
    found = _smallest(passed, lambda result: result.format == "tflite-int8")
    if not found:
        return Recommendation(device, "", "No full-integer int8 TFLite passed, and such devices run nothing else.")
    size = activations.get(found.path.name)
    memory = "" if size is None else f", and by its graph at least {size:,} bytes of RAM for activations"
    missing = "memory for activations, and whether" if size is None else "whether"
    reason = (
        f"Full-integer int8: {found.size:,} bytes of flash{memory}. Not checked: {missing} the device's library has "
        "every operator."
    )
    return Recommendation(device, found.path.name, reason)


def activation_bytes(content: bytes) -> int:
    """Most bytes of a ``.tflite``'s tensors that are needed at one time, its constants aside, with no operator working
    in place: what a device must have, without its library's own memory and the operators' scratch."""
    model = Flatbuffer(content)
    count = len(model.operators)
    begin = dict.fromkeys((int(index) for index in model.graph.inputs), 0)
    end: dict[int, int] = {}
    for place, operator in enumerate(model.operators):
        begin |= dict.fromkeys(operator.outputs, place)
        end |= dict.fromkeys((*operator.inputs, *operator.outputs), place)
    end |= dict.fromkeys((int(index) for index in model.graph.outputs), count - 1)
    sizes = {index: model.size(index) * _BYTES[model.type(index)] for index in begin}
    return max(
        (
            sum(size for index, size in sizes.items() if begin[index] <= place <= end.get(index, 0))
            for place in range(count)
        ),
        default=0,
    )


def _activations(results: Iterable[ParityResult]) -> dict[str, int]:
    """Of the int8 TFLite files that are where they were checked."""
    paths = [result.path for result in results if result.format == "tflite-int8"]
    return {path.name: activation_bytes(path.read_bytes()) for path in paths if path.is_file()}


def render(report: Report) -> str:
    """The page: HTML without scripts or references to anything outside it. All it says is the report's."""
    # Photos, models and commands are named by others: whatever their names hold is text.
    environment = Environment(
        loader=PackageLoader("unet_export.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "ms": milliseconds,
        "dp": scientific,
        "percent": percent,
        "iou": _iou,
        "signed": signed,
        "setting": _setting,
        "tolerance": _tolerance,
    }
    base = next(iter(baselines(report.results)), None)
    return environment.get_template(_TEMPLATE).render(
        report=report,
        spec=report.spec,
        provenance=report.spec.provenance,
        accepted=bool(report.results) and all(result.passed for result in report.results),
        failed=[result for result in report.results if not result.passed],
        not_checked=_not_checked(report.results),
        truth=bool(report.photos.parity) and all(photo.trimap is not None for photo in report.photos.parity),
        border=next((report.spec.class_names[index] for index in report.spec.roles("neutral")), "border"),
        base=base if base and base[0].startswith("ONNX Runtime") else None,
        recommendations=recommend(report, _activations(report.results)),
        smallest=smallest_gate,
        histograms=_histograms(report.results),
        area=page_figures.AREA,
        different=page_figures.DIFFERENT,
        panels={
            name: [(p, page_figures.pictures(p, report.spec)) for p in shown]
            for name, shown in report.panels.items()
            if shown
        },
        charts=_study_charts(report.calibration_study),
    )


def _not_checked(results: Iterable[ParityResult]) -> list[tuple[str, str, list[str]]]:
    """(engine, why, files) of every engine that could not check, each once."""
    found: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for entry in result.engines:
            if entry.not_checked:
                found.setdefault((entry.engine, entry.not_checked), []).append(result.path.name)
    return [(engine, why, files) for (engine, why), files in found.items()]


def _histograms(results: Iterable[ParityResult]) -> list[page_figures.Histogram]:
    drawn = (page_figures.histogram(result, entry) for result in results for entry in result.engines)
    return [entry for entry in drawn if entry is not None]


def _study_charts(study: Sequence[tuple[int, float | None, float | None, float]]) -> list[page_figures.LineChart]:
    if not study:
        return []
    photos, iou, border, agreement = zip(*study, strict=True)
    charts = (
        page_figures.line_chart(
            "change in percentage points", photos, [("mean IoU", iou), ("border IoU", border)], with_zero=True
        ),
        page_figures.line_chart(
            "agreement, %", photos, [("agreement", [share * 100 for share in agreement])], with_zero=False
        ),
    )
    return [chart for chart in charts if chart is not None]


def milliseconds(value: float | None) -> str:
    """Three digits or so."""
    if value is None:
        return _NONE
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def scientific(value: float) -> str:
    """A |dp|: ``3.12e-6``."""
    if math.isnan(value):
        return "NaN"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return "0" if value == 0 else f"{mantissa}e{int(exponent)}".replace("-", _MINUS)


def _tolerance(value: float) -> str:
    if math.isnan(value):
        return "none"
    mantissa, e, exponent = f"{value:.6g}".partition("e")
    return (f"{mantissa}e{int(exponent)}" if e else mantissa).replace("-", _MINUS)


def percent(share: float) -> str:
    """A share in 0..1 in percent, rounded down: only 1 is 100."""
    return "NaN" if math.isnan(share) else f"{math.floor(share * 1e5 + 1e-7) / 1e3:.3f}"


def _iou(value: float | None) -> str:
    return _NONE if value is None else f"{value:.4f}"


def signed(points: float | None) -> str:
    """Percentage points with their sign; a zero has none."""
    if points is None:
        return _NONE
    text = f"{points:+.3f}"
    return "0.000" if text[1:] == "0.000" else text.replace("-", _MINUS)


def _setting(value: Any) -> str:
    """A quantiser's setting, for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value)
