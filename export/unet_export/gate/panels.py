"""Photos with both masks, for people to look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Panel:
    """One photo of the proof with the masks of the trained model and of one artifact."""

    name: str
    """Name of the photo."""
    image: npt.NDArray[np.uint8]
    """The pixels that the masks cover, as fed to the model: (h, w, 3), RGB in 0..255."""
    expected: npt.NDArray[np.uint8]
    """Class ids (h, w) of the trained model."""
    actual: npt.NDArray[np.uint8]
    """Class ids (h, w) of the artifact."""

    @property
    def agreement(self) -> float:
        """Share of pixels (0..1) with the same class."""
        return float((self.expected == self.actual).mean())


def masks_of(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Probabilities (..., classes) -> class ids (...)."""
    masks: npt.NDArray[np.uint8] = probabilities.argmax(axis=-1).astype(np.uint8)
    return masks


def without_margin(images: npt.NDArray[np.uint8], size: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """The middle (n, h', w', 3) of ``images``: unpadded convolutions make masks of that alone.

    Args:
        images: (n, h, w, 3).
        size: (h', w'), at most (h, w).
    """
    top = (images.shape[1] - size[0]) // 2
    left = (images.shape[2] - size[1]) // 2
    return images[:, top : top + size[0], left : left + size[1]]
