"""Photos that the gate saw, kept with both masks for the page: the worst one, and some that nobody chose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Panel:
    """One photo of the proof, and what the trained model and one artifact make of it."""

    name: str
    """Of the photo."""
    image: npt.NDArray[np.uint8]
    """As the model is fed, without the margin that it does not answer for: (h, w, 3), RGB in 0..255."""
    expected: npt.NDArray[np.uint8]
    """Class ids (h, w) of the trained model."""
    actual: npt.NDArray[np.uint8]
    """Class ids (h, w) of the artifact."""
    agreement: float
    """Share of pixels (0..1) with the same class."""


class PanelCollector:
    """Of one artifact in one engine: keeps the photo with the lowest agreement and the first ``keep_typical`` others.

    Memory is bounded whatever the number of photos: at most ``keep_typical`` + 2 of them are held.
    """

    def __init__(self, keep_typical: int = 2) -> None:
        self._keep_typical = keep_typical
        self._worst: Panel | None = None
        # One more than asked for: the worst may turn out to be among them.
        self._first: list[Panel] = []

    def add(
        self,
        names: Sequence[str],
        images: npt.NDArray[np.uint8],
        expected: npt.NDArray[np.float32],
        actual: npt.NDArray[np.float32],
    ) -> None:
        """One batch.

        Args:
            names: of the n photos.
            images: uint8 (n, h, w, 3), RGB in 0..255, NHWC.
            expected: probabilities (n, h', w', classes) of the trained model, h' and w' at most h and w.
            actual: of the artifact, likewise.
        """
        wanted, masks = (values.argmax(axis=-1).astype(np.uint8) for values in (expected, actual))  # (n, h', w')
        for name, image, one, other in zip(names, images, wanted, masks, strict=True):
            agreement = float((one == other).mean())
            is_worst = self._worst is None or agreement < self._worst.agreement
            is_first = len(self._first) <= self._keep_typical
            if is_worst or is_first:
                # Copies: a view would keep the whole batch.
                panel = Panel(name, _without_margin(image, one.shape), one.copy(), other.copy(), agreement)
                self._worst = panel if is_worst else self._worst
                if is_first:
                    self._first.append(panel)

    def panels(self) -> tuple[Panel, ...]:
        """The worst first, then the typical ones in the order in which they came; empty if nothing was added."""
        if self._worst is None:
            return ()
        others = [panel for panel in self._first if panel is not self._worst]
        return (self._worst, *others[: self._keep_typical])


def _without_margin(image: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """The middle (h', w', 3) of ``image``."""
    top, left = ((image.shape[axis] - shape[axis]) // 2 for axis in (0, 1))
    return image[top : top + shape[0], left : left + shape[1]].copy()
