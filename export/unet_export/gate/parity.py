"""The gate: run every artifact as a device will, beside the trained model, on photos that it never saw.

Every engine that is installed runs it; one that is not is reported as not checked. An artifact that no engine here
can run has failed: nothing is accepted unseen.
"""

from __future__ import annotations

import hashlib
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_export.formats import Format
from unet_export.formats.web import SUMS_NAME, leave_out
from unet_export.gate.browser import Page
from unet_export.gate.gate import (
    GATES,
    ROUNDING,
    EngineResult,
    Exact,
    Gate,
    Panel,
    ParityResult,
    exact_tolerance,
    judge,
    masks_of,
)
from unet_export.gate.runners import ExactRun, Run, open_runners
from unet_export.gate.tally import Tally
from unet_export.photos import Photo, inputs
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.errors import ModelFileError
from unet_runtime.core.geometry import grid_labels
from unet_runtime.core.spec import ModelSpec

logger = logging.getLogger(__name__)

_BATCH = 8
"""Photos at a time: bounds memory whatever the number of photos."""

_LOG_EVERY = 64 * _BATCH

_ROUNDS = 9
"""Rounds of timing: each artifact once a round, so that a drift of the machine's speed affects all."""

_TYPICAL = 2
"""Photos kept for the page beside the worst one."""

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Candidate:
    """An artifact to be proven."""

    format: Format
    path: Path
    gate: Gate
    part_gates: Mapping[str, Gate] = field(default_factory=lambda: GATES)
    """Tolerances of the parts that it can be without, by precision."""


def prove(
    reference: Run,
    candidates: Sequence[Candidate],
    photos: Sequence[Photo],
    spec: ModelSpec,
    exact: Callable[[], ExactRun] | None = None,
) -> list[ParityResult]:
    """Measure every candidate, in every engine that can run it, against ``reference`` on ``photos``.

    A float32 artifact that is too far from ``reference`` by no more than rounding explains is compared with what
    ``exact`` returns, the trained model in float64: ``reference`` rounds, too, and may be the one that is wrong.

    Without labels, IoU against the truth is not measured. The results are in the candidates' order. Raises ImageError
    for a photo or labels that cannot be read.
    """
    with ExitStack() as stack:
        return _prove(reference, candidates, photos, spec, exact, stack)


def _prove(
    reference: Run,
    candidates: Sequence[Candidate],
    photos: Sequence[Photo],
    spec: ModelSpec,
    exact: Callable[[], ExactRun] | None,
    stack: ExitStack,
) -> list[ParityResult]:
    trials: list[list[_Trial]] = []
    every_trial: list[_Trial] = []
    for candidate in candidates:
        row = []
        for result, run in open_runners(candidate.format, candidate.path, stack):
            gate = candidate.part_gates[result.part] if result.part else candidate.gate
            row.append(_Trial(result, run, gate, spec))
        trials.append(row)
        every_trial += row
    reference_tally = Tally(spec)
    done = 0
    for images, labels in _batches(photos, spec):
        expected = reference(images)
        reference_tally.add(expected, expected, labels)
        for trial in every_trial:
            trial.check(images, expected, labels)
        done += len(images)
        if done % _LOG_EVERY == 0:
            logger.info("%d of %d photos", done, len(photos))
    for trial in every_trial:
        trial.check_photos(photos)
    _compare_exactly(every_trial, reference, photos, spec, exact)
    first = inputs(photos[:1], spec.input)
    times = iter(milliseconds([partial(trial.run, first) for trial in every_trial]))
    results = []
    for candidate, row in zip(candidates, trials, strict=True):
        form, path = candidate.format, candidate.path
        engines = _without_failed_parts(path, [trial.result(reference_tally, next(times)) for trial in row])
        quantization = _quantization(path)
        panels = _panels(row, photos, reference, spec) if quantization else ()
        identity = _identity(path)
        results.append(
            ParityResult(form.name, form.precision, path, *identity, candidate.gate, engines, quantization, panels)
        )
    return results


def _without_failed_parts(path: Path, engines: Sequence[EngineResult]) -> tuple[EngineResult, ...]:
    """The results of an artifact from which the parts that failed are removed."""
    kept = []
    for entry in engines:
        if entry.part and entry.failures:
            logger.warning("%s: without its %s model: %s", path.name, entry.part, "; ".join(entry.failures))
            leave_out(path, entry.part)
        else:
            kept.append(entry)
    return tuple(kept)


def _compare_exactly(
    trials: Sequence[_Trial],
    reference: Run,
    photos: Sequence[Photo],
    spec: ModelSpec,
    exact: Callable[[], ExactRun] | None,
) -> None:
    """Compare the trials that ask for it with the trained model in float64."""
    asking = [trial for trial in trials if trial.asks_for_exact]
    if exact is None or not asking:
        return
    logger.info("comparing %d float32 artifacts with the trained model in float64", len(asking))
    try:
        run = exact()
        noise = np.float64(0)
        for images, _ in _batches(photos, spec):
            expected = run(images)
            noise = np.maximum(noise, np.abs(reference(images) - expected).max())
            for trial in asking:
                trial.check_exactly(images, expected)
    except Exception as error:  # a layer that is float32 alone raises anything: the verdicts stay
        logger.warning("the trained model cannot be computed in float64: %s", error)
        return
    for trial in asking:
        trial.noise = float(noise)


class _Trial:
    """One artifact in one engine: its sums, and what went wrong with it."""

    def __init__(self, result: EngineResult, run: Run | None, gate: Gate, spec: ModelSpec) -> None:
        self._result, self._run, self._gate = result, run, gate
        self._tally = Tally(spec, gate.margin)
        self._photo_failures: tuple[str, ...] = ()
        self.agreements: list[float] = []
        """Share of pixels (0..1) with the same class, per photo."""
        self.noise: float | None = None
        """Largest difference of a probability of the trained model in float32 from float64, where it was compared."""
        self._exact_abs = np.float64(0)

    @property
    def asks_for_exact(self) -> bool:
        """Whether it is a float32 artifact that rounding may have brought over the tolerance, which nobody changed."""
        tolerance = GATES["float32"].max_abs
        return self._run is not None and self._gate.max_abs == tolerance < self._tally.max_abs <= ROUNDING

    def check_exactly(self, images: Images, expected: npt.NDArray[np.float64]) -> None:
        """Compare one batch with the trained model in float64."""
        actual = self.run(images)
        if actual is not None:
            self._exact_abs = np.maximum(self._exact_abs, np.abs(actual - expected).max())

    def check(self, images: Images, expected: npt.NDArray[np.float32], labels: Images | None) -> None:
        """Compare one batch with ``expected``."""
        actual = self.run(images)
        if actual is None:
            return
        if actual.shape != expected.shape:
            self._fail(f"output {actual.shape}, expected {expected.shape}")
            return
        self.agreements += self._tally.add(expected, actual, labels).tolist()

    def check_photos(self, photos: Sequence[Photo]) -> None:
        """Compare what an artifact that opens photos by itself makes of them."""
        if isinstance(self._run, Page):
            self._photo_failures = self._run.failures(photos)

    def run(self, images: Images) -> npt.NDArray[np.float32] | None:
        """Probabilities; None from the first failure on."""
        if self._run is None:
            return None
        try:
            return self._run(images)
        except Exception as error:  # engines' errors share no base; each is a failure of this artifact alone
            self._fail(f"cannot run it: {error}")
            return None

    def _fail(self, reason: str) -> None:
        self._result = replace(self._result, failures=(reason,))
        self._run = None

    def result(self, reference: Tally, time: float) -> EngineResult:
        """The engine's result; ``reference``: the trained model's tally on the same batches; ``time``: milliseconds."""
        if self._run is None:
            return self._result
        metrics = self._tally.metrics(reference)
        gate, exact = self._gate, None
        if self.noise is not None:
            exact = Exact(float(self._exact_abs), self.noise, exact_tolerance(self.noise))
            if exact.passed:
                gate = replace(gate, max_abs=metrics.max_abs)
        return replace(
            self._result,
            metrics=metrics,
            histogram=self._tally.histogram(),
            failures=judge(metrics, gate) + self._photo_failures,
            milliseconds=time,
            exact=exact,
        )


def _panels(trials: Sequence[_Trial], photos: Sequence[Photo], reference: Run, spec: ModelSpec) -> tuple[Panel, ...]:
    """The photo with the lowest agreement, then the first others, with the masks of the first engine that ran."""
    for trial in trials:
        if trial.agreements:
            worst = int(np.argmin(trial.agreements))
            chosen = [photos[worst], *photos[:worst], *photos[worst + 1 :]][: 1 + _TYPICAL]
            images = inputs(chosen, spec.input)
            actual = trial.run(images)
            if actual is not None:
                masks = masks_of(reference(images)), masks_of(actual)  # (n, h', w')
                names = map(attrgetter("name"), chosen)
                return tuple(map(Panel, names, images[:, *spec.input.valid], *masks))
    return ()


def milliseconds(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Median time of each call over rounds in which each has its turn; the first round warms up."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(_ROUNDS + 1):
        for call, measured in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            measured.append((time.perf_counter() - start) * 1000)
    return [statistics.median(measured[1:]) for measured in times]


def _batches(photos: Sequence[Photo], spec: ModelSpec) -> Iterator[tuple[Images, Images | None]]:
    """(images (n, h, w, 3), class ids (n, h', w') or None without labels), n at most ``_BATCH``."""
    has_truth = all(map(attrgetter("labels"), photos))
    for start in range(0, len(photos), _BATCH):
        batch = photos[start : start + _BATCH]
        labels = np.stack([_labels(photo, spec) for photo in batch]) if has_truth else None
        yield inputs(batch, spec.input), labels


def _labels(photo: Photo, spec: ModelSpec) -> Images:
    """Class ids at the model's output size: (h', w')."""
    assert photo.labels is not None
    return grid_labels(photo.labels.read(), spec)


def _quantization(path: Path) -> dict[str, Any]:
    """Settings that the artifact's spec records; empty for a file that cannot be read, which has failed already."""
    with suppress(ModelFileError):
        return {} if path.is_dir() else dict(read_artifact(path).spec.provenance.quantization)
    return {}


def _identity(path: Path) -> tuple[int, str]:
    """(bytes, SHA-256) of a file; for a folder, bytes of all its files and SHA-256 of its list of sums."""
    if path.is_dir():
        files = filter(Path.is_file, path.rglob("*"))
        size = sum(file.stat().st_size for file in files)
        (sums,) = path.rglob(SUMS_NAME)
        return size, hashlib.sha256(sums.read_bytes()).hexdigest()
    content = path.read_bytes()
    return len(content), hashlib.sha256(content).hexdigest()
