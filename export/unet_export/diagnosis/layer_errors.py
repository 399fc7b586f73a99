"""Noise that an integer file adds to each activation: it and its float32 counterpart run on the same photos."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float32]
_T = TypeVar("_T")

NARROW = 0.01
"""A channel that uses less of the tensor's range than this has two or three of int8's 256 values."""


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
        steps = np.rint(values / np.float32(self.scale))
        steps = steps.clip(self.lowest - self.zero_point, self.highest - self.zero_point)
        result: Values = steps * np.float32(self.scale)
        return result


@dataclass(frozen=True)
class Tensor:
    """An activation that both files have."""

    name: str
    layer: str
    """The Keras layer that makes it; of fused layers, the one with weights. Empty where none can be identified."""
    sources: tuple[str, ...]
    """Names of the activations it is computed from."""
    channel_axis: int
    grid: Grid | None
    """None: the integer file holds it in float."""
    weights_noise: float | None
    """Noise-to-signal ratio of the kernel that makes it, by ``kernel_noise``; None without a kernel."""


class Pair(Protocol):
    """A float file and its integer counterpart, opened for inspection: ``OnnxPair``, ``TFLitePair``."""

    tensors: list[Tensor]
    """Activations in the order of computation."""

    def run(self, image: npt.NDArray[np.uint8]) -> Iterator[tuple[str, Values, Values]]:
        """One photo, uint8 (1, h, w, 3) -> (tensor's name, values in the float file, and in the other, dequantised)."""
        ...


@dataclass(frozen=True)
class LayerError:
    """Error of one activation of the integer file, over all photos.

    Noise is the difference from the float file. ``noise`` and what follows from it is the mean over channels of noise
    power over signal power, each channel capped at 1, which is a channel lost: the power of a whole tensor is that of
    its loudest channels, and would hide that all others are gone.
    """

    layer: str
    """Keras layer, as ``Tensor.layer``."""
    tensor: str
    readers: tuple[str, ...]
    """Layers that read it: a tensor is precise only if those that make and read it are."""
    sqnr: float
    """Signal-to-quantisation-noise ratio of the whole tensor, dB."""
    noise: float
    """Noise-to-signal ratio, 0..1, mean over channels."""
    added: float
    """``noise`` less that of the noisiest activation that it is computed from; below 0 where a layer reduces it."""
    own: float
    """Noise of rounding the float file's values to this tensor's integers, with nothing rounded before; 0..1."""
    low: float
    high: float
    """Lowest and highest value in the float file."""
    represented: tuple[float, float] | None
    """Lowest and highest value that the integer file can hold here; None where it is float."""
    saturated: float
    """Share of the float file's values that lie outside, by more than half a step."""
    narrow: float
    """Share of the channels that are not constant whose values span less than ``NARROW`` of the range."""
    weights_sqnr: float | None
    """SQNR of the kernel that makes it, mean over its input channels, dB; None without a kernel."""

    @property
    def contribution(self) -> float:
        """The noise that begins here, by rounding or otherwise; layers are ordered by it."""
        return max(self.own, self.added)


def measure(pair: Pair, images: npt.NDArray[np.uint8]) -> list[LayerError]:
    """Measure every activation that both files have, in the order of computation, on uint8 (n, h, w, 3), n above 0."""
    sums = {tensor.name: _Sums(tensor) for tensor in pair.tensors}
    readers: dict[str, dict[str, None]] = {name: {} for name in sums}
    for tensor in pair.tensors:
        for source in tensor.sources if tensor.layer else ():
            readers[source][tensor.layer] = None
    for index in range(len(images)):
        for name, expected, actual in pair.run(images[index : index + 1]):
            sums[name].add(expected, actual)
    noise: dict[str, float] = {}
    errors = []
    for name, entry in sums.items():  # a tensor comes after those it is computed from
        noise[name] = noise_to_signal(entry.noise, entry.signal)
        errors.append(entry.error(noise, tuple(readers[name])))
    return errors


class _Sums:
    """Sums of one activation over photos, by channel: float64 (channels,)."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self.signal: Any = 0.0
        self.noise: Any = 0.0
        self._own: Any = 0.0
        self._low: Any = np.inf
        self._high: Any = -np.inf
        self._outside = 0
        self._values = 0

    def add(self, expected: Values, actual: Values) -> None:
        """Add one photo's values of the float and of the integer file."""
        axis, grid = self._tensor.channel_axis, self._tensor.grid
        expected = np.moveaxis(expected, axis, -1).reshape(-1, expected.shape[axis])  # (positions, channels)
        actual = np.moveaxis(actual, axis, -1).reshape(expected.shape)
        self.signal += _power(expected)
        self.noise += _power(actual - expected)
        self._low = np.minimum(self._low, expected.min(axis=0).astype(np.float64))
        self._high = np.maximum(self._high, expected.max(axis=0).astype(np.float64))
        self._values += expected.size
        if grid is None:
            self._own += np.zeros(expected.shape[1])
        else:
            self._own += _power(grid.rounded(expected) - expected)
            half = grid.scale / 2
            self._outside += int(((expected < grid.low - half) | (expected > grid.high + half)).sum())

    def error(self, noise: Mapping[str, float], readers: tuple[str, ...]) -> LayerError:
        """The sums as ratios; ``noise``: noise-to-signal ratio of every tensor so far."""
        tensor, grid = self._tensor, self._tensor.grid
        low, high = float(self._low.min()), float(self._high.max())
        width = grid.high - grid.low if grid else high - low
        spans = self._high - self._low
        spans = spans[spans > 0]
        before = max(map(noise.__getitem__, tensor.sources), default=0.0)
        return LayerError(
            layer=tensor.layer,
            tensor=tensor.name,
            readers=readers,
            sqnr=decibels(float(self.noise.sum() / self.signal.sum()) if self.signal.any() else 0.0),
            noise=noise[tensor.name],
            added=noise[tensor.name] - before,
            own=noise_to_signal(self._own, self.signal),
            low=low,
            high=high,
            represented=(grid.low, grid.high) if grid else None,
            saturated=self._outside / self._values,
            narrow=float((spans < NARROW * width).mean()) if spans.size else 0.0,
            weights_sqnr=None if tensor.weights_noise is None else decibels(tensor.weights_noise),
        )


def _power(values: Values) -> npt.NDArray[np.float64]:
    """(positions, channels) -> (channels,)"""
    power: npt.NDArray[np.float64] = np.square(values, dtype=np.float64).sum(axis=0)
    return power


def noise_to_signal(noise: npt.NDArray[np.float64], signal: npt.NDArray[np.float64]) -> float:
    """Mean over channels of noise power over signal power, capped at 1 per channel; silent channels do not count."""
    alive = signal > 0
    return float(np.minimum(noise[alive] / signal[alive], 1).mean()) if alive.any() else 0.0


def decibels(ratio: float) -> float:
    """A noise-to-signal ratio in decibels: 0.01 -> 20 dB; infinite for 0."""
    return float("inf") if ratio <= 0 else float(-10 * np.log10(ratio))


def kernel_noise(expected: Values, actual: Values, axis: int) -> float:
    """Noise-to-signal ratio of a rounded kernel, mean over its input channels, which are on ``axis``."""
    by_channel = np.moveaxis(expected, axis, -1).reshape(-1, expected.shape[axis])
    noise = np.moveaxis(actual, axis, -1).reshape(by_channel.shape) - by_channel
    return noise_to_signal(_power(noise), _power(by_channel))


def dequantized(raw: Any, scales: Any, zeros: Any, axis: int) -> Values:
    """Integers as the float32 values they stand for, with one scale per tensor or one per index of ``axis``."""
    shape = [1] * raw.ndim
    if np.size(scales) > 1:
        shape[axis] = -1
    zeros = np.reshape(zeros, shape).astype(np.float64)
    return np.asarray((raw - zeros) * np.reshape(scales, shape).astype(np.float64), np.float32)


def upstream(result: _T, inputs: Callable[[_T], Iterable[_T]], known: Container[_T]) -> tuple[_T, ...]:
    """The nearest ``known`` tensors that one is computed from; ``inputs`` returns what a tensor is made of."""
    found: list[_T] = []
    waiting, seen = list(inputs(result)), {result}
    while waiting:
        tensor = waiting.pop()
        if tensor in known:
            found.append(tensor)
        elif tensor not in seen:
            seen.add(tensor)
            waiting.extend(inputs(tensor))
    return tuple(dict.fromkeys(found))
