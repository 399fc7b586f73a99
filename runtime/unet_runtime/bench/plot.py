"""The report as one picture; the only module of the runtime that imports matplotlib."""

from __future__ import annotations

import importlib.util
from typing import Any, BinaryIO

from unet_runtime.bench.measure import TOTAL, Row
from unet_runtime.bench.report import Report, name
from unet_runtime.bench.worker import STAGES
from unet_runtime.engines import ENGINES

INSTALL = 'pip install "unet-edge-runtime[bench]"'

# Okabe and Ito's palette: told apart by colour-blind readers too.
_COLOURS = dict(zip(STAGES, ("#56B4E9", "#009E73", "#D55E00", "#F0E442", "#999999"), strict=True))
_WIDTH, _BAR, _POINTS = 11, 0.42, 4  # inches: the figure, one bar, the panel of points

_LEAST_IOU_RANGE = 0.02  # of that panel: a smaller one would make a gap of what is rounding

_MARKERS = "os^Dv<>"  # of the engines, in the order of ``ENGINES``


def available() -> bool:
    """Whether matplotlib is installed; does not import it."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(report: Report, file: BinaryIO) -> None:
    """Milliseconds by stage as bars, fastest first; where there is accuracy, accuracy against milliseconds below.

    Args:
        report: with at least one row that was measured.
        file: takes the PNG.
    """
    from matplotlib.figure import Figure  # not pyplot: it looks for a display

    rows = sorted(report.measured, key=lambda row: row.stages[TOTAL].p50)
    scored = [row for row in rows if row.accuracy]
    heights = [_BAR * len(rows) + 1.3, _POINTS if scored else 0]
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    # Parts of their own: names as long as the bars' would squeeze the panel below too.
    parts: Any = figure.subfigures(2, 1, height_ratios=heights) if scored else [figure]
    _bars(parts[0].subplots(), rows)
    if scored:
        _points(parts[1].subplots(), scored)
    machine = report.machine
    parts[0].suptitle(f"{machine.cpu or machine.architecture}, {machine.cores} cores", fontsize=11)
    figure.savefig(file, dpi=120, format="png")


def _bars(axes: Any, rows: list[Row]) -> None:
    left = [0.0] * len(rows)
    places = range(len(rows))
    for stage in STAGES:
        widths = [row.stages[stage].p50 for row in rows]
        axes.barh(places, widths, left=left, color=_COLOURS[stage], label=stage)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, (end, row) in enumerate(zip(left, rows, strict=True)):
        axes.annotate(f"{row.stages[TOTAL].p50:.1f}", (end, place), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(places, [name(row, rows) for row in rows])
    axes.invert_yaxis()
    axes.margins(x=0.08, y=0.02)
    axes.set_xlabel("milliseconds a photo, file to PNG: medians of the stages, and of the whole (number)")
    axes.legend(ncols=len(STAGES), loc="lower center", bbox_to_anchor=(0.4, 1), frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _points(axes: Any, rows: list[Row]) -> None:
    """A line for each model in each engine, a point on it for each number of threads."""
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(name(row, rows, threads=False), []).append(row)
    scores = [row.accuracy.mean_iou for row in rows if row.accuracy]
    for label, group in lines.items():
        times = [row.stages[TOTAL].p50 for row in group]
        heights = [row.accuracy.mean_iou for row in group if row.accuracy]
        marker = _MARKERS[list(ENGINES).index(group[0].combination.backend) % len(_MARKERS)]
        axes.plot(times, heights, marker + "-", markersize=8, linewidth=1, alpha=0.8, label=label)
        for row, x, y in zip(group, times, heights, strict=True):
            axes.annotate(
                str(row.combination.threads), (x, y), (0, 7), textcoords="offset points", ha="center", fontsize=8
            )
    middle, half = (max(scores) + min(scores)) / 2, max(max(scores) - min(scores), _LEAST_IOU_RANGE) * 0.65
    axes.set_ylim(middle - half, middle + half)
    axes.set_xlim(left=0, right=max(row.stages[TOTAL].p50 for row in rows) * 1.08)
    axes.set_xlabel("milliseconds a photo, file to PNG, median (above a point: threads)")
    axes.set_ylabel("mean IoU")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
