"""Array -> Pillow image, mode RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from unet_runtime.core.errors import ImageError

if TYPE_CHECKING:
    import numpy.typing as npt

Channels = Literal["rgb", "bgr"]
"""Order of an array's colours: ``bgr`` is OpenCV's."""

EXPECTED = "uint8 (height, width, 3) RGB, (height, width, 4) RGBA or (height, width) grey"

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""By number of channels."""


def check_channels(channels: str) -> None:
    """Refuse an order of colours that is none.

    Raises:
        ValueError: neither ``rgb`` nor ``bgr``.
    """
    if channels not in ("rgb", "bgr"):
        raise ValueError(f"channels {channels!r}, expected 'rgb' or 'bgr'")


def array_image(array: npt.NDArray[Any], channels: Channels = "rgb") -> Image.Image:
    """An array as a Pillow image: L, RGB or RGBA.

    Args:
        array: uint8, grey (H, W) or (H, W, 1), colour (H, W, 3), or colour and opacity (H, W, 4).
        channels: order of its colours.

    Raises:
        ImageError: of another shape or type.
    """
    count = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or count not in _MODES or array.dtype != np.uint8 or array.size == 0:
        hint = "; values in 0..1 want (255 * array).round().astype('uint8')" if array.dtype.kind == "f" else ""
        raise ImageError(f"array {array.dtype}{array.shape}, expected {EXPECTED}{hint}")
    if count == 1:
        return Image.fromarray(array.reshape(array.shape[:2]))
    if channels == "bgr":
        array = array[..., [2, 1, 0, 3][:count]]
    return Image.fromarray(array)
