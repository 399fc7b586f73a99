"""What the measurements mean: the fastest, whether int8 pays on this CPU, what could be tried besides, what to type.

Times of a busy machine advise nothing, and neither do differences as large as those between two runs of one model.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from operator import attrgetter

from unet_runtime.bench.machine import Machine
from unet_runtime.bench.measure import TOTAL, Row
from unet_runtime.bench.plan import thread_count
from unet_runtime.bench.report import label
from unet_runtime.core.install import pip_command
from unet_runtime.core.text import ratio
from unet_runtime.engines import ENGINES, installed

_NOISE = 0.05
"""Share by which the medians of two runs of one model differ even where the machine is quiet."""

_ARM = ("aarch64", "arm64", "armv7l", "armv6l")


def advise(rows: Sequence[Row], machine: Machine) -> tuple[str, ...]:
    """Sentences about the rows; none about rows without measurements."""
    measured = sorted(filter(attrgetter("stages"), rows), key=_total)
    sentences: list[str] = []
    if machine.busy and measured:
        sentences.append("No advice: the machine was busy with other work. Measure again when it is quiet")
    elif measured:
        sentences += [*_best(measured), *_int8(measured, machine)]
    tried = {row.combination.backend for row in rows}
    for name, engine in ENGINES.items():
        if name not in tried and not installed(name):
            sentences.append(f"Not installed, so not measured: {name} ({pip_command(engine.extra)})")
    if measured:
        sentences.append(f"To run {'the first line' if machine.busy else 'it'}:\n  {_command(_chosen(measured))}")
    return tuple(sentences)


def _best(rows: Sequence[Row]) -> Iterable[str]:
    """The fastest, or all that are as fast as far as this measurement can tell; the most accurate."""
    first, *others = _fastest(rows)
    yield (
        f"Fastest: {label(first, rows)}: {_total(first):.1f} ms per photo, {_inference(first):.1f} ms of it inference; "
        f"{first.photos_a_second:.1f} photos/s"
    )
    for other in others:
        yield f"As fast, within what two runs differ by: {label(other, rows)}: {_total(other):.1f} ms"
    scores = {row.accuracy.mean_iou: row for row in reversed(rows) if row.accuracy}
    if len(scores) > 1:
        top = max(scores)
        yield f"Most accurate: {label(scores[top], rows, threads=False)}: mean IoU {top:.4f}"


def _int8(rows: Sequence[Row], machine: Machine) -> Iterable[str]:
    """Name each int8 row that is slower than its float32 counterpart, and say why."""
    slower = False
    for row in rows:
        full = _float32(row, rows)
        if row.combination.model.spec.precision != "int8" or full is None:
            continue
        if _differs(row, full, _inference(row), _inference(full)) and _inference(row) > _inference(full):
            slower = True
            yield (
                f"int8 is slower here with {thread_count(row.combination.threads)}: {label(row, rows, threads=False)} "
                f"takes {_inference(row):.1f} ms for an inference, {label(full, rows, threads=False)} "
                f"{_inference(full):.1f} ms: {ratio(_inference(row) / _inference(full))} times as long"
            )
    if slower:
        yield _reason(machine)


def _float32(row: Row, rows: Sequence[Row]) -> Row | None:
    """The row that an int8 row is compared with: float32 in the same engine, else in the fastest other one."""
    candidates = []
    for other in rows:
        if other.combination.model.spec.precision == "float32" and _conditions(other) == _conditions(row):
            candidates.append(other)
    same_engine = [other for other in candidates if other.combination.backend == row.combination.backend]
    return min(same_engine or candidates, key=_inference, default=None)


def _conditions(row: Row) -> tuple[str, str, int]:
    """The weights, the device and the number of threads: what two rows must share to be compared."""
    spec = row.combination.model.spec
    return spec.provenance.weights_sha256 or spec.name, row.device, row.combination.threads


def _fastest(rows: Sequence[Row]) -> list[Row]:
    """Select the fastest of the sorted rows, and those that the noise does not tell from it."""
    return [row for row in rows if row is rows[0] or not _differs(rows[0], row, _total(rows[0]), _total(row))]


def _differs(one: Row, other: Row, of_one: float, of_other: float) -> bool:
    """Whether two times differ by more than two runs of one model do, here and in general."""
    noise = max(_NOISE, one.spread, other.spread)
    return max(of_one, of_other) > (1 + noise) * min(of_one, of_other)


def _chosen(rows: Sequence[Row]) -> Row:
    """Select the most accurate of the fastest rows, where accuracy was measured."""
    return max(_fastest(rows), key=lambda row: row.accuracy.mean_iou if row.accuracy else 0.0)


def _command(row: Row) -> str:
    """What runs a row's model as it was measured."""
    combination = row.combination
    words = ["unet-run", "photo.jpg", "--model", str(combination.model.path), "--backend", combination.backend]
    if combination.device != "auto":
        words += ["--device", combination.device]
    return shlex.join([*words, "--threads", str(combination.threads)])


def _total(row: Row) -> float:
    return row.stages[TOTAL].p50


def _inference(row: Row) -> float:
    return row.stages["inference"].p50


def _reason(machine: Machine) -> str:
    wanted = "dot-product instructions (dotprod, i8mm)" if machine.architecture in _ARM else "VNNI or AMX instructions"
    if machine.multiplies_int8 is None:
        return f"int8 is fast on CPUs with {wanted}; this system does not say whether its CPU has them"
    if machine.multiplies_int8:
        return (
            f"This CPU has {wanted}, so its engine is what costs time: layers without an int8 kernel (in ONNX Runtime "
            "ConvTranspose) run in float32 between conversions, and small layers spend more on rounding than they save"
        )
    return (
        f"This CPU has no {wanted}: it multiplies 8-bit integers in several steps, where float32 takes one. "
        "int8 still makes the file smaller"
    )
