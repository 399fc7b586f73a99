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

__all__ = ["IGNORED", "ClassIds", "Dataset", "Labels", "Layout", "Options", "Problem", "Sample", "Value", "evenly"]

_SHOWN = 5
"""Names of a problem that are listed."""

ClassIds = npt.NDArray[np.uint8]
"""(H, W): 0 to 254 are class ids, ``IGNORED`` (255) pixels that say nothing."""


Value = int | tuple[int, int, int]
"""What a mask has for a class: a number, or an RGB colour."""


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
    """Name of the file, or of the annotation and its file."""


@dataclass(frozen=True)
class Options:
    """What a user says about a dataset beside its folder."""

    classes: tuple[ClassSpec, ...] = ()
    """By class id; empty: those that the layout names or that its masks show."""
    values: Mapping[Value, int] = field(default_factory=dict)
    """Value or RGB colour in masks -> class id, where that is not the position."""
    ignore: frozenset[Value] = frozenset()
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
    values: Mapping[Value, int] = field(default_factory=dict)
    """Value or colour in masks -> class id, where the layout has no rule of its own."""
    options: Options = field(default_factory=Options)
    """What the user said about it, here or in a class file."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class id."""
        return tuple(entry.name for entry in self.classes)

    def problem_lines(self) -> list[str]:
        """A line for each kind of problem, with its number and a few names."""
        kinds: dict[str, list[str]] = {}
        for problem in self.problems:
            kinds.setdefault(problem.kind, []).append(problem.name)
        lines = []
        for kind, names in kinds.items():
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            lines.append(f"{self.root}: {len(names)} {kind}: {shown}")
        return lines

    def chosen(self, options: Options) -> Dataset:
        """This dataset with the classes that the user named, of those that it names itself, in their order.

        The pixels of the others are unlabelled. Colours and roles are the user's.

        Raises:
            SourceError: a class that the dataset does not have.
        """
        wanted = [entry.name for entry in options.classes]
        unknown = [entry.name for entry in options.classes if not self._has(entry)]
        if unknown:
            raise SourceError(
                f"{self.root}: has no class {', '.join(unknown)}, its own are {', '.join(self.class_names)}: name some "
                "of these"
            )
        rest = _unlabelled_id(options)
        table = bytearray([IGNORED]) * 256
        for index, name in enumerate(self.class_names):
            table[index] = wanted.index(name) if name in wanted else rest
        return self._with_table(options.classes, bytes(table))

    def _has(self, entry: ClassSpec) -> bool:
        # A background may be named for what the others leave.
        return entry.name in self.class_names or entry.role == "background"

    def in_order_of(self, classes: Sequence[ClassSpec]) -> Dataset:
        """This dataset with a model's class ids: classes are matched by name.

        Raises:
            SourceError: it has other classes than the model.
        """
        names = [entry.name for entry in classes]
        if tuple(names) == self.class_names:
            return self
        # Where names were made of the values that masks show, one that these masks lack may be among the model's.
        missing = set() if not self.named else set(names) - set(self.class_names)
        if missing or not set(self.class_names) <= set(names):
            raise SourceError(
                f"{self.root}: has the classes {', '.join(self.class_names)}, the model has {', '.join(names)}: "
                "expected the same names, in any order"
            )
        table = bytearray([IGNORED]) * 256
        for index, name in enumerate(self.class_names):
            table[index] = names.index(name)
        return self._with_table(classes, bytes(table))

    def _with_table(self, classes: Sequence[ClassSpec], table: bytes) -> Dataset:
        samples = []
        for sample in self.samples:
            samples.append(sample._replace(labels=_Reordered(sample.labels, table)))
        return replace(self, classes=tuple(classes), samples=tuple(samples))


def _unlabelled_id(options: Options) -> int:
    """Class id of unlabelled pixels: the class named for them, or the first background; else they say nothing."""
    for index, entry in enumerate(options.classes):
        if entry.name == options.unlabelled or (not options.unlabelled and entry.role == "background"):
            return index
    return IGNORED


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
