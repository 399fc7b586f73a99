"""The whole way: plan in, report out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from unet_runtime.bench.advice import advise
from unet_runtime.bench.machine import this_machine
from unet_runtime.bench.measure import Accuracy, Row, Say, Settings, accuracy, measure, title
from unet_runtime.bench.photos import Pair
from unet_runtime.bench.plan import Combination, Model, Refusal
from unet_runtime.bench.report import Report
from unet_runtime.core.errors import BackendError, SourceError

Truth = Callable[[Model], Sequence[Pair]]
"""Photos with trimaps for a model; empty: its accuracy is not measured."""


def bench(
    combinations: Sequence[Combination],
    refusals: Sequence[Refusal],
    settings: Settings,
    truth: Truth,
    say: Say = lambda line: None,
) -> Report:
    """Measure every combination, then the accuracy of each model in each engine.

    Args:
        combinations: may be empty: the report then says why each model was refused.
        refusals: models that none of ``combinations`` runs.
        settings: how long and on what.
        truth: photos with trimaps.
        say: receives a line before each process.
    """
    machine = this_machine()  # before the measurement, which is a load itself
    rows = measure(combinations, settings, say)
    known: dict[tuple[str, str, str], Accuracy | str] = {}  # the number of threads changes no answer
    photos = 0
    for place, row in enumerate(rows):
        if not row.stages:
            continue
        key = (str(row.combination.model.path), row.combination.backend, row.device)
        if key not in known:
            say(f"accuracy: {title(row.combination)}")
            known[key], count = _accuracy(row, truth)
            photos = max(photos, count)
        rows[place] = _with(row, known[key])
    return Report(machine, settings, tuple(rows), tuple(refusals), advise(rows, machine), photos)


def _accuracy(row: Row, truth: Truth) -> tuple[Accuracy | str, int]:
    """The accuracy, or why there is none ("" if none was asked for), and the number of photos asked."""
    try:
        pairs = truth(row.combination.model)
        return (accuracy(row.combination, pairs) if pairs else ""), len(pairs)
    except (BackendError, SourceError) as error:
        return str(error), 0


def _with(row: Row, result: Accuracy | str) -> Row:
    return replace(row, error=result) if isinstance(result, str) else replace(row, accuracy=result)
