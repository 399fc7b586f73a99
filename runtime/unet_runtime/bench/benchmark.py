"""The whole benchmark: plan in, report out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from unet_runtime.bench.advice import advise
from unet_runtime.bench.machine import this_machine
from unet_runtime.bench.measure import Row, Settings, accuracy, measure, title
from unet_runtime.bench.photos import Pair
from unet_runtime.bench.plan import Combination, Model, Refusal
from unet_runtime.bench.report import Report
from unet_runtime.core.errors import BackendError, SourceError

logger = logging.getLogger(__name__)

LabelledPhotos = Callable[[Model], Sequence[Pair]]
"""Photos with trimaps for a model; none of them: its accuracy is not measured."""


def bench(
    combinations: Sequence[Combination],
    refusals: Sequence[Refusal],
    settings: Settings,
    labelled_photos: LabelledPhotos,
) -> Report:
    """Measure every combination, then the accuracy of each model in each engine.

    Args:
        combinations: may be empty: the report then says why each model was refused.
        refusals: models that none of ``combinations`` runs.
        settings: how long to measure, and on what.
        labelled_photos: photos with trimaps.
    """
    machine = this_machine()  # before the measurement, which is a load itself
    rows = []
    scored: dict[tuple[str, str, str], Row] = {}  # the number of threads changes no prediction
    photos = 0
    for row in measure(combinations, settings):
        if row.stages:
            key = (str(row.combination.model.path), row.combination.backend, row.device)
            if key not in scored:
                scored[key], count = _with_accuracy(row, labelled_photos)
                photos = max(photos, count)
            row = replace(row, accuracy=scored[key].accuracy, error=scored[key].error)
        rows.append(row)
    return Report(machine, settings, tuple(rows), tuple(refusals), advise(rows, machine), photos)


def _with_accuracy(row: Row, labelled_photos: LabelledPhotos) -> tuple[Row, int]:
    """Add the accuracy, or why there is none; also return the number of photos with trimaps."""
    logger.info("accuracy: %s", title(row.combination))
    try:
        pairs = labelled_photos(row.combination.model)
        if not pairs:
            return row, 0
        return replace(row, accuracy=accuracy(row.combination, pairs)), len(pairs)
    except (BackendError, SourceError) as error:
        return replace(row, error=str(error)), 0
