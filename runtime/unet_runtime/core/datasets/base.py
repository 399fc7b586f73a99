"""What every layout of a dataset gives: photos with class ids, the classes, and the parts that the data names.

A layout is one module with a ``Layout`` record, and its name in the list of ``__init__``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from unet_runtime.core.errors import SourceError
from unet_runtime.core.metrics import IGNORED
from unet_runtime.core.spec import ClassSpec

__all__ = ["IGNORED", "ClassIds", "Dataset", "Labels", "Layout", "Options", "Problem", "Sample", "evenly"]

ClassIds = npt.NDArray[np.uint8]
"""(H, W): 0 to 254 are class ids, ``IGNORED`` (255) pixels that say nothing."""


class Labels(Protocol):
    """Where the class ids of one photo come from: small, immutable, can be sent to another process."""

    @property
    def path(self) -> Path:
        """The file that they are in."""

    @property
    def coding(self) -> str:
        """What decides about the class ids beside the file's content: part of a cache's key."""

    def read(self) -> ClassIds:
        """The class ids, at the size that the labels have.

        Raises:
            ImageError: unreadable, or values that no class has.
        """


class Sample(NamedTuple):
    """A photo with its labels."""

    name: str
    """Unique in its dataset; without suffix."""
    photo: Path
    labels: Labels


class Problem(NamedTuple):
    """Something in a dataset's folder that is no sample, though it looks as if it should be one."""

    kind: str
    """What it is, as ``photos without a mask``."""
    name: str
    """Of the file, or of the annotation and its file."""


@dataclass(frozen=True)
class Options:
    """What a user says about a dataset beside its folder."""

    classes: tuple[ClassSpec, ...] = ()
    """By class id; empty: those that the layout names or that its masks show."""
    values: Mapping[int | tuple[int, int, int], int] = field(default_factory=dict)
    """Value or RGB colour in masks -> class id, where that is not the position."""
    ignore: frozenset[int | tuple[int, int, int]] = frozenset()
    """Values or RGB colours in masks that are no class, beside the layout's own."""
    unlabelled: str = ""
    """Class of pixels that nothing was drawn on, where labels are shapes; ``ignore``: none; empty: the background."""


@dataclass(frozen=True)
class Dataset:
    """A dataset on disk; nothing is decoded yet."""

    root: Path
    layout: str
    """Name of its layout."""
    why: str
    """What in the folder shows the layout."""
    classes: tuple[ClassSpec, ...]
    """By class id."""
    samples: tuple[Sample, ...]
    """Sorted by name. Those that only a list names may lack a file."""
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """``train``, ``val``, ``trainval`` and ``test``, as far as the data itself says: names of samples."""
    problems: tuple[Problem, ...] = ()
    named: bool = True
    """Whether data or user named the classes; False: names were made of the masks' values."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class id."""
        return tuple(entry.name for entry in self.classes)

    def in_order_of(self, classes: Sequence[ClassSpec]) -> Dataset:
        """This dataset with a model's class ids: classes are matched by name.

        Raises:
            SourceError: it has other classes than the model.
        """
        names = [entry.name for entry in classes]
        if tuple(names) == self.class_names:
            return self
        if set(names) != set(self.class_names):
            raise SourceError(
                f"{self.root}: has the classes {', '.join(self.class_names)}, the model has {', '.join(names)}: "
                "expected the same names, in any order"
            )
        table = bytearray([IGNORED]) * 256
        for index, name in enumerate(self.class_names):
            table[index] = names.index(name)
        samples = []
        for sample in self.samples:
            samples.append(sample._replace(labels=_Reordered(sample.labels, bytes(table))))
        return replace(self, classes=tuple(classes), samples=tuple(samples))


@dataclass(frozen=True)
class _Reordered:
    """Labels of a dataset, as class ids of a model."""

    source: Labels
    table: bytes
    """Class id of the model by class id of the dataset: 256 of them."""

    @property
    def path(self) -> Path:
        return self.source.path

    @property
    def coding(self) -> str:
        return f"{self.source.coding} > {self.table.hex()}"

    def read(self) -> ClassIds:
        return np.frombuffer(self.table, np.uint8)[self.source.read()]


@dataclass(frozen=True)
class Layout:
    """How a kind of dataset lies on disk."""

    name: str
    """As ``--layout`` has it."""
    title: str
    """For people."""
    expected: str
    """Files and folders that it has."""
    detect: Callable[[Path], str]
    """Root -> what shows that it has this layout; empty where nothing does."""
    read: Callable[[Path, Options, str], Dataset]
    """Root, options and what ``detect`` found -> the dataset. Raises SourceError, or MissingDependencyError."""


_T = TypeVar("_T")


def evenly(photos: Sequence[_T], count: int) -> list[_T]:
    """``count`` photos spread over the whole sequence (so over all breeds), or all if there are fewer.

    Example:
        >>> evenly("abcdefgh", 3)
        ['a', 'c', 'f']
    """
    if count >= len(photos):
        return list(photos)
    return [photos[index * len(photos) // count] for index in range(count)]
