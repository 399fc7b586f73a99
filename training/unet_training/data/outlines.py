"""Pixels weighted by how near they are to outlines: the weight map of the U-Net's paper.

O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015,
equation 2: w0 * exp(-(d1 + d2)^2 / (2 sigma^2)), where d1 is the distance to the nearest object's outline and d2 to
that of the second nearest. What separates two objects weighs most. The paper's photos show many cells, a pet's mostly
one animal: of a single object the outline counts twice, d2 = d1.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class OutlineWeights:
    """Weights of the pixels of a batch."""

    foreground: Collection[int]
    """Classes whose connected pixels are an object."""
    weight: float
    """On an outline; the paper's w0."""
    sigma: float
    """Pixels; the paper's."""

    def __call__(self, masks: np.ndarray) -> np.ndarray:
        """Class ids (n, h, w) -> float32 (n, h, w), 0 far from any outline."""
        inside = np.isin(masks, list(self.foreground))
        return np.stack(list(map(self._weigh_one, inside)))

    def _weigh_one(self, inside: np.ndarray) -> np.ndarray:
        objects, count = ndimage.label(inside)
        if not count:
            return np.zeros(inside.shape, np.float32)
        nearest = second = np.full(inside.shape, np.inf)
        for number in range(1, count + 1):
            distance = _to_outline(objects == number)
            second = np.minimum(second, np.maximum(nearest, distance))
            nearest = np.minimum(nearest, distance)
        both = nearest + (second if count > 1 else nearest)
        return np.asarray(self.weight * np.exp(-(both**2) / (2 * self.sigma**2)), np.float32)


def _to_outline(inside: np.ndarray) -> np.ndarray:
    """Distance of each pixel from the outline: to the nearest pixel of the other side, less the half by which that lies
    behind the outline. An object that fills the photo has no outline."""
    if inside.all():
        return np.full(inside.shape, np.inf)
    distance: np.ndarray = np.where(
        inside, ndimage.distance_transform_edt(inside), ndimage.distance_transform_edt(~inside)
    )
    return distance - 0.5
