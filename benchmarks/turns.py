"""Calls that take turns, round after round, so that a drift of the machine's speed affects all of them alike."""

from __future__ import annotations

import operator
import statistics
import time
from collections.abc import Callable, Iterable, Mapping


def take_turns(calls: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each call in each round, by the calls' names.

    Args:
        calls: what is timed, by name.
        rounds: how often each is timed.
        warm_up: rounds before them that do not count.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(warm_up + rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds = time.perf_counter() - start
            if index >= warm_up:
                taken[name].append(seconds)
    return taken


def median_ratio(values: Iterable[float], others: Iterable[float]) -> float:
    """Median over the rounds of value / other in the same round."""
    return statistics.median(map(operator.truediv, values, others))


def median_difference(values: Iterable[float], others: Iterable[float]) -> float:
    """Median over the rounds of value - other in the same round."""
    return statistics.median(map(operator.sub, values, others))
