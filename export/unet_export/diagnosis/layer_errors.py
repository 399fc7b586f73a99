"""Where an integer file departs from its float32 twin: both run on the same photos, tensor beside tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float32]

NARROW = 0.01
"""A channel that uses less of the tensor's range has two or three of int8's 256 values."""


@dataclass(frozen=True)
class Grid:
    """The values that a quantised activation can take: ``scale * (q - zero_point)``, ``lowest <= q <= highest``."""

    scale: float
    zero_point: int
    lowest: int
    highest: int

    @property
    def low(self) -> float:
        return self.scale * (self.lowest - self.zero_point)

    @property
    def high(self) -> float:
        return self.scale * (self.highest - self.zero_point)

    def rounded(self, values: Values) -> Values:
        """The nearest value of the grid, for each of ``values``."""
        steps = np.rint(values / np.float32(self.scale)).clip(
            self.lowest - self.zero_point, self.highest - self.zero_point
        )
        result: Values = steps * np.float32(self.scale)
        return result


@dataclass(frozen=True)
class Tensor:
    """An activation that both files have."""

    name: str
    layer: str
    """The Keras layer that makes it, of fused ones that with the weights; empty where none can be told."""
    sources: tuple[str, ...]
    """Names of the activations it is computed from."""
    readers: tuple[str, ...]
    """Layers that are computed from it."""
    channel_axis: int
    grid: Grid | None
    """None: the integer file holds it in float."""
    weights_noise: float | None
    """Of the kernel behind it, by ``noise_to_signal`` over its input channels; None without a kernel."""


class Pair(Protocol):
    """A float file and its integer twin, opened for inspection; see ``onnx_tensors.py`` and ``tflite_tensors.py``."""

    @property
    def tensors(self) -> Sequence[Tensor]:
        """In the order of computation."""
        ...

    def run(self, image: npt.NDArray[np.uint8]) -> Iterator[tuple[str, Values, Values]]:
        """One photo, uint8 (1, h, w, 3) -> name, values in the float file, values in the other, dequantised."""
        ...


@dataclass(frozen=True)
class LayerError:
    """What the integer file makes of one activation, over all photos.

    Noise is the difference to the float file. ``noise`` and what follows from it is the mean over channels of noise
    power over signal power, each channel capped at 1, which is a channel lost: the power of a whole tensor is that of
    its loudest channels, and would hide that all others are gone.
    """

    layer: str
    """As ``Tensor.layer``."""
    tensor: str
    readers: tuple[str, ...]
    """Layers that read it: a tensor is precise only if those that make and read it are."""
    sqnr: float
    """Signal-to-quantisation-noise ratio of the tensor as a whole, dB."""
    noise: float
    """Noise-to-signal ratio, 0..1, of the mean channel."""
    added: float
    """``noise`` less that of the noisiest activation that it is computed from; below 0 where a layer calms it."""
    own: float
    """Noise of rounding the float file's values to this tensor's integers, nothing before it being rounded; 0..1."""
    low: float
    """Lowest value in the float file."""
    high: float
    represented: tuple[float, float] | None
    """Lowest and highest value that the integer file can hold here; None where it is float."""
    saturated: float
    """Share of the float file's values that lie outside, by more than half a step."""
    narrow: float
    """Share of channels, of those that are not constant, whose values span less than ``NARROW`` of the range."""
    weights_sqnr: float | None
    """Of the kernel that makes it, mean of its input channels, dB; None without a kernel."""

    @property
    def guilt(self) -> float:
        """What orders layers: the noise that begins here, by rounding or by whatever else happens on the way."""
        return max(self.own, self.added)


class _Channels(NamedTuple):
    """Sums over photos, by channel."""

    signal: npt.NDArray[np.float64]
    noise: npt.NDArray[np.float64]
    own: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    outside: int
    total: int


def measure(pair: Pair, images: npt.NDArray[np.uint8]) -> list[LayerError]:
    """Of every activation that both files have, in the order of computation.

    Args:
        pair: the files.
        images: real photos as fed, uint8 (n, h, w, 3), at least one.

    Raises:
        ValueError: no photo.
    """
    if len(images) == 0:
        raise ValueError("0 photos, expected at least one: layers are compared on them")
    tensors = {tensor.name: tensor for tensor in pair.tensors}
    sums: dict[str, _Channels] = {}
    for index in range(len(images)):
        for name, expected, actual in pair.run(images[index : index + 1]):
            seen = _channels(tensors[name], expected, actual)
            sums[name] = _together(sums[name], seen) if name in sums else seen
    noise = {name: noise_to_signal(entry.noise, entry.signal) for name, entry in sums.items()}
    return [_error(tensors[name], entry, noise) for name, entry in sums.items()]


def noise_to_signal(noise: npt.NDArray[np.float64], signal: npt.NDArray[np.float64]) -> float:
    """Mean over channels of noise power over signal power, at most 1 a channel; silent channels do not count."""
    alive = signal > 0
    return float(np.minimum(noise[alive] / signal[alive], 1).mean()) if alive.any() else 0.0


def decibels(ratio: float) -> float:
    """Of a noise-to-signal ratio: 0.01 -> 20 dB; infinite for 0."""
    return float("inf") if ratio <= 0 else float(-10 * np.log10(ratio))


def _channels(tensor: Tensor, expected: Values, actual: Values) -> _Channels:
    axis = tensor.channel_axis
    wanted, given = (np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis]) for values in (expected, actual))
    grid = tensor.grid
    own = np.zeros(1) if grid is None else grid.rounded(wanted) - wanted
    half = 0.0 if grid is None else grid.scale / 2
    outside = 0 if grid is None else int(((wanted < grid.low - half) | (wanted > grid.high + half)).sum())
    power = [np.square(values, dtype=np.float64).sum(axis=0) for values in (wanted, given - wanted, own)]
    low, high = wanted.min(axis=0).astype(np.float64), wanted.max(axis=0).astype(np.float64)
    return _Channels(power[0], power[1], np.broadcast_to(power[2], power[0].shape), low, high, outside, wanted.size)


def _together(one: _Channels, two: _Channels) -> _Channels:
    return _Channels(
        one.signal + two.signal,
        one.noise + two.noise,
        one.own + two.own,
        np.minimum(one.low, two.low),
        np.maximum(one.high, two.high),
        one.outside + two.outside,
        one.total + two.total,
    )


def _error(tensor: Tensor, sums: _Channels, noise: Mapping[str, float]) -> LayerError:
    grid = tensor.grid
    low, high = float(sums.low.min()), float(sums.high.max())
    spans = sums.high - sums.low
    spans, width = spans[spans > 0], (grid.high - grid.low if grid else high - low)
    before = max((noise[source] for source in tensor.sources if source in noise), default=0.0)
    return LayerError(
        layer=tensor.layer,
        tensor=tensor.name,
        readers=tensor.readers,
        sqnr=decibels(float(sums.noise.sum() / sums.signal.sum()) if sums.signal.any() else 0.0),
        noise=noise[tensor.name],
        added=noise[tensor.name] - before,
        own=noise_to_signal(sums.own, sums.signal),
        low=low,
        high=high,
        represented=(grid.low, grid.high) if grid else None,
        saturated=sums.outside / sums.total,
        narrow=float((spans < NARROW * width).mean()) if spans.size else 0.0,
        weights_sqnr=None if tensor.weights_noise is None else decibels(tensor.weights_noise),
    )


def upstream(name: str, inputs: Callable[[str], Sequence[str]], known: Mapping[str, object]) -> tuple[str, ...]:
    """The nearest ``known`` tensors that ``name`` is computed from; ``inputs`` gives what a tensor is made of."""
    found: list[str] = []
    waiting, seen = list(inputs(name)), {name}
    while waiting:
        tensor = waiting.pop()
        if tensor in known:
            found.append(tensor)
        elif tensor not in seen:
            seen.add(tensor)
            waiting.extend(inputs(tensor))
    return tuple(dict.fromkeys(found))


def readers_of(tensors: Sequence[Tensor], name: str) -> tuple[str, ...]:
    """Layers of the tensors that are computed from ``name``."""
    return tuple(dict.fromkeys(tensor.layer for tensor in tensors if tensor.layer and name in tensor.sources))
