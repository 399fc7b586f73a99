"""Accuracy against what it costs: milliseconds in each engine, bytes, parameters."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unet_runtime import engines
from unet_training.compare.result import Row, variants
from unet_training.report.canvas import label_decades, new_figure, plain, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 3
_COLORS, _MARKERS = 10, "os^D"


class Dot(NamedTuple):
    """A network in one panel."""

    label: str
    cost: float
    mean_iou: float
    passed: bool = True
    """Whether its file passed the gate."""


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw one panel per cost, as PNG.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    panels = panels_of(rows)
    lines = -(-len(panels) // _COLUMNS)
    figure = new_figure(5.2 * _COLUMNS, 4.2 * lines + 0.9)
    figure.suptitle(plain(title_of(rows)), fontsize=12)
    order = [row.label for row in rows]
    for number, (title, dots) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(lines, _COLUMNS, number)
        for dot in dots:
            index = order.index(dot.label)
            marker = _MARKERS[index // _COLORS % len(_MARKERS)]
            face = None if dot.passed else "none"
            color = f"C{index % _COLORS}"
            axes.plot(dot.cost, dot.mean_iou, marker, color=color, markerfacecolor=face, label=plain(dot.label))
            if not dot.passed:
                axes.plot(dot.cost, dot.mean_iou, "x", color=color, markersize=4)
        _decorate(axes, title, dots)
    handles, labels = axes.get_legend_handles_labels()  # the last panel has them all
    if not all(dot.passed for dots in panels.values() for dot in dots):
        handles += axes.plot([], [], "o", color="0.4", markerfacecolor="none")
        labels.append("hollow: failed its gate")
    figure.legend(handles, labels, loc="outside lower center", ncols=6)
    save(figure, path, "Accuracy against cost")


def title_of(rows: Sequence[Row]) -> str:
    """Data, size of the input and number of test photos; of each only what is the same for all networks."""
    found = [set(map(attrgetter(name), rows)) for name in ("data", "size", "photos")]
    (data, *more_data), sizes, (photos, *more_photos) = map(sorted, found)
    parts = ["several data sets" if more_data else data or "data that the models do not name"]
    parts.append(f"inputs of {' and '.join(map(str, sizes))} pixels" if len(sizes) < 3 else "inputs of several sizes")
    parts.append(f"mean IoU on {photos:,} test photos" if photos and not more_photos else "mean IoU on test photos")
    return "; ".join(parts)


def panels_of(rows: Sequence[Row]) -> dict[str, list[Dot]]:
    """Title -> dots: time in every engine, size of every file, and last, with every network, parameters."""
    times: dict[str, list[Dot]] = {variant: [] for variant in variants(rows)}
    sizes: dict[str, dict[str, Dot]] = {}
    for row in rows:
        for one in row.artifacts:
            mean_iou = row.mean_iou + (one.iou_change or 0.0) / 100
            times[one.variant].append(Dot(row.label, one.milliseconds, mean_iou, one.passed))
            if one.backend != "openvino":  # it has no file of its own
                dot = Dot(row.label, one.bytes / 1e6, row.mean_iou, one.passed)
                sizes.setdefault(one.precision, {})[row.label] = dot
    panels = {}
    for variant, dots in times.items():
        backend, precision = variant.split(" ", 1)
        panels[f"{engines.find(backend).label} {precision}, ms"] = dots
    for precision, by_label in sizes.items():
        panels[f"file, {precision}, MB"] = list(by_label.values())
    panels["parameters, millions"] = [Dot(row.label, row.parameters / 1e6, row.mean_iou) for row in rows]
    return panels


def _decorate(axes: Axes, title: str, dots: Sequence[Dot]) -> None:
    front = pareto_front(dots)
    axes.plot([dot.cost for dot in front], [dot.mean_iou for dot in front], color="0.6", linewidth=1, zorder=0)
    axes.set_xscale("log")
    label_decades(axes.xaxis)
    axes.margins(x=0.08, y=0.1)
    axes.set_title(title, fontsize=10)
    axes.set_ylabel("mean IoU", fontsize=9)
    axes.grid(True, which="both", alpha=0.25)
    axes.tick_params(labelsize=8)


def pareto_front(dots: Sequence[Dot]) -> list[Dot]:
    """Those that none is both cheaper and more accurate than, cheapest first; what failed its gate is none of them."""
    front: list[Dot] = []
    for dot in sorted(filter(attrgetter("passed"), dots), key=lambda dot: (dot.cost, -dot.mean_iou)):
        if not front or dot.mean_iou > front[-1].mean_iou:
            front.append(dot)
    return front
