"""The layers of a Keras functional model as a graph: who reads a layer's output, and through what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CONVOLUTIONS = ("Conv2D", "Conv2DTranspose", "DepthwiseConv2D")

NORM = "BatchNormalization"

_HOMOGENEOUS = ("relu", "linear", "leaky_relu")
"""Activations with f(s x) = s f(x) for every s > 0."""

_TRANSPARENT = (
    "MaxPooling2D",
    "AveragePooling2D",
    "UpSampling2D",
    "ZeroPadding2D",
    "Cropping2D",
    "Dropout",
    "SpatialDropout2D",
)
"""Layers that leave a channel a channel, and are positively homogeneous."""

_IMAGE_RANK = 4
"""(n, h, w, channels)"""


@dataclass(frozen=True)
class Reader:
    """A layer that reads some other layer's channels as channels ``offset`` and up of its input."""

    layer: Any
    offset: int


class Graph:
    """Readers of each tensor of a model whose layers were made for it alone, as a clone's are: a call is an edge."""

    def __init__(self, model: Any) -> None:
        self._readers: dict[int, list[Any]] = {}
        self._outputs = {id(tensor) for tensor in model.outputs}
        self._shared = set()
        for operation in model.operations:  # more than its layers: keras.ops called on a symbolic tensor
            calls = operation._inbound_nodes
            if len(calls) > 1:
                self._shared.add(operation.name)
            for tensor in {id(tensor) for call in calls for tensor in call.input_tensors}:
                self._readers.setdefault(tensor, []).append(operation)

    def readers(self, tensor: Any) -> list[Any]:
        """The operations that read a symbolic tensor of the model, each once."""
        return self._readers.get(id(tensor), [])

    def is_output(self, tensor: Any) -> bool:
        """Whether the model returns it."""
        return id(tensor) in self._outputs

    def is_shared(self, operation: Any) -> bool:
        """Whether it is called more than once, so that it has several outputs."""
        return operation.name in self._shared

    def only_reader(self, tensor: Any) -> Any | None:
        """The operation that alone sees a tensor; None if there are several, or the model returns it."""
        readers = self.readers(tensor)
        return readers[0] if len(readers) == 1 and not self.is_output(tensor) else None

    def is_folded(self, layer: Any) -> bool:
        """A linear layer in front of its BatchNormalization: int8 never holds what is between the two."""
        follower = self.only_reader(layer.output)
        return (
            type(follower).__name__ == NORM
            and type(layer).__name__ in CONVOLUTIONS
            and activation_name(layer) == "linear"
        )

    def folded_into(self, layer: Any) -> Any | None:
        """The layer whose weights take up a BatchNormalization, or None where there is none."""
        before = layer.input._keras_history.operation
        return before if type(layer).__name__ == NORM and self.is_folded(before) else None

    def settled(self, layer: Any) -> Any:
        """The tensor behind the activations that follow ``layer``, which engines fuse into it."""
        tensor = layer.output
        while (reader := self.only_reader(tensor)) is not None and is_activation(reader):
            tensor = reader.output
        return tensor

    def trace(self, layer: Any) -> list[Reader] | None:
        """The layers that mix or rescale the channels that ``layer`` makes; None where a factor s > 0 cannot follow.

        A factor ends in these layers, so whatever activation they have does not see it.
        """
        readers: list[Reader] = []
        followed = self._passes(layer) and self._follow(layer.output, 0, readers)
        ends = [self._is_plain(reader.layer) for reader in readers]
        return readers if followed and all(ends) else None

    def _follow(self, tensor: Any, offset: int, found: list[Reader]) -> bool:
        """Add the readers of a tensor's channels to ``found``; False where a factor cannot pass to all of them."""
        if self.is_output(tensor):
            return False
        for operation in self.readers(tensor):
            if type(operation).__name__ == "Concatenate":
                starts = _concatenated_before(operation, tensor)
            elif type(operation).__name__ in _TRANSPARENT or is_activation(operation):
                starts = [0]
            else:
                found.append(Reader(operation, offset))
                continue
            for start in starts:
                if not self._passes(operation) or not self._follow(operation.output, offset + start, found):
                    return False
        return True

    def _passes(self, operation: Any) -> bool:
        """Whether a factor passes through an operation of a kind that lets it pass."""
        return self._is_plain(operation) and activation_name(operation) in _HOMOGENEOUS

    def _is_plain(self, operation: Any) -> bool:
        """Called once, and along the channels of (n, h, w, channels)."""
        return (
            not self.is_shared(operation)
            and getattr(operation, "data_format", "channels_last") == "channels_last"
            and len(getattr(operation.output, "shape", ())) == _IMAGE_RANK
            and getattr(operation, "axis", -1) in (-1, 3)
        )


def is_activation(operation: Any) -> bool:
    """A ReLU or its like, as a layer of its own."""
    kind = type(operation).__name__
    if kind == "ReLU":
        return operation.max_value is None and not operation.threshold
    return kind == "LeakyReLU" or (kind == "Activation" and activation_name(operation) in _HOMOGENEOUS)


def activation_name(operation: Any) -> str:
    """``relu``, ``softmax``, ...; ``linear`` for a layer without one."""
    activation = getattr(operation, "activation", None)
    return "linear" if activation is None else str(getattr(activation, "__name__", type(activation).__name__))


def _concatenated_before(layer: Any, tensor: Any) -> list[int]:
    """Channels in front of ``tensor`` in a Concatenate's output, for each of its occurrences."""
    starts, before = [], 0
    for part in layer.input:
        if part is tensor:
            starts.append(before)
        before += part.shape[-1]
    return starts
