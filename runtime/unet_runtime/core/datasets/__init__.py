"""Dataset layouts on disk. A new layout is one module with its record (see base.py), and its name in the list here."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
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
    Value,
    evenly,
)
from unet_runtime.core.datasets.classes import class_file, from_content, parse_classes, read_class_file
from unet_runtime.core.datasets.splits import PARTS, Part, automatic_split, check_split, grouped, read_split
from unet_runtime.core.errors import SourceError
from unet_runtime.core.spec import ClassSpec, ModelSpec

__all__ = [
    "AUTO",
    "IGNORED",
    "PARTS",
    "RECORD",
    "ClassIds",
    "Dataset",
    "Labels",
    "Layout",
    "Options",
    "Part",
    "Problem",
    "Sample",
    "Value",
    "automatic_split",
    "check_split",
    "detect_layout",
    "evenly",
    "grouped",
    "layouts",
    "open_dataset",
    "open_for_model",
    "open_labels",
    "read_split",
]

_MODULES = ("oxford_pets", "cityscapes", "voc", "coco", "roboflow", "labelme", "yolo", "folders")
"""In the order in which they are looked for: the more particular first."""

RECORD = "labels"
"""Key, in the recipe that a model's provenance holds, of what was said about the labels: as a class file has it."""

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
    classes: str | os.PathLike[str] | Iterable[ClassSpec] = (),
    ignore: Iterable[Value] = (),
) -> Dataset:
    """Read what a dataset's folder holds: photos, labels, classes and parts.

    No photo is decoded, and masks only where nothing else tells their classes.

    Args:
        root: its folder.
        layout: name of its layout; ``auto``: found by looking.
        classes: a list of words (see ``parse_classes``), a class file, or classes by id; of a layout that names
            classes, those that are wanted. Nothing: the class file in the folder, or what the layout and its masks say.
        ignore: values or colours in masks that are no class, beside 255.

    Raises:
        SourceError: no such folder or layout, or lists and tables that cannot be read.
        MissingDependencyError: the layout needs a package that is not installed.
    """
    root = Path(root)
    if not root.is_dir():
        raise SourceError(f"{root}: {'a file' if root.exists() else 'no such folder'}, expected a dataset's folder")
    return _open(root, layout, _options(root, classes, ignore))


def _open(root: Path, layout: str, options: Options) -> Dataset:
    chosen, why = _layout(root, layout)
    dataset = replace(chosen.read(root, options, why), options=options)
    if not dataset.samples:
        raise SourceError(f"{root}: no photo has labels, expected {chosen.expected}{_first(dataset.problems)}")
    if options.classes and dataset.classes != options.classes:
        return dataset.chosen(options)
    return dataset


def _options(root: Path, classes: str | os.PathLike[str] | Iterable[ClassSpec], ignore: Iterable[Value]) -> Options:
    """What the user says about the classes, here or in a class file."""
    options = Options()
    file = class_file(root)
    if isinstance(classes, (str, os.PathLike)):
        named = Path(classes)
        options = read_class_file(named) if named.suffix in (".yaml", ".yml", ".json") else parse_classes(str(classes))
    elif listed := tuple(classes):
        options = Options(classes=listed)
    elif file is not None:
        options = read_class_file(file)
    return replace(options, ignore=options.ignore | frozenset(ignore))


def _layout(root: Path, layout: str) -> tuple[Layout, str]:
    """The layout that is named, or found by looking, and what shows it."""
    if layout == AUTO:
        found = detect_layout(root)
        if found is None:
            raise SourceError(f"{root}: {_contents(root)}{_inside(root)}, expected one of the layouts {_expected()}")
        return found
    if layout not in layouts():
        raise SourceError(f"layout {layout!r}: expected {', '.join((AUTO, *layouts()))}")
    chosen = layouts()[layout]
    why = chosen.detect(root)
    if not why:
        raise SourceError(f"{root}: {_contents(root)}, expected the layout {layout} ({chosen.expected})")
    return chosen, why


def _first(problems: Sequence[Problem]) -> str:
    return f" ({len(problems)} problems; the first: {problems[0].kind}: {problems[0].name})" if problems else ""


def _inside(root: Path) -> str:
    """A folder inside that has a layout, as unpacked archives have."""
    for path in sorted(root.iterdir()):
        if path.is_dir() and detect_layout(path):
            return f" (a dataset is in {path.name}/: name that folder)"
    return ""


def open_for_model(root: str | os.PathLike[str], spec: ModelSpec) -> Dataset:
    """A dataset with the class ids of a model.

    What was said about the labels when the model was trained holds here too, unless the folder has a class file.

    Raises:
        SourceError: as ``open_dataset``; or it has other classes than the model.
        MissingDependencyError: as ``open_dataset``.
    """
    root = Path(root)
    record = spec.provenance.recipe.get(RECORD)
    if record and root.is_dir() and class_file(root) is None:
        return _open(root, AUTO, from_content(record, f"the spec of {spec.name}")).in_order_of(spec.classes)
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
