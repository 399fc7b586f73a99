"""Tensors of model files that other tools made: what they are fed, and what they give, as their specs describe it.

Everything else of the runtime sees what unet-export's own files take and give: uint8 RGB NHWC, float32 NHWC with a
channel for each class. Those files never come here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unet_runtime.core.errors import BackendError
from unet_runtime.core.spec import ClassSpec, InputSpec, ModelSpec, OutputSpec

if TYPE_CHECKING:
    import numpy.typing as npt

_LUMA = (19595, 38470, 7471)
"""ITU-R 601 weights of red, green and blue in 1/65536, rounded as in Pillow's mode L."""

_ORDERS = {"rgb": (0, 1, 2), "bgr": (2, 1, 0)}


def input_sizes(spec: InputSpec) -> tuple[int, int, int]:
    """Sizes of the input tensor, without the batch."""
    size = (spec.height, spec.width)
    return (spec.depth, *size) if spec.layout == "nchw" else (*size, spec.depth)


def output_sizes(spec: ModelSpec) -> tuple[int, ...]:
    """Sizes of the output tensor, without the batch; class ids have no axis of channels."""
    result = spec.output
    size = (result.height, result.width)
    if result.kind == "labels":
        return size
    depth = 1 if result.kind == "mask" else len(spec.classes)
    return (depth, *size) if result.layout == "nchw" else (*size, depth)


def values(spec: InputSpec, scale: float = 0.0, zero_point: int = 0) -> npt.NDArray[Any]:
    """Value in the input tensor of each channel for each of the 256 values of a photo: (channels, 256).

    Args:
        spec: of the input.
        scale, zero_point: of the input tensor, where it is quantised; scale 0: it is not.
    """
    low, high = spec.range
    table = np.tile(low + np.arange(256) / 255 * (high - low), (spec.depth, 1))
    if spec.mean:
        table -= np.array(spec.mean)[:, np.newaxis]
    if spec.std:
        table /= np.array(spec.std)[:, np.newaxis]
    if scale:
        table = table / scale + zero_point
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return table.astype(dtype)
    limits = np.iinfo(dtype)
    return np.rint(table).clip(limits.min, limits.max).astype(dtype)


def fed(images: npt.NDArray[np.uint8], spec: InputSpec, table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """uint8 (n, h, w, 3) RGB 0..255 -> the input tensor; ``table``: as ``values``."""
    if spec.channels == "grey":
        weighted = images @ np.array(_LUMA, np.uint32)
        channels = [((weighted + 0x8000) >> 16).astype(np.uint8)]
    else:
        channels = [images[..., index] for index in _ORDERS[spec.channels]]
    tensor = np.empty((len(images), *input_sizes(spec)), table.dtype)
    planes = tensor if spec.layout == "nchw" else np.moveaxis(tensor, -1, 1)
    for index, channel in enumerate(channels):
        planes[:, index] = table[index][channel]
    return tensor


def maps(tensor: npt.NDArray[Any], count: int, spec: ModelSpec) -> npt.NDArray[np.float32]:
    """The output tensor for ``count`` photos -> float32 (count, h', w', classes): probabilities, or logits.

    A file may leave out axes of one element, or have rows and columns in one axis.

    Raises:
        BackendError: as many values as the spec does not say, or a class id that is none.
    """
    sizes = output_sizes(spec)
    expected = (count, *sizes)
    if tensor.size != np.prod(expected, dtype=np.int64):
        raise BackendError(f"the model's output is {tensor.shape}, its spec says {expected}: adopt it again")
    if spec.output.kind == "labels":
        return _one_hot(tensor.reshape(expected), spec.classes)
    planes = tensor.reshape(expected).astype(np.float32, copy=False)
    if spec.output.layout == "nchw":
        planes = np.moveaxis(planes, 1, -1)
    return _both(planes, spec.output) if spec.output.kind == "mask" else planes


def _both(mask: npt.NDArray[np.float32], spec: OutputSpec) -> npt.NDArray[np.float32]:
    """(..., 1) of the second class -> (..., 2) of both, the sigmoids of whose logits sum to 1."""
    rest = -mask if spec.logits else 1 - mask
    return np.concatenate([rest, mask], axis=-1)


def _one_hot(labels: npt.NDArray[Any], classes: tuple[ClassSpec, ...]) -> npt.NDArray[np.float32]:
    ids = np.rint(labels).astype(np.int64) if labels.dtype.kind == "f" else labels
    low, high = (int(ids.min()), int(ids.max())) if ids.size else (0, 0)
    if low < 0 or high >= len(classes):
        wrong = low if low < 0 else high
        raise BackendError(
            f"the model gives class id {wrong}, its spec has {len(classes)} classes, 0 to {len(classes) - 1}: adopt it "
            "again and name them all"
        )
    result = np.zeros((*ids.shape, len(classes)), np.float32)
    np.put_along_axis(result, ids[..., np.newaxis].astype(np.intp), 1, axis=-1)
    return result
