"""What is compared: a network by its name, width, depth and size."""

from __future__ import annotations

import re
from dataclasses import dataclass

from unet_training.errors import RecipeError
from unet_training.models import ARCHITECTURES

_POINT = re.compile(r"(?P<architecture>[^:@]+)(:(?P<width>\d+))?(:(?P<depth>\d+))?(@(?P<size>\d+))?", re.ASCII)

FAMILY = (
    "unet:16",
    "unet:8",
    "edge-fast:24",
    "edge-fast:12",
    "attention:8",
    "residual:8",
    "recurrent-residual:4",
    "dense:4:3",
    "ladder:8",
    "canet:32",
    "unet2015:8:3@212",
    "lite:24",
    "lite-slim:16",
    "lite1:24",
    "lite2:24",
)
"""Every architecture, at widths that a small CPU can train; ``unet`` and ``edge-fast`` at two."""


@dataclass(frozen=True)
class Point:
    """One network; None stands for the preset's or the architecture's own value."""

    architecture: str
    filters: int | None = None
    depth: int | None = None
    size: int | None = None
    """Pixels of its input."""

    @property
    def label(self) -> str:
        """The text that ``parse`` reads."""
        parts = filter(None, (self.architecture, self.filters, self.depth))
        return ":".join(map(str, parts)) + (f"@{self.size}" if self.size else "")

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return re.sub(r"[:@]", "-", self.label)


def parse(text: str) -> Point:
    """Read ``NAME[:WIDTH[:DEPTH]][@SIZE]``, such as ``edge-fast:24`` or ``unet2015:8:3@212``.

    Raises:
        RecipeError: another form, an unknown architecture, or a number of 0.
    """
    found = _POINT.fullmatch(text)
    if found is None or found["architecture"] not in ARCHITECTURES:
        raise RecipeError(
            f"{text!r}: expected NAME[:WIDTH[:DEPTH]][@SIZE], as edge-fast:24 or unet2015:8:3@212, where NAME is one "
            f"of {', '.join(ARCHITECTURES)}"
        )
    numbers = [int(digits) if digits else None for digits in found.group("width", "depth", "size")]
    if 0 in numbers:
        raise RecipeError(f"{text!r}: a width, depth or size of 0, expected 1 or more")
    return Point(found["architecture"], *numbers)
