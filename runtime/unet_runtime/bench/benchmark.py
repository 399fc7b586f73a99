"""The whole benchmark: plan in, report out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from unet_runtime.bench.advice import advise
from unet_runtime.bench.machine import this_machine
from unet_runtime.bench.measure import Row, Settings, add_accuracy, measure
from unet_runtime.bench.plan import Combination, Model, Refusal
from unet_runtime.bench.report import Report
from unet_runtime.core.datasets import Sample
from unet_runtime.core.errors import SourceError


def bench(
    combinations: Sequence[Combination],
    refusals: Sequence[Refusal],
    settings: Settings,
    labelled_photos: Callable[[Model], Sequence[Sample]],
) -> Report:
    """Measure every combination, then the accuracy of each model in each engine.

    Args:
        combinations: may be empty: the report then says why each model was refused.
        refusals: models that none of ``combinations`` runs.
        settings: how long to measure, and on what.
        labelled_photos: finds photos with labels for a model; where there are none, accuracy is not measured.
    """
    machine = this_machine()  # before the measurement, which is a load itself
    rows = []
    scored: dict[tuple[str, str, str], Row] = {}  # the number of threads changes no prediction
    photos = 0
    for row in measure(combinations, settings):
        key = (str(row.combination.model.path), row.combination.backend, row.device)
        if row.stages and key not in scored:
            try:
                samples = labelled_photos(row.combination.model)
                photos = max(photos, len(samples))
                scored[key] = add_accuracy(row, samples) if samples else row
            except SourceError as error:
                scored[key] = replace(row, error=str(error))
        if row.stages:
            row = replace(row, accuracy=scored[key].accuracy, error=scored[key].error)
        rows.append(row)
    return Report(machine, settings, tuple(rows), tuple(refusals), advise(rows, machine), photos)
