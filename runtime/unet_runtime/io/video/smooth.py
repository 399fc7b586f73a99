"""Probabilities smoothed over frames of a camera or video, except where the picture moves: less flicker, no ghosts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from unet_runtime.core.spec import ModelSpec

_BLOCK = 4  # pixels of the model's grid, squared, whose mean grey is compared: a camera's noise is averaged away
_STILL, _MOVED = 4.0, 16.0  # grey levels of 255. Up to the first a block counts as unchanged, from the second on as new
_CUT = 0.5
"""Share of blocks that are new from which the scene is another one."""


class Smoother:
    """Exponential average of probabilities over frames, each place as far as its picture has not changed.

    Args:
        strength: share of the past in each new frame, 0 (none) .. below 1.
        spec: of the model.

    Raises:
        ValueError: a strength outside 0 .. 1.
    """

    def __init__(self, strength: float, spec: ModelSpec) -> None:
        if not 0 <= strength < 1:
            raise ValueError(f"smoothing of {strength}, expected 0 or more and less than 1")
        self.strength = strength
        self.resets = 0
        """Scenes that began anew."""
        self._valid = spec.input.valid
        self._size = (spec.output.width, spec.output.height)
        self._blocks = (max(1, spec.output.width // _BLOCK), max(1, spec.output.height // _BLOCK))
        self._past: npt.NDArray[np.float32] | None = None  # (h', w', C)
        self._scene: npt.NDArray[np.float32] | None = None  # grey (blocks), averaged as the probabilities are

    def __call__(self, image: npt.NDArray[np.uint8], probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Smooth one frame's probabilities.

        Args:
            image: uint8 (1, h, w, 3) RGB, the model's input.
            probabilities: float32 (h', w', C), its output; left as it is.

        Returns:
            float32 (h', w', C); ``probabilities`` themselves for the first frame of a scene.
        """
        if self.strength == 0:
            return probabilities
        scene = self._grey_blocks(image)
        if self._past is None or self._scene is None:
            self._past, self._scene = probabilities, scene
            return probabilities
        # Against the averaged scene, not the last frame: slow movement adds up until it is noticed.
        change = np.abs(scene - self._scene)
        if (change > _MOVED).mean() > _CUT:
            self.resets += 1
            self._past, self._scene = probabilities, scene
            return probabilities
        # Beside what moves the model's output changes too.
        weights = self.strength * np.clip((_MOVED - _widened(change)) / (_MOVED - _STILL), 0, 1)  # (blocks)
        self._scene = scene + weights * (self._scene - scene)
        share = np.asarray(Image.fromarray(weights).resize(self._size, Image.Resampling.BILINEAR))[..., np.newaxis]
        smoothed: npt.NDArray[np.float32] = probabilities + share * (self._past - probabilities)
        self._past = smoothed
        return smoothed

    def _grey_blocks(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Mean grey of each block of the picture that the output covers: float32 (blocks high, blocks wide)."""
        covered = image[(0, *self._valid)]
        grey = Image.fromarray(np.ascontiguousarray(covered)).convert("L").resize(self._blocks, Image.Resampling.BOX)
        return np.asarray(grey, np.float32)


def _widened(blocks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The largest of each block and the eight around it."""
    rows, columns = blocks.shape
    padded = np.pad(blocks, 1)  # changes are not negative
    wide = np.maximum(np.maximum(padded[:, :columns], padded[:, 1:-1]), padded[:, 2:])
    widened: npt.NDArray[np.float32] = np.maximum(np.maximum(wide[:rows], wide[1:-1]), wide[2:])
    return widened
