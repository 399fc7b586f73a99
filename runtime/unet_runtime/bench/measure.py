"""Combinations take turns in processes of their own; what they measured becomes one row for each."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from unet_runtime.bench.children import run_worker
from unet_runtime.bench.plan import Combination, thread_count
from unet_runtime.bench.worker import STAGES
from unet_runtime.core.datasets import Sample
from unet_runtime.core.errors import BackendError
from unet_runtime.core.metrics import iou, mean_iou

logger = logging.getLogger(__name__)

TOTAL = "total"
"""All stages of one photo together."""


@dataclass(frozen=True)
class Settings:
    """How long to measure, and on what."""

    photos: tuple[Path, ...]
    """Readable ones; at least one."""
    rounds: int = 5
    """Turns of each combination, each in a new process."""
    photos_a_round: int = 20
    """Photos timed in each turn; ``photos`` are repeated where they are fewer."""
    picture: str = "mask"
    """Picture that is made and encoded: one of ``worker.KINDS``."""

    def round_photos(self, index: int) -> list[Path]:
        """Photos of round ``index``, the same for every combination."""
        first = index * self.photos_a_round
        return list(itertools.islice(itertools.cycle(self.photos), first, first + self.photos_a_round))


@dataclass(frozen=True)
class ColdStart:
    """Milliseconds from the start of a process to its first result."""

    total: float
    """From the start of the process until its first photo was segmented and encoded."""
    load: float
    """Part of it: the engine imported, the model read, verified and prepared."""
    first: float
    """Part of it: the first photo, from its file to a PNG. What remains is Python and the runtime's imports."""


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds per photo, over the photos of all rounds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Accuracy:
    """Predictions against labels on the model's own grid, over all pixels of all photos."""

    photos: int
    mean_iou: float
    """Mean over the classes that occur in the labels."""
    class_iou: dict[str, float]
    left_out: tuple[str, ...]
    """One text for each photo that could not be read: which, and why."""


@dataclass(frozen=True)
class Row:
    """Measurements of one combination; ``stages`` is empty if it failed."""

    combination: Combination
    device: str = ""
    engine: str = ""
    note: str = ""
    error: str = ""
    """Why the combination, or its accuracy, could not be measured."""
    photos: int = 0
    """Photos timed, in all rounds together."""
    stages: dict[str, Percentiles] = field(default_factory=dict)
    """By ``worker.STAGES``, and ``TOTAL``."""
    photos_a_second: float | None = None
    """Photos per second, one after another, from file to PNG: the inverse of the median time."""
    spread: float = 0.0
    """How far the rounds' medians of the whole time lie apart, as a share of ``stages``' own."""
    cold_start: ColdStart | None = None
    """Medians of the rounds."""
    peak_memory: int | None = None
    """Bytes; the largest of the rounds."""
    accuracy: Accuracy | None = None


def measure(combinations: Sequence[Combination], settings: Settings) -> list[Row]:
    """Run every combination once in each round, so that a drift of the machine's speed affects all of them alike.

    Args:
        combinations: one that fails is not tried again; its row has the reason.
        settings: how long, and on what.

    Returns:
        One row per combination, in their order.
    """
    results: list[list[dict[str, Any]]] = [[] for _ in combinations]
    errors = [""] * len(combinations)
    for index in range(settings.rounds):
        photos = settings.round_photos(index)
        for place, combination in enumerate(combinations):
            if errors[place]:
                continue
            progress = f"round {index + 1} of {settings.rounds}, {place + 1} of {len(combinations)}"
            logger.info("%s: %s", progress, title(combination))
            try:
                results[place].append(run_worker(combination, photos, settings.picture))
            except BackendError as error:
                errors[place] = str(error)
    rows = []
    for combination, rounds, problem in zip(combinations, results, errors, strict=True):
        rows.append(Row(combination, error=problem) if problem else _row(combination, rounds))
    return rows


def title(combination: Combination) -> str:
    """``pets.int8.tflite, tflite, 2 threads``."""
    return f"{combination.model.path.name}, {combination.backend}, {thread_count(combination.threads)}"


def _row(combination: Combination, rounds: Sequence[dict[str, Any]]) -> Row:
    """Summarise what the workers of all rounds measured."""
    starts, totals, memory = [], [], []
    for result in rounds:
        stages = np.array(result["samples"])  # seconds (photos, stages)
        starts.append(tuple(result["cold_start"].values()))
        totals.append(np.column_stack([stages, stages.sum(axis=1)]))
        memory.append(result["peak_memory"] or 0)
    milliseconds = np.concatenate(totals) * 1000  # (photos, stages and total)
    percentiles = np.percentile(milliseconds, (50, 95, 99), axis=0)  # (3, stages and total)
    medians = [np.median(total[:, -1]) * 1000 for total in totals]
    by_stage = {}
    for stage, values in zip((*STAGES, TOTAL), percentiles.T.tolist(), strict=True):
        by_stage[stage] = Percentiles(*values)
    return Row(
        combination,
        device=rounds[0]["device"],
        engine=rounds[0]["engine"],
        note=rounds[0]["note"],
        photos=len(milliseconds),
        stages=by_stage,
        photos_a_second=1000 / by_stage[TOTAL].p50,
        spread=float(max(medians) - min(medians)) / by_stage[TOTAL].p50,
        cold_start=ColdStart(*np.median(starts, axis=0).tolist()),
        peak_memory=max(memory) or None,
    )


def add_accuracy(row: Row, samples: Sequence[Sample]) -> Row:
    """Compare a combination's predictions with labels.

    Args:
        row: its measurements so far.
        samples: photos with the model's class ids, at least one.

    Returns:
        The row with its accuracy, or with the reason why it has none.
    """
    logger.info("accuracy: %s", title(row.combination))
    try:
        result = run_worker(row.combination, [samples[0].photo], samples=samples)
    except BackendError as error:
        return replace(row, error=str(error))
    problems = tuple(result["problems"])
    matrix = np.array(result["matrix"], np.int64)
    if not matrix.any():
        problem = f"accuracy: none of {len(samples)} photos can be used; the first: {problems[0]}"
        return replace(row, error=problem)
    values = iou(matrix)
    names = row.combination.model.spec.class_names
    by_class = {names[index]: float(values[index]) for index in np.flatnonzero(~np.isnan(values))}
    return replace(row, accuracy=Accuracy(len(samples) - len(problems), mean_iou(values), by_class, problems))
