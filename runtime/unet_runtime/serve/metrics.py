"""What a process of the service counts; ``overview`` makes one text of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from unet_runtime import __version__
from unet_runtime.serve.models import Model, Models

CONTENT_TYPE = CONTENT_TYPE_LATEST

STAGES = ("body", "queue", "decode", "infer", "encode")
"""Stages of a request, in this order: received, waited, photo opened and resized, model, result made."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counters of one process; from any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        here = self._registry
        ProcessCollector(registry=here)
        self._requests = Counter("unet_requests", "Requests by route and status", ("route", "code"), registry=here)
        self._seconds = Histogram(
            "unet_request_seconds", "From head to response", ("route",), registry=here, buckets=_SECONDS
        )
        self._stages = Histogram(
            "unet_stage_seconds", "Stages of a request", ("stage",), registry=here, buckets=_SECONDS
        )
        self._refused = Counter("unet_refused", "Requests refused, by reason", ("reason",), registry=here)
        self._models = Gauge(
            "unet_model_ready",
            "1 where the model's last run succeeded; what really runs it",
            ("model", "version", "precision", "engine", "device"),
            registry=here,
        )
        Gauge("unet_info", "Version of unet-edge-runtime", ("version",), registry=here).labels(__version__).set(1)
        for stage in STAGES:  # there from the beginning, so that rates are defined
            self._stages.labels(stage)

    def watch(self, models: Models, waiting: Callable[[], int], running: Callable[[], int], most: int) -> None:
        """Report the state of models and queue whenever the metrics are read."""
        here = self._registry
        Gauge("unet_queue_waiting", "Requests that wait for a worker", registry=here).set_function(waiting)
        Gauge("unet_queue_running", "Requests that a worker works on", registry=here).set_function(running)
        Gauge("unet_queue_limit", "Requests that may wait", registry=here).set(most)
        for model in models:
            labels = (model.name, model.version, model.spec.precision, model.backend.engine, model.backend.device)
            self._models.labels(*labels).set_function(partial(_readiness, model))

    def count(self, route: str, status: int, seconds: float) -> None:
        """Note a request that has been answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def refuse(self, reason: str) -> None:
        """Note a request that found no room, or took too long."""
        self._refused.labels(reason).inc()

    def add(self, stage: str, seconds: float) -> None:
        """Note the time of one stage of a request."""
        self._stages.labels(stage).observe(seconds)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Time the block."""
        start = perf_counter()
        yield
        self.add(stage, perf_counter() - start)

    def families(self) -> list[Metric]:
        """All of them, as they are now."""
        return list(self._registry.collect())


def _readiness(model: Model) -> float:
    return float(not model.failure)
