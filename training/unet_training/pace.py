"""How fast a training goes, and how long it still takes. Times come from outside: nothing here reads a clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_FORWARD_SHARE = 1 / 3
"""Of a training step's time: going back takes about twice as long as going forward. Until a validation was seen."""


@dataclass
class _Loop:
    """One way through batches, of photos of ``pixels`` each; ``began`` and ``at`` in seconds of any clock."""

    photos: int
    pixels: int
    began: float
    builds: bool
    """Its first step compiles, which says nothing of the others."""
    at: float = 0.0
    done: int = 0
    left_out: int = 0
    since: float = 0.0
    """Photos and time of what is not counted."""

    def step(self, done: int, now: float) -> None:
        if not self.done:
            self.left_out, self.since = (done, now) if self.builds else (0, self.began)
        self.done, self.at = done, now

    @property
    def left(self) -> int:
        return self.photos - self.done

    @property
    def seconds(self) -> float:
        return self.at - self.since

    @property
    def work(self) -> int:
        """Pixels seen in ``seconds``."""
        return (self.done - self.left_out) * self.pixels


class Pace:
    """What an epoch's parts take.

    Args:
        sizes: height and width of the training photos in each epoch, pixels.
        photos: that an epoch trains on.
        validation: photos that are measured at its end, at the last of ``sizes``.
    """

    def __init__(self, sizes: Sequence[int], photos: int, validation: int) -> None:
        self.sizes, self._photos, self._validation = tuple(sizes), photos, validation
        self._epoch, self._began = 0, 0.0
        self._train: _Loop | None = None
        self._before: _Loop | None = None
        self._validated: _Loop | None = None
        self._validating = False
        self._built = 0.0, 0
        self._rest = 0.0

    def begin_epoch(self, epoch: int, now: float, *, builds: bool) -> None:
        """``epoch`` counts from 0; ``builds``: its first step may compile."""
        self._before, self._validating = self._train, False
        self._epoch, self._began = epoch, now
        self._train = _Loop(self._photos, self.sizes[epoch] ** 2, now, builds)

    def trained(self, photos: int, now: float) -> None:
        """``photos`` of this epoch are done."""
        assert self._train is not None
        first = not self._train.done
        self._train.step(photos, now)
        if first and self._train.builds:
            self._built = now - self._train.began, photos * self._train.pixels

    def begin_validation(self, now: float) -> None:
        self._validating = True
        # All are of one size: only the first one compiles.
        self._validated = _Loop(self._validation, self.sizes[-1] ** 2, now, builds=self._validated is None)

    def validated(self, photos: int, now: float) -> None:
        """``photos`` of this validation are done."""
        assert self._validated is not None
        self._validated.step(photos, now)

    def end_epoch(self, now: float) -> float:
        """Seconds of the whole epoch. What came after the validation is taken to come after the next ones too."""
        if self._validated is not None:
            self._rest = now - self._validated.at
        return now - self._began

    @property
    def photos_per_second(self) -> float:
        """Of this epoch's training steps; 0 before there was one."""
        loop = self._train
        if loop is None or not loop.done:
            return 0.0
        if loop.work and loop.seconds > 0:
            return (loop.done - loop.left_out) / loop.seconds
        return loop.done / max(loop.at - loop.began, 1e-9)  # one step, which compiled

    def seconds_left(self) -> float | None:
        """Of the whole training; None before there is anything to go by."""
        per_pixel = _per_pixel(self._train, self._before)
        if per_pixel is None or self._train is None:
            return None
        later = self.sizes[self._epoch + 1 :]
        pixels = self._train.left * self._train.pixels + self._photos * sum(size**2 for size in later)
        new_sizes = sum(one != other for one, other in pairwise(self.sizes[self._epoch :]))
        seconds, work = self._built
        building = max(0.0, seconds - per_pixel * work)  # of a step that compiles, what an ordinary one does not take
        return per_pixel * pixels + new_sizes * building + self._validations(len(later), per_pixel)

    def _validations(self, later: int, per_pixel: float) -> float:
        """Seconds of the rest of this epoch's and of ``later`` epochs' validations, and of what follows each."""
        pixels = self._validation * self.sizes[-1] ** 2
        one = (_per_pixel(self._validated) or per_pixel * _FORWARD_SHARE) * pixels
        share = 1.0 if not self._validating or self._validated is None else self._validated.left / self._validation
        return (later + share) * one + (later + 1) * self._rest


def _per_pixel(*loops: _Loop | None) -> float | None:
    """Seconds, over this loop and the one before: a single epoch's beginning would make the estimate jump."""
    seen = [loop for loop in loops if loop is not None and loop.work]
    seconds = sum(loop.seconds for loop in seen)
    return seconds / sum(loop.work for loop in seen) if seconds > 0 else None
