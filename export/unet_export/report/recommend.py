"""Recommendations: an artifact for each kind of device, and how far that is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from unet_export.formats.flatbuffer import Flatbuffer
from unet_export.formats.saved_model import SAVED_MODEL
from unet_export.formats.tflite_micro import TFLITE_MICRO
from unet_export.formats.triton import TRITON
from unet_export.formats.web import WEB
from unet_export.gate.gate import EngineResult, ParityResult
from unet_export.report.numbers import milliseconds, percent, signed
from unet_export.report.report import Report
from unet_runtime.core.text import ratio

_BYTES = {"FLOAT32": 4, "INT32": 4, "INT64": 8, "INT16": 2, "FLOAT16": 2, "INT8": 1, "UINT8": 1, "BOOL": 1}
"""Bytes of one element."""

_BASELINES = {
    "ONNX Runtime float32": ("onnx", "onnx"),
    "TensorFlow on the SavedModel": (SAVED_MODEL.name, "tensorflow"),
}
"""Baselines of speed: (format, backend) by name."""


@dataclass(frozen=True)
class Recommendation:
    """The artifact to use on one kind of device."""

    device: str
    artifact: str
    """File name; empty where none that passed fits."""
    reason: str
    """Whole sentences."""


class _Timed(NamedTuple):
    """One artifact in one engine, timed."""

    milliseconds: float
    result: ParityResult
    entry: EngineResult


def recommend(report: Report) -> list[Recommendation]:
    """Choose for a CPU, a small Arm CPU, a GPU and a microcontroller, among the artifacts that passed in every engine
    that checked them. Each reason says what was measured and what was not."""
    for_others = (WEB.name, TRITON.name, TFLITE_MICRO.name)  # a browser, a server, a microcontroller
    passed = [result for result in report.results if result.passed and result.format not in for_others]
    micro = [result for result in report.results if result.passed and result.format == TFLITE_MICRO.name]
    return [
        _for_cpu(passed, report),
        _for_small_arm(passed),
        _for_gpu(passed, report.results),
        _for_microcontroller([*micro, *passed]),
    ]


def baselines(results: Iterable[ParityResult]) -> list[tuple[str, float]]:
    """(name, milliseconds) of what speed is compared with, those that were run here; ONNX Runtime's first."""
    times: dict[tuple[str, str], float] = {}
    for result in results:
        for entry in result.engines:
            if entry.device == "cpu" and entry.milliseconds:
                times[result.format, entry.backend] = entry.milliseconds
    return [(name, times[key]) for name, key in _BASELINES.items() if key in times]


def _fastest(results: Iterable[ParityResult], device: str) -> _Timed | None:
    """The fastest in the runtime's engines: TensorFlow is none for a device."""
    timed = []
    for result in results:
        for entry in result.engines:
            fits = entry.device == device and entry.backend != "tensorflow" and entry.verdict == "passed"
            if fits and entry.milliseconds is not None:
                timed.append(_Timed(entry.milliseconds, result, entry))
    return min(timed, key=lambda one: (one.milliseconds, one.result.size), default=None)


def _smallest(results: Iterable[ParityResult], family: str, precision: str = "") -> ParityResult | None:
    """The smallest of these formats, and of this precision if one is named."""
    fitting = [result for result in results if result.format.startswith(family)]
    if precision:
        fitting = [result for result in fitting if result.precision == precision]
    return min(fitting, key=attrgetter("size"), default=None)


def _for_cpu(passed: Sequence[ParityResult], report: Report) -> Recommendation:
    best = _fastest(passed, "cpu")
    if best is None:
        return Recommendation("CPU", "", "No artifact that passed was timed on a CPU here.")
    reason = f"The fastest on this machine: {milliseconds(best.milliseconds)} ms per photo in {best.entry.engine}"
    if report.machine is not None and report.machine.busy:
        reason += ", but the machine was busy: before you choose by speed, measure with unet-bench on a quiet one"
        return Recommendation("CPU", best.result.path.name, f"{reason}.{_cost(best.entry)}")
    for name, time in [*baselines(report.results), ("Keras predict", report.keras_milliseconds)]:
        if time is not None and time != best.milliseconds:
            times = ratio(time / best.milliseconds)
            reason += f", as fast as {name}" if times == "1" else f", {times} times as fast as {name}"
    return Recommendation("CPU", best.result.path.name, f"{reason}.{_cost(best.entry)}")


def _cost(entry: EngineResult) -> str:
    """The loss of accuracy, as a sentence after another."""
    metrics = entry.metrics
    if metrics is None:
        return ""
    if metrics.iou_change is None:
        return f" Agreement with the trained model: {percent(metrics.agreement)} %."
    return (
        f" Mean IoU changes by {signed(metrics.iou_change)} points, {metrics.worst_class} IoU, which loses most, by "
        f"{signed(metrics.worst_change)}."
    )


def _for_small_arm(passed: Sequence[ParityResult]) -> Recommendation:
    best = _smallest(passed, "tflite", "int8")
    what = "The smallest int8 TFLite"
    if best is None:
        best = _smallest(passed, "tflite")
        what = "No int8 TFLite passed; this is the smallest TFLite that did"
    if best is None:
        return Recommendation("Small Arm CPU", "", "No TFLite passed.")
    reason = f"{what}: {best.size:,} bytes. Speed was not measured on such a CPU."
    return Recommendation("Small Arm CPU", best.path.name, reason)


def _for_gpu(passed: Sequence[ParityResult], results: Sequence[ParityResult]) -> Recommendation:
    fitting = [result for result in passed if result.format in ("onnx", "onnx-float16")]
    smallest = _smallest(fitting, "onnx")
    if smallest is None:
        return Recommendation("GPU", "", "No float16 or float32 ONNX passed.")
    if fastest := _fastest(fitting, "cuda"):
        time = milliseconds(fastest.milliseconds)
        reason = f"The fastest float ONNX measured on CUDA here: {time} ms per photo in {fastest.entry.engine}."
        return Recommendation("GPU", fastest.result.path.name, reason + _cost(fastest.entry))
    why = "no CUDA device was tried"
    for result in results:
        for entry in result.engines:
            if entry.device == "cuda" and entry.not_checked:
                why = entry.not_checked
    reason = f"The smallest float ONNX that passed, {smallest.precision}, on the CPU. Not measured on a GPU: {why}"
    return Recommendation("GPU", smallest.path.name, reason.rstrip(".") + ".")


def _for_microcontroller(passed: Sequence[ParityResult]) -> Recommendation:
    if passed and passed[0].format == TFLITE_MICRO.name:
        folder = passed[0].path
        reason = (
            "The network as a C array; its report.md has operators, tensor arena and Ethos-U, all of them estimates."
        )
        return Recommendation("Microcontroller", folder.name, reason)
    best = _smallest(passed, "tflite-int8")
    if best is None:
        reason = "No full-integer int8 TFLite passed, and such devices run nothing else."
        return Recommendation("Microcontroller", "", reason)
    size = activation_bytes(best.path)
    reason = (
        f"Full-integer int8: {best.size:,} bytes of flash, and by its graph at least {size:,} bytes of RAM for "
        "activations. Not checked: whether the device's library has every operator."
    )
    return Recommendation("Microcontroller", best.path.name, reason)


def activation_bytes(path: Path) -> int:
    """Peak size of the activations of a ``.tflite``, with no operator working in place: RAM that a device must have
    besides its library's own memory and the operators' scratch."""
    model = Flatbuffer(path.read_bytes())
    first = dict.fromkeys(map(int, model.graph.inputs), 0)
    last: dict[int, int] = {}
    for place, operator in enumerate(model.operators):
        first |= dict.fromkeys(operator.outputs, place)
        last |= dict.fromkeys((*operator.inputs, *operator.outputs), place)
    count = len(model.operators)
    last |= dict.fromkeys(map(int, model.graph.outputs), count - 1)
    needed = [0] * count
    for index, start in first.items():
        for place in range(start, last.get(index, 0) + 1):
            needed[place] += model.size(index) * _BYTES[model.type(index)]
    return max(needed, default=0)
