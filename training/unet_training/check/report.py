"""What was found in a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from unet_runtime.core.datasets import Dataset
from unet_runtime.core.text import table

SHOWN = 5
"""Names of an oddity that are listed."""

MOST_LEFT_OUT = 0.1
"""Share of photos that may be left out before something must be wrong."""


class Kind(NamedTuple):
    """A kind of oddity."""

    what: str
    handling: str
    """What training does about it."""
    stops: bool = False
    """Whether training refuses the data."""
    leaves_out: bool = False


KINDS = {
    "leaked": Kind("photos in the training part and in the test part", "training refuses", stops=True),
    "values": Kind("label masks with values that no class has", "training refuses", stops=True),
    "incomplete": Kind("listed photos without photo or labels", "left out", leaves_out=True),
    "unreadable": Kind("unreadable photos or labels", "left out", leaves_out=True),
    "sizes": Kind("labels of another size than their photo", "left out", leaves_out=True),
    "trimaps": Kind("trimaps with values outside 1..3", "left out", leaves_out=True),
    "unlisted": Kind("photos in none of the data's own parts", "left out by the official split"),
    "lossy": Kind("label masks that are JPEG files", "used, though JPEG blurs values: export PNG"),
    "empty": Kind("photos whose labels show the background alone", "used"),
    "absent": Kind("classes that no photo shows", "used: nothing can be learned of them"),
    "untrained": Kind("classes that only test photos show", "used: nothing can be learned of them"),
    "other_format": Kind("photos of another format than their names say", "used, read as what they are"),
    "duplicates": Kind("test photos that are also training photos", "used: the test is that much easier"),
}
"""Oddities of photos and labels; those of a folder are the dataset's problems."""


class ClassShare(NamedTuple):
    """How often a class occurs."""

    name: str
    pixels: int
    share: float
    """Share of the pixels that have a class, 0..1."""
    photos: int


class Unknown(NamedTuple):
    """A value that no class has."""

    value: str
    pixels: int
    masks: int
    first: str
    """A file that has it."""


@dataclass(frozen=True)
class Report:
    """What a dataset holds."""

    dataset: Dataset
    split: str
    """That training takes if none is named."""
    usable: Mapping[str, int]
    """Photos that training reads, of each part of that split."""
    formats: Mapping[str, int]
    """Usable photos of each file format, as Pillow names it."""
    sizes: Mapping[str, str]
    """``smallest``, ``median`` and ``largest`` size of usable photos, as ``500x375``."""
    classes: tuple[ClassShare, ...]
    ignored: float
    """Share of pixels that say nothing, 0..1."""
    unknown: tuple[Unknown, ...]
    names: Mapping[str, list[str]]
    """Names of photos, labels or classes by key of ``KINDS``, sorted; a name may have several oddities."""
    seen: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sample -> what was wrong with it; of unusable ones."""

    def errors(self) -> list[str]:
        """Why training cannot use the dataset as it is, or should not; empty when it can."""
        found = []
        for value in self.unknown[:SHOWN]:
            found.append(
                f"value {value.value} has no class: {value.pixels:,} pixels in {value.masks} masks, the first "
                f"{value.first}: name the class (--classes, classes.yaml), or leave it out (--ignore {value.value})"
            )
        if leaked := self.names["leaked"]:
            found.append(f"{len(leaked)} photos are both trained on and tested on: {', '.join(leaked[:SHOWN])}")
        for part, count in self.usable.items():
            if not count:
                found.append(f"no usable photo in the {part} part of the {self.split} split")
        total = len(self.dataset.samples) + self._without_labels()
        left_out = len(self.seen) - len(self.names["values"]) + self._without_labels()
        if left_out > MOST_LEFT_OUT * total:
            found.append(f"{left_out} of {total} photos cannot be used: repair them, or take them away")
        return found

    def _without_labels(self) -> int:
        return sum(problem.kind.startswith("photos") for problem in self.dataset.problems)

    def as_json(self) -> dict[str, Any]:
        """Everything, for ``--json``."""
        problems: dict[str, list[str]] = {}
        for problem in self.dataset.problems:
            problems.setdefault(problem.kind, []).append(problem.name)
        return {
            "folder": str(self.dataset.root),
            "layout": self.dataset.layout,
            "why": self.dataset.why,
            "photos": len(self.dataset.samples),
            "split": self.split,
            "usable": self.usable,
            "formats": self.formats,
            "sizes": self.sizes,
            "classes": [entry._asdict() for entry in self.classes],
            "ignored": self.ignored,
            "unknown": [entry._asdict() for entry in self.unknown],
            "oddities": self.names,
            "problems": problems,
            "errors": self.errors(),
        }

    def oddities(self) -> list[tuple[int, str, str, list[str]]]:
        """(number, what, what training does, names) of each oddity and problem that there is."""
        found = []
        for key, names in self.names.items():
            if names:
                found.append((len(names), KINDS[key].what, KINDS[key].handling, names))
        problems: dict[str, list[str]] = {}
        for problem in self.dataset.problems:
            problems.setdefault(problem.kind, []).append(problem.name)
        for kind, names in problems.items():
            found.append((len(names), kind, "left out", names))
        return found

    def as_text(self) -> str:
        """A few lines for people."""
        dataset = self.dataset
        formats = ", ".join(f"{count} {name}" for name, count in sorted(self.formats.items()))
        lines = [
            f"{dataset.root}: layout {dataset.layout}, found by {dataset.why}",
            f"{len(dataset.samples)} photos with labels; usable: {formats or 'none'}",
        ]
        if self.sizes:
            lines.append("sizes: " + ", ".join(f"{name} {size}" for name, size in self.sizes.items()))
        for part, count in self.usable.items():
            lines.append(f"{count:6}  usable in the {part} part of the {self.split} split")
        rows: list[tuple[str, ...]] = [("id", "class", "pixels", "photos")]
        for index, entry in enumerate(self.classes):
            rows.append((str(index), entry.name, f"{entry.share:.2%}", str(entry.photos)))
        rows.append(("", "(ignored)", f"{self.ignored:.2%}", ""))
        lines.append(table(rows))
        for number, what, handling, names in self.oddities():
            shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
            lines.append(f"{number:6}  {what}: {handling} ({shown})")
        return "\n".join(lines)
