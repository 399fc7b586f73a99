"""The gate: run every artifact as a device will, beside the trained model, on photos it never saw.

Every engine that is installed runs it; one that is not is reported as not checked. An artifact that no engine here
can run has failed: nothing is accepted unseen.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_export.errors import ExportError
from unet_export.formats import Format
from unet_export.gate.gate import EngineResult, Gate, ParityResult, judge
from unet_export.gate.panels import PanelCollector
from unet_export.gate.runners import Run, Say, open_runners
from unet_export.gate.tally import Tally
from unet_export.photos import Photo, inputs
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.datasets.oxford_pets import open_trimap
from unet_runtime.core.errors import ModelFileError
from unet_runtime.core.geometry import model_labels
from unet_runtime.core.spec import ModelSpec

_BATCH = 8
"""Photos at a time: bounds memory whatever the number of photos."""

_SAY_EVERY = 64 * _BATCH

_ROUNDS = 9
"""Of timing: each artifact once a round, so that a drift of the machine's speed hits all."""

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Candidate:
    """An artifact to be proven."""

    format: Format
    path: Path
    gate: Gate


def prove(
    reference: Run,
    candidates: Sequence[Candidate],
    photos: Sequence[Photo],
    spec: ModelSpec,
    say: Say = lambda line: None,
) -> list[ParityResult]:
    """Measure every candidate, in every engine that can run it, against ``reference`` on ``photos``.

    Args:
        reference: the trained model in float32.
        candidates: artifacts as a device would get them.
        photos: with their trimaps where there are any; without, nothing is said of the truth.
        spec: of the model.
        say: receives a line every ``_SAY_EVERY`` photos.

    Returns:
        One result a candidate, in their order; a failed one is a result too.

    Raises:
        ImageError: a photo or trimap that cannot be read.
        ExportError: trimaps with other classes than the model.
    """
    judges = [
        [_Judge(runner, candidate.gate, spec) for runner in open_runners(candidate.format, candidate.path)]
        for candidate in candidates
    ]
    everyone = [judge for row in judges for judge in row]
    own, done = Tally(spec), 0
    for names, images, labels in _batches(photos, spec):
        expected = reference(images)
        own.add(expected, expected, labels)
        for one in everyone:
            one.check(names, images, expected, labels)
        done += len(names)
        if done % _SAY_EVERY == 0:
            say(f"{done} of {len(photos)} photos")
    _time(everyone, inputs(photos[:1], spec.input))
    return [
        ParityResult(
            candidate.format.name,
            candidate.format.precision,
            candidate.path,
            *_identity(candidate.path),
            candidate.gate,
            tuple(one.result(own) for one in row),
            _quantization(candidate.path),
            next((panels for one in row if (panels := one.panels.panels())), ()),
        )
        for candidate, row in zip(candidates, judges, strict=True)
    ]


class _Judge:
    """One artifact in one engine: its sums, and what went wrong with it."""

    def __init__(self, runner: EngineResult | tuple[EngineResult, Run], gate: Gate, spec: ModelSpec) -> None:
        # An engine that could not be opened is a result already.
        self._run: Run | None = None
        if isinstance(runner, tuple):
            self._result, self._run = runner
        else:
            self._result = runner
        self._gate = gate
        self._tally = Tally(spec)
        self.panels = PanelCollector()
        self.times: list[float] = []

    def check(
        self, names: Sequence[str], images: Images, expected: npt.NDArray[np.float32], labels: Images | None
    ) -> None:
        actual = self.run(images)
        if actual is None:
            return
        if actual.shape != expected.shape:
            self._fail(f"output {actual.shape}, expected {expected.shape}")
            return
        self._tally.add(expected, actual, labels)
        self.panels.add(names, images, expected, actual)

    def run(self, images: Images) -> npt.NDArray[np.float32] | None:
        """Probabilities, or None from now on."""
        if self._run is None:
            return None
        try:
            return self._run(images)
        except Exception as error:  # an engine's errors share no base; each is a failure of this artifact alone
            self._fail(f"cannot run it: {error}")
            return None

    def _fail(self, reason: str) -> None:
        self._result, self._run = replace(self._result, failures=(reason,)), None

    def result(self, own: Tally) -> EngineResult:
        if self._run is None:
            return self._result
        figures = self._tally.figures(own)
        return replace(
            self._result,
            figures=figures,
            histogram=self._tally.histogram(),
            failures=judge(figures, self._gate),
            milliseconds=statistics.median(self.times) if self.times else None,
        )


def milliseconds(call: Callable[[], object]) -> float:
    """Of one call, median of as many rounds as an artifact has; the first warms up."""
    times = []
    for _ in range(_ROUNDS + 1):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times[1:])


def _time(judges: Sequence[_Judge], images: Images) -> None:
    """Milliseconds of one photo; the first round warms up."""
    for turn in range(_ROUNDS + 1):
        for one in judges:
            start = time.perf_counter()
            if one.run(images) is not None and turn:
                one.times.append((time.perf_counter() - start) * 1000)


def _batches(photos: Sequence[Photo], spec: ModelSpec) -> Iterator[tuple[list[str], Images, Images | None]]:
    """(names, images (n, h, w, 3), class ids (n, h', w') or None without trimaps), n at most ``_BATCH``."""
    truth = all(photo.trimap is not None for photo in photos)
    for start in range(0, len(photos), _BATCH):
        batch = photos[start : start + _BATCH]
        labels = np.stack([_labels(photo, spec) for photo in batch]) if truth else None
        yield [photo.name for photo in batch], inputs(batch, spec.input), labels


def _labels(photo: Photo, spec: ModelSpec) -> Images:
    """Class ids at the model's output size: (h', w')."""
    assert photo.trimap is not None
    labels = open_trimap(photo.trimap)
    if labels.max() >= len(spec.classes):
        raise ExportError(
            f"{photo.trimap}: class {labels.max()}, but the model has {len(spec.classes)} classes "
            f"({', '.join(spec.class_names)}): the data is not what the model was trained on"
        )
    return model_labels(labels, spec.input)[spec.input.answered]


def _quantization(path: Path) -> dict[str, Any]:
    """As its spec records it; of one that cannot be read, which has failed already, nothing."""
    with suppress(ModelFileError):
        return {} if path.is_dir() else dict(read_artifact(path).spec.provenance.quantization)
    return {}


def _identity(path: Path) -> tuple[int, str]:
    """(bytes, SHA-256) of a file; of a SavedModel all its bytes, and the SHA-256 of its list of sums."""
    if path.is_dir():
        size = sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())
        return size, hashlib.sha256((path / "assets.extra" / "SHA256SUMS").read_bytes()).hexdigest()
    content = path.read_bytes()
    return len(content), hashlib.sha256(content).hexdigest()
