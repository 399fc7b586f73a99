"""The result of one photo: probabilities on the model's grid; mask and opacity at the photo's own size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from unet_runtime.core import masks, render
from unet_runtime.core.geometry import Placement
from unet_runtime.core.photo import limit_opacity
from unet_runtime.core.spec import ModelSpec

if TYPE_CHECKING:
    import numpy.typing as npt


class Result(Protocol):
    """What is saved: a ``Segmentation``, or one made of tiles."""

    @property
    def photo(self) -> Image.Image: ...

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def mask(self) -> npt.NDArray[np.uint8]: ...

    @property
    def opacity(self) -> npt.NDArray[np.uint8]: ...

    def probability_bands(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]: ...


class Pictures:
    """The pictures that every result can make of itself."""

    def mask_image(self: Result) -> Image.Image:
        """Mode L: pixel value = class id."""
        return render.mask_image(self.mask)

    def palette_image(self: Result) -> Image.Image:
        """Mode P: pixel value = class id, coloured as the spec says."""
        return render.palette_image(self.mask, self.spec)

    def overlay(self: Result) -> Image.Image:
        """RGB: the photo, its classes tinted."""
        return render.overlay(self.photo, self.mask, self.spec)

    def cutout(self: Result) -> Image.Image:
        """RGBA: the foreground alone, with a soft edge."""
        return render.cutout(self.photo, self.opacity)

    def __repr__(self: Result) -> str:
        width, height = self.photo.size
        return f"{type(self).__name__}({width}x{height}, {self.spec.name}: {', '.join(self.spec.class_names)})"


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation(Pictures):
    """What a model says of one photo; pictures of it are made when asked for.

    ``mask`` and ``opacity`` are made once and kept. Any thread may ask for them.
    """

    photo: Image.Image
    """RGB, upright, at its own size (W, H)."""
    probabilities: npt.NDArray[np.float32]
    """float32 (h, w, C) on the model's grid, the model's output: a sigmoid model's do not sum to 1."""
    spec: ModelSpec
    placement: Placement
    """Where the photo lies in the grid."""
    _made: dict[str, npt.NDArray[np.uint8]] = field(default_factory=dict, init=False)

    @property
    def mask(self) -> npt.NDArray[np.uint8]:
        """Class ids, uint8 (H, W), at the photo's own size."""
        return self._once("mask", lambda: masks.class_mask(self._planes, self.photo.size))

    @property
    def opacity(self) -> npt.NDArray[np.uint8]:
        """Opacity of each pixel in a cut-out, uint8 (H, W): 0 background .. 255 foreground; at most the photo's own."""
        return self._once("opacity", self._opacity)

    def _opacity(self) -> npt.NDArray[np.uint8]:
        return limit_opacity(masks.opacity(self._planes, self.photo.size, self.spec), self.photo)

    def probability_bands(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Probabilities at the photo's own size, a band of rows at a time: memory stays bounded whatever the size.

        Yields:
            (top, band) from the top down: the band's first row, and float32 (rows, W, C); ``mask`` is their argmax.
        """
        return masks.probability_bands(self._planes, self.photo.size)

    @property
    def _planes(self) -> npt.NDArray[np.float32]:
        return masks.photo_planes(self.probabilities, self.placement, self.spec)

    def _once(self, name: str, make: Callable[[], npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
        # Not functools.cached_property: before Python 3.12 it makes the threads of all photos take turns
        # (https://github.com/python/cpython/issues/87634).
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]
