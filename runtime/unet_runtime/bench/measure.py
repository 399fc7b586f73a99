"""Take turns, sum up: rounds of child processes -> one row of figures for each combination."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unet_runtime.bench import children
from unet_runtime.bench.children import Answer, Start
from unet_runtime.bench.plan import Combination, thread_count
from unet_runtime.bench.worker import STAGES
from unet_runtime.core.errors import BackendError
from unet_runtime.core.metrics import iou
from unet_runtime.core.timings import Timings

TOTAL = "total"
"""All stages of one photo together."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How long and on what."""

    photos: tuple[Path, ...]
    """Readable ones; at least one."""
    rounds: int = 5
    """Turns of each combination, each in a new process."""
    photos_a_round: int = 20
    """Timed in each turn; with fewer ``photos`` they come again."""
    kind: str = "mask"
    """Picture that is made and encoded: one of ``worker.KINDS``."""

    def turn(self, index: int) -> list[Path]:
        """Photos of round ``index``: the same for every combination."""
        first = index * self.photos_a_round
        return [self.photos[place % len(self.photos)] for place in range(first, first + self.photos_a_round)]


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds a photo, over the photos of all rounds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Accuracy:
    """Against trimaps, on the model's own grid; over all pixels of all photos."""

    photos: int
    mean_iou: float
    """Of the classes that the truth has."""
    class_iou: dict[str, float]
    left_out: tuple[str, ...]
    """Photos that could not be read, and why."""


@dataclass(frozen=True)
class Row:
    """What is known of one combination; without ``stages`` if it failed."""

    combination: Combination
    error: str = ""
    """Why it, or its accuracy, could not be measured."""
    engine: str = ""
    device: str = ""
    note: str = ""
    photos: int = 0
    """Timed, in all rounds together."""
    stages: dict[str, Percentiles] = field(default_factory=dict)
    """By ``worker.STAGES``, and ``TOTAL``."""
    photos_a_second: float = 0.0
    """One after another, from file to PNG; median of the rounds."""
    peak_memory: int | None = None
    """Bytes; the largest of the rounds."""
    cold_start: Start | None = None
    """Seconds; medians of the rounds."""
    accuracy: Accuracy | None = None


def measure(combinations: Sequence[Combination], settings: Settings, say: Say = lambda line: None) -> list[Row]:
    """Run every combination once a round, so that a drift of the machine's speed hits all of them alike.

    Args:
        combinations: one that fails is not tried again, and is a row that says why.
        settings: how long and on what.
        say: receives a line before each process.

    Returns:
        One row a combination, in their order.
    """
    answers: list[list[Answer]] = [[] for _ in combinations]
    errors = [""] * len(combinations)
    for turn in range(settings.rounds):
        for place, combination in enumerate(combinations):
            if errors[place]:
                continue
            say(f"round {turn + 1} of {settings.rounds}, {place + 1} of {len(combinations)}: {title(combination)}")
            try:
                answers[place].append(children.time_photos(combination, settings.turn(turn), settings.kind))
            except BackendError as error:
                errors[place] = str(error)
    return [
        Row(combination, error=error) if error else _row(combination, results)
        for combination, results, error in zip(combinations, answers, errors, strict=True)
    ]


def title(combination: Combination) -> str:
    """``pets.int8.tflite, tflite, 2 threads``."""
    return f"{combination.model.path.name}, {combination.backend}, {thread_count(combination.threads)}"


def _row(combination: Combination, answers: Sequence[Answer]) -> Row:
    timings, rates = Timings(), []
    for answer in answers:
        samples = answer.result["samples"]
        for sample in samples:
            for stage, seconds in zip((*STAGES, TOTAL), (*sample, sum(sample)), strict=True):
                timings.add(stage, seconds)
        rates.append(len(samples) / sum(map(sum, samples)))
    memory = [peak for answer in answers if (peak := answer.result["peak_memory"]) is not None]
    return Row(
        combination,
        engine=answers[0].engine,
        device=answers[0].device,
        note=answers[0].note,
        photos=timings.count(TOTAL),
        stages={stage: Percentiles(*timings.percentiles(stage, 50, 95, 99)) for stage in timings.stages},
        photos_a_second=statistics.median(rates),
        peak_memory=max(memory, default=None),
        cold_start=Start(*(statistics.median(parts) for parts in zip(*(a.start for a in answers), strict=True))),
    )


def accuracy(combination: Combination, pairs: Sequence[tuple[Path, Path]]) -> Accuracy:
    """Compare a combination's answers with trimaps.

    Args:
        combination: of a model with the trimap's classes.
        pairs: photos and their trimaps, at least one.

    Raises:
        BackendError: the process failed, the model has other classes, or no photo can be read.
    """
    result = children.compare_photos(combination, pairs).result
    matrix, problems = np.array(result["matrix"], np.int64), tuple(result["problems"])
    if not matrix.any():
        raise BackendError(f"accuracy: none of {len(pairs)} photos can be used; the first: {problems[0]}")
    present = [index for index, line in enumerate(matrix) if line.any()]
    values = iou(matrix)
    names = combination.model.spec.class_names
    return Accuracy(
        photos=len(pairs) - len(problems),
        mean_iou=float(values[present].mean()),
        class_iou={names[index]: float(values[index]) for index in present},
        left_out=problems,
    )
