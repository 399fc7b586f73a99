"""Accuracy against what it costs: milliseconds in each engine, bytes, parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unet_training.compare.result import Row, ways
from unet_training.report import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 3
_PLACES = (
    (6, 0, "left"),
    (-6, 0, "right"),
    (5, 8, "left"),
    (-5, 8, "right"),
    (5, -8, "left"),
    (-5, -8, "right"),
    (0, 12, "center"),
    (0, -12, "center"),
    (5, 18, "left"),
    (5, -18, "left"),
    (-5, 18, "right"),
    (-5, -18, "right"),
)
"""Where a name may be, in points from its dot, the best first, and which of its ends is there."""
_BACKENDS = {"onnx": "ONNX Runtime", "tflite": "LiteRT", "openvino": "OpenVINO"}


class _Dot(NamedTuple):
    label: str
    cost: float
    accuracy: float

    @property
    def place(self) -> tuple[float, float]:
        return self.cost, self.accuracy


def draw(rows: Sequence[Row], path: Path) -> None:
    """One panel a cost, as PNG.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    panels = _panels(rows)
    lines = -(-len(panels) // _COLUMNS)
    figure = plots.figure(5.2 * _COLUMNS, 4.2 * lines)
    names = [row.label for row in rows]
    drawn = []
    for number, (title, dots) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(lines, _COLUMNS, number)
        _panel(axes, title, dots, names)
        drawn.append((axes, dots))
    figure.draw_without_rendering()  # until then nothing has its place
    for axes, dots in drawn:
        _write_names(axes, dots)
    plots.save(figure, path)


def _panels(rows: Sequence[Row]) -> dict[str, list[_Dot]]:
    result: dict[str, list[_Dot]] = {}
    for way in ways(rows):
        backend, precision = way.split(" ", 1)
        result[f"{_BACKENDS.get(backend, backend)} {precision}, ms"] = [
            _Dot(row.label, one.milliseconds, row.mean_iou + (one.iou_change or 0.0) / 100)
            for row in rows
            for one in row.artifacts
            if one.way == way
        ]
    files = {
        (one.precision, row.label): _Dot(row.label, one.bytes / 1e6, row.mean_iou)
        for row in rows
        for one in row.artifacts
        if one.backend != "openvino"
    }
    for precision in dict.fromkeys(precision for precision, _ in files):
        result[f"file, {precision}, MB"] = [dot for (kind, _), dot in files.items() if kind == precision]
    result["parameters, millions"] = [_Dot(row.label, row.parameters / 1e6, row.mean_iou) for row in rows]
    return result


def _panel(axes: Axes, title: str, dots: Sequence[_Dot], names: Sequence[str]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for dot in dots:
        axes.plot(dot.cost, dot.accuracy, "o", color=f"C{names.index(dot.label) % 10}")
    front = _front(dots)
    axes.plot([dot.cost for dot in front], [dot.accuracy for dot in front], color="0.6", linewidth=1, zorder=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.08, y=0.1)
    axes.set_title(title, fontsize=10)
    axes.set_ylabel("mean IoU", fontsize=9)
    axes.grid(True, which="both", alpha=0.25)
    axes.tick_params(labelsize=8)


def _write_names(axes: Axes, dots: Sequence[_Dot]) -> None:
    """Each beside its dot, where it covers no other name, no dot and no edge if there is such a place."""
    from matplotlib.transforms import Bbox

    taken = [
        Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in map(axes.transData.transform, [dot.place for dot in dots])
    ]
    for dot in dots:
        words = axes.annotate(
            plots.plain(dot.label), dot.place, textcoords="offset points", xytext=(0, 0), fontsize=7, va="center"
        )
        boxes: list[tuple[int, int, Bbox]] = []
        for x, y, side in _PLACES:
            words.set(position=(x, y), ha=side)
            box = words.get_window_extent()
            outside = not (axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1)
            boxes.append((outside + sum(box.overlaps(other) for other in taken), len(boxes), box))
        _, place, box = min(boxes, key=lambda entry: entry[:2])
        x, y, side = _PLACES[place]
        words.set(position=(x, y), ha=side)
        taken.append(box)


def _front(dots: Sequence[_Dot]) -> list[_Dot]:
    """Those that none is both cheaper and more accurate than, cheapest first."""
    front: list[_Dot] = []
    for dot in sorted(dots, key=lambda dot: (dot.cost, -dot.accuracy)):
        if not front or dot.accuracy > front[-1].accuracy:
            front.append(dot)
    return front
