"""What all processes of a service know together: their counters and their health, as one text and one answer each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from unet_runtime import __version__

_SUMMED = ("counter", "histogram")
"""Types of metrics whose values are added."""

_SUMMED_GAUGES = ("unet_queue_waiting", "unet_queue_running", "unet_queue_limit")
_OF_A_PROCESS = "process_"
_CREATED = "_created"
"""End of the name of a sample that is a time."""

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Report:
    """What one process of the service knows of itself."""

    worker: int
    """Its number, from 1."""
    metrics: list[Metric]
    waiting: int
    """Requests that no thread has begun."""
    running: int
    limit: int
    """Requests that may wait."""
    is_ending: bool
    models: list[dict[str, Any]]
    """``Model.state`` of each."""


@dataclass(frozen=True)
class Overview:
    """All processes of a service."""

    reports: Sequence[Report]
    """Reports of the workers that run."""
    wanted: int = 1
    """How many there should be."""
    restarts: int = 0
    """How often one was begun in the place of another."""
    past: Sequence[Metric] = field(default=())
    """Counts of those that have ended."""

    @property
    def models(self) -> list[dict[str, Any]]:
        """State of each model: once where all processes say the same, else each of its states."""
        states: list[dict[str, Any]] = []
        for report in self.reports:
            states += [state for state in report.models if state not in states]
        return states

    @property
    def is_ending(self) -> bool:
        """Whether the service takes no more requests."""
        return any(report.is_ending for report in self.reports)

    @property
    def is_ready(self) -> bool:
        """Whether every model's last run succeeded, in every process that runs."""
        return not self.is_ending and all(state["ready"] for state in self.models)

    def is_model_ready(self, name: str, version: str) -> bool:
        """Whether a model's last run succeeded, in every process that runs."""
        states = [state for state in self.models if (state["name"], state["version"]) == (name, version)]
        return all(state["ready"] for state in states)

    def health(self) -> dict[str, Any]:
        """For people and programs; ``status``: ``ok``, ``degraded`` (a process is missing), ``failing``, ``ending``."""
        running = len(self.reports)
        status = "degraded" if running < self.wanted else "ok"
        if not self.is_ready:
            status = "ending" if self.is_ending else "failing"
        return {
            "status": status,
            "version": __version__,
            "workers": running,
            "workers_wanted": self.wanted,
            "waiting": sum(report.waiting for report in self.reports),
            "running": sum(report.running for report in self.reports),
            "limit": sum(report.limit for report in self.reports),
            "models": self.models,
        }

    def metrics(self) -> bytes:
        """What Prometheus reads: counters and queues of all processes together, ``process_...`` of each by number."""
        families = [list(self.past)]
        for report in self.reports:
            families.append(_numbered(report.metrics, report.worker) if self.wanted > 1 else report.metrics)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Fixed([*_merged(families), *self._own()]))
        return generate_latest(registry)

    def _own(self) -> list[Metric]:
        workers = Metric("unet_workers", "Processes that answer requests", "gauge")
        workers.add_sample("unet_workers", {}, len(self.reports))
        restarts = Metric("unet_worker_restarts", "Processes that were begun in the place of others", "counter")
        restarts.add_sample("unet_worker_restarts_total", {}, self.restarts)
        return [workers, restarts]


def added(past: Sequence[Metric], gone: Report) -> list[Metric]:
    """``past`` with the counts of a process that has ended, which stay true: a total never falls."""
    counted = []
    for metric in gone.metrics:
        if metric.type in _SUMMED and not metric.name.startswith(_OF_A_PROCESS):
            counted.append(metric)
    return _merged([past, counted])


class _Fixed(Collector):
    """Metrics as they are."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _numbered(metrics: Iterable[Metric], worker: int) -> list[Metric]:
    """The same, with the process's number at what is its own: memory and processor time."""
    found = []
    for metric in metrics:
        if metric.name.startswith(_OF_A_PROCESS):
            own = Metric(metric.name, metric.documentation, metric.type)
            for sample in metric.samples:
                own.add_sample(sample.name, {**sample.labels, "worker": str(worker)}, sample.value)
            metric = own
        found.append(metric)
    return found


def _merged(families: Iterable[Sequence[Metric]]) -> list[Metric]:
    """One metric of each name, whose samples are those of all processes together."""
    metrics: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, Labels], list[float]]] = {}
    for family in families:
        for metric in family:
            metrics.setdefault(metric.name, metric)
            samples = values.setdefault(metric.name, {})
            for sample in metric.samples:
                samples.setdefault((sample.name, tuple(sample.labels.items())), []).append(sample.value)
    merged = []
    for name, metric in metrics.items():
        together = Metric(name, metric.documentation, metric.type)
        for (sample_name, labels), found in values[name].items():
            together.add_sample(sample_name, dict(labels), _rule(metric, sample_name)(found))
        merged.append(together)
    return merged


def _rule(metric: Metric, sample: str) -> Callable[[list[float]], float]:
    """How the values of several processes become one: a model is ready where it is ready in all of them."""
    if sample.endswith(_CREATED):
        return min
    return sum if metric.type in _SUMMED or metric.name in _SUMMED_GAUGES else min
