"""Augmentation with Keras layers: photo and mask move together, colours change in the photo alone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers


class Augmenter:
    """Random flip, scale, shift and colour, each drawn per picture.

    Args:
        seed: the same seed gives the same sequence of pictures.
    """

    def __init__(self, seed: int) -> None:
        self._moves = [
            layers.RandomFlip("horizontal", seed=seed),
            # Negative zooms in. Reflection fills what comes into view: it has a truth, a constant has none.
            layers.RandomZoom((-0.4, 0.15), fill_mode="reflect", seed=seed + 1),
            layers.RandomTranslation(0.12, 0.12, fill_mode="reflect", seed=seed + 2),
        ]
        self._colours = layers.RandomColorJitter(
            value_range=(0, 255),
            brightness_factor=0.2,
            contrast_factor=0.25,
            saturation_factor=(0.3, 0.7),  # 0.5 leaves the saturation as it is
            hue_factor=0.03,
            seed=seed + 3,
        )

    def __call__(self, photos: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (n, h, w, 3) in 0..255 and uint8 (n, h, w) class ids -> the same shapes and types."""
        data: Any = {
            "images": photos.astype(np.float32),
            "segmentation_masks": masks[..., np.newaxis].astype(np.float32),
        }
        for layer in (*self._moves, self._colours):
            data = layer(data, training=True)
        moved = keras.ops.convert_to_numpy(data["images"])
        classes = keras.ops.convert_to_numpy(data["segmentation_masks"])
        # Rounded to what a device feeds: uint8.
        return np.clip(np.rint(moved), 0, 255).astype(np.uint8), np.rint(classes[..., 0]).astype(np.uint8)
