"""What is compared: a network by its name, width, depth and size."""

from __future__ import annotations

import re
from dataclasses import dataclass

from unet_training.errors import RecipeError
from unet_training.options import ARCHITECTURE_NAMES

_POINT = re.compile(r"(?P<architecture>[^:@]+)(:(?P<width>\d+))?(:(?P<depth>\d+))?(@(?P<size>\d+))?", re.ASCII)

FAMILY = (
    "unet:16", "unet:8", "edge-fast:24", "edge-fast:12", "attention:8", "residual:8", "recurrent-residual:4",
    "dense:4:3", "ladder:8", "canet:32", "unet2015:8:3@212", "lite:24", "lite1:24", "lite2:24",
)  # fmt: skip
"""Every architecture, at widths that a small CPU bears; the U-Net and its fast relative at two."""


@dataclass(frozen=True)
class Point:
    """One network. What is None is the preset's or the architecture's own."""

    architecture: str
    filters: int | None = None
    depth: int | None = None
    size: int | None = None
    """Pixels of its input."""

    @property
    def label(self) -> str:
        """As ``parse`` reads it."""
        parts = [str(part) for part in (self.architecture, self.filters, self.depth) if part is not None]
        return ":".join(parts) + (f"@{self.size}" if self.size else "")

    @property
    def folder(self) -> str:
        return re.sub(r"[:@]", "-", self.label)


def parse(text: str) -> Point:
    """``NAME[:WIDTH[:DEPTH]][@SIZE]``, such as ``edge-fast:24`` or ``unet2015:8:3@212``.

    Raises:
        RecipeError: nothing of that form, or no such architecture.
    """
    found = _POINT.fullmatch(text)
    if found is None or found["architecture"] not in ARCHITECTURE_NAMES:
        raise RecipeError(
            f"{text!r}: expected NAME[:WIDTH[:DEPTH]][@SIZE], as edge-fast:24 or unet2015:8:3@212, where NAME is one "
            f"of {', '.join(ARCHITECTURE_NAMES)}"
        )
    width, depth, size = (int(found[name]) if found[name] else None for name in ("width", "depth", "size"))
    if 0 in (width, depth, size):
        raise RecipeError(f"{text!r}: a width, depth or size of 0, expected 1 or more")
    return Point(found["architecture"], width, depth, size)
