"""What a model file says of itself, before anybody has described it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from unet_runtime.core.spec import Precision


class Said(NamedTuple):
    """Something that is known of a model, and from where."""

    value: Any
    source: str
    """In words: ``the file``, ``its metadata (ultralytics)``, ``config.json``."""


class Tensor(NamedTuple):
    """An input or output of a file."""

    name: str
    dtype: str
    """As NumPy calls it."""
    shape: tuple[int | None, ...]
    """None: any size."""
    scaling: tuple[float, int] = (0.0, 0)
    """Scale and zero point of a quantised tensor; scale 0: it is not."""
    ends: str = ""
    """What an output is, by the operator that makes it: ``softmax``, ``sigmoid``, ``labels``, ``logits``, or not known.
    """

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} {self.dtype}({sizes})"


@dataclass(frozen=True)
class Facts:
    """A model file, as read."""

    path: Path
    content: bytes
    """One file, complete: weights that were beside it are inside."""
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    precision: Precision
    said: Mapping[str, Said] = field(default_factory=dict)
    """By the name of the option that would say it: ``classes``, ``mean``, ``std``, ``range``, ``channels``, ``size``,
    ``fit``, ``activation``, ``license``."""
    tools: Mapping[str, str] = field(default_factory=dict)
    """Who made the file, by name, and the version."""
