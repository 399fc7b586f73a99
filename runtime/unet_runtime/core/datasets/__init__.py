"""Dataset layouts on disk. A new layout is one module with its record (see base.py), and its name in the list here."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

from unet_runtime.core.datasets.base import (
    IGNORED,
    ClassIds,
    Dataset,
    Labels,
    Layout,
    Options,
    Problem,
    Sample,
    evenly,
)
from unet_runtime.core.datasets.splits import PARTS, Part, check_split, read_split
from unet_runtime.core.errors import SourceError
from unet_runtime.core.spec import ClassSpec, ModelSpec

__all__ = [
    "AUTO",
    "IGNORED",
    "PARTS",
    "ClassIds",
    "Dataset",
    "Labels",
    "Layout",
    "Options",
    "Part",
    "Problem",
    "Sample",
    "check_split",
    "detect_layout",
    "evenly",
    "layouts",
    "open_dataset",
    "open_for_model",
    "open_labels",
    "read_split",
]

_MODULES = ("oxford_pets",)
"""In the order in which they are looked for: the more particular first."""

AUTO = "auto"
"""Name of no layout: the first one that is found."""


@functools.cache
def layouts() -> Mapping[str, Layout]:
    """Layout by name, as ``--layout`` has it."""
    found = {}
    for module in _MODULES:
        layout = cast(Layout, importlib.import_module(f"{__name__}.{module}").LAYOUT)
        found[layout.name] = layout
    return found


def detect_layout(root: str | os.PathLike[str]) -> tuple[Layout, str] | None:
    """The layout of a folder, and what shows it; None where there is none that is known."""
    for layout in layouts().values():
        if why := layout.detect(Path(root)):
            return layout, why
    return None


def open_dataset(
    root: str | os.PathLike[str],
    *,
    layout: str = AUTO,
    classes: Iterable[ClassSpec] = (),
    ignore: Iterable[int] = (),
) -> Dataset:
    """Read what a dataset's folder holds; no photo and no labels are decoded.

    Args:
        root: its folder.
        layout: name of its layout; ``auto``: found by looking.
        classes: by class id, where the layout has none of its own or others are wanted.
        ignore: values in masks that are no class, beside 255.

    Raises:
        SourceError: no such folder or layout, or lists and tables that cannot be read.
        MissingDependencyError: the layout needs a package that is not installed.
    """
    root = Path(root)
    options = Options(classes=tuple(classes), ignore=frozenset(ignore))
    if not root.is_dir():
        raise SourceError(f"{root}: {'a file' if root.exists() else 'no such folder'}, expected a dataset's folder")
    if layout == AUTO:
        found = detect_layout(root)
        if found is None:
            raise SourceError(f"{root}: {_contents(root)}, expected one of the layouts {_expected()}")
        return _with_samples(found[0].read(root, options, found[1]))
    if layout not in layouts():
        raise SourceError(f"layout {layout!r}: expected {', '.join((AUTO, *layouts()))}")
    chosen = layouts()[layout]
    why = chosen.detect(root)
    if not why:
        raise SourceError(f"{root}: {_contents(root)}, expected the layout {layout} ({chosen.expected})")
    return _with_samples(chosen.read(root, options, why))


def _with_samples(dataset: Dataset) -> Dataset:
    if not dataset.samples:
        expected = layouts()[dataset.layout].expected
        raise SourceError(f"{dataset.root}: no photo has labels, expected {expected}{_first(dataset.problems)}")
    return dataset


def _first(problems: Sequence[Problem]) -> str:
    return f" ({len(problems)} problems; the first: {problems[0].kind}: {problems[0].name})" if problems else ""


def open_for_model(root: str | os.PathLike[str], spec: ModelSpec) -> Dataset:
    """A dataset with the class ids of a model.

    Raises:
        SourceError: as ``open_dataset``; or it has other classes than the model.
        MissingDependencyError: as ``open_dataset``.
    """
    return open_dataset(root).in_order_of(spec.classes)


def open_labels(sample: Sample) -> ClassIds:
    """Class ids, uint8 (H, W), at the size that the labels have; ``IGNORED`` where there is no truth.

    Raises:
        ImageError: unreadable, or values that no class has.
    """
    return sample.labels.read()


def _contents(root: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"holds {shown}" if names else "is empty"


def _expected() -> str:
    return "; ".join(f"{layout.name} ({layout.expected})" for layout in layouts().values())
