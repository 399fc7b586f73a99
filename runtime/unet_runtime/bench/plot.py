"""The report as a picture; the only module of the runtime that imports matplotlib."""

from __future__ import annotations

import importlib.util
from operator import attrgetter
from typing import Any, BinaryIO

import numpy as np

from unet_runtime.bench.measure import TOTAL, Row
from unet_runtime.bench.report import Report, label
from unet_runtime.bench.worker import STAGES
from unet_runtime.engines import ENGINES
from unet_runtime.io.kind import STAMP_KEY

# Okabe and Ito's palette: colour-blind readers can tell its colours apart too.
_COLOURS = dict(zip(STAGES, ("#56B4E9", "#009E73", "#D55E00", "#F0E442", "#999999"), strict=True))

_WIDTH = 11  # inches
_BAR_HEIGHT = 0.42  # inches per bar
MARK = {STAMP_KEY: "unet-bench"}
"""Text of the PNG, by which it is known as ours."""

_POINTS_HEIGHT = 4  # inches of the panel of points
_LEAST_IOU_RANGE = 0.02  # a smaller one would show rounding as if it were a gap

_MARKERS = dict(zip(ENGINES, "os^Dv<>", strict=False))


def available() -> bool:
    """Whether matplotlib is installed; does not import it."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(report: Report, file: BinaryIO) -> None:
    """Draw milliseconds by stage as bars, fastest first, and accuracy against milliseconds below where it is known.

    Args:
        report: at least one of its rows was measured.
        file: takes the PNG.
    """
    from matplotlib.figure import Figure  # not pyplot: it looks for a display

    rows = report.measured
    scored = list(filter(attrgetter("accuracy"), rows))
    heights = [_BAR_HEIGHT * len(rows) + 1.3, _POINTS_HEIGHT if scored else 0]
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    # Two subfigures: in one, the long names of the bars would squeeze the panel below too.
    parts: Any = figure.subfigures(2, 1, height_ratios=heights) if scored else [figure]
    _bars(parts[0].subplots(), rows)
    if scored:
        _points(parts[1].subplots(), scored)
    machine = report.machine
    title = f"{machine.cpu or machine.architecture}, {machine.cores} cores"
    if machine.load is not None:
        title += f", {'busy: ' if machine.busy else ''}load {machine.load:.1f}"
    parts[0].suptitle(title, fontsize=11)
    figure.savefig(file, dpi=120, format="png", metadata=MARK)


def _bars(axes: Any, rows: list[Row]) -> None:
    """A bar ends at the median of the whole time, its number; its parts are to each other as the stages' medians."""
    places = np.arange(len(rows))
    ends = np.zeros(len(rows))
    totals = np.array([row.stages[TOTAL].p50 for row in rows])
    medians = np.array([[row.stages[stage].p50 for stage in STAGES] for row in rows])  # (rows, stages)
    shares = totals[:, np.newaxis] * medians / medians.sum(axis=1, keepdims=True)
    for stage, widths in zip(STAGES, shares.T, strict=True):
        axes.barh(places, widths, left=ends, color=_COLOURS[stage], label=stage)
        ends += widths
    for place, row in enumerate(rows):
        text = f"{row.stages[TOTAL].p50:.1f}"
        axes.annotate(text, (ends[place], place), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(places, [label(row, rows) for row in rows])
    axes.invert_yaxis()
    axes.margins(x=0.08, y=0.02)
    axes.set_xlabel("milliseconds per photo, file to PNG: the median, shared among the stages by theirs")
    axes.legend(ncols=len(STAGES), loc="lower center", bbox_to_anchor=(0.4, 1), frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _points(axes: Any, rows: list[Row]) -> None:
    """Draw a line for each model in each engine, with a point for each number of threads."""
    lines: dict[str, list[tuple[float, float]]] = {}
    markers = {}
    for row in rows:
        assert row.accuracy
        point = (row.stages[TOTAL].p50, row.accuracy.mean_iou)
        line = label(row, rows, threads=False)
        lines.setdefault(line, []).append(point)
        markers[line] = _MARKERS.get(row.combination.backend, "D")
        threads = str(row.combination.threads)
        axes.annotate(threads, point, (0, 7), textcoords="offset points", ha="center", fontsize=8)
    for line, points in lines.items():
        axes.plot(*np.transpose(points), markers[line] + "-", markersize=8, linewidth=1, alpha=0.8, label=line)
    times, scores = np.transpose(np.concatenate(list(lines.values())))
    middle = (scores.max() + scores.min()) / 2
    half = max(np.ptp(scores), _LEAST_IOU_RANGE) * 0.65
    axes.set_ylim(middle - half, middle + half)
    axes.set_xlim(left=0, right=times.max() * 1.08)
    axes.set_xlabel("milliseconds per photo, file to PNG, median (above a point: threads)")
    axes.set_ylabel("mean IoU")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
