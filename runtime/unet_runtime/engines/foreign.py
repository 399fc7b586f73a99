"""Backends of models that other tools made: they take and give what all other backends do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from unet_runtime.core import tensors
from unet_runtime.core.spec import ModelSpec
from unet_runtime.engines.base import Backend

if TYPE_CHECKING:
    import numpy.typing as npt


class TensorBackend(Protocol):
    """A loaded model that takes its own input tensor and gives its own output tensor."""

    name: str
    device: str
    engine: str
    note: str
    batch: int | None
    """Photos that the file takes at a time; None: any number."""
    scaling: tuple[float, int]
    """Scale and zero point of the input tensor; scale 0 where it has none."""

    def run(self, images: npt.NDArray[Any]) -> npt.NDArray[Any]: ...


class ForeignBackend:
    """A model whose spec is not plain, behind ``core.tensors``."""

    def __init__(self, backend: Backend, spec: ModelSpec) -> None:
        self.inner = cast(TensorBackend, backend)
        self._spec = spec
        self._table = tensors.values(spec.input, *self.inner.scaling)
        self.name, self.device = backend.name, backend.device
        self.engine, self.note = backend.engine, backend.note

    def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See ``base.Backend``."""
        return self.run_tensor(tensors.fed(images, self._spec.input, self._table))

    def run_tensor(self, tensor: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """As ``run``, for what is the file's own input tensor already."""
        outputs = []
        step = self.inner.batch or max(1, len(tensor))
        for first in range(0, len(tensor), step):
            part = tensor[first : first + step]
            missing = step - len(part) if self.inner.batch else 0
            if missing:
                part = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            made = tensors.maps(self.inner.run(part), len(part), self._spec)
            outputs.append(made[: step - missing] if missing else made)
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)
