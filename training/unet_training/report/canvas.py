"""What every plot shares: figures without a display, their PNG files, text that cannot be taken for a formula."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from unet_runtime.core import files
from unet_runtime.io.kind import STAMP_KEY
from unet_training.files import COMMAND

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_DPI = 110


@dataclass(frozen=True)
class Picture:
    """A PNG file and what a page says about it."""

    name: str
    """Name of the file."""
    png: bytes
    alt: str
    """What it shows, in words."""
    caption: str = ""

    @property
    def base64(self) -> str:
        """The PNG for a ``data:`` address."""
        return base64.b64encode(self.png).decode("ascii")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, inches. Not pyplot's: that looks for a display, and keeps every figure."""
    from matplotlib.figure import Figure  # takes 0.5 s, which a training without a report need not wait for

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path, alt: str, caption: str = "") -> Picture:
    """Write a figure as PNG.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI, metadata={STAMP_KEY: COMMAND})
    files.write_bytes(path, content.getvalue())
    return Picture(path.name, content.getvalue(), alt, caption)


def plain(text: str) -> str:
    """Text for a figure: dollar signs start no formula, letters that the font lacks become question marks."""
    letters = [letter if letter.isprintable() and ord(letter) in _letters() else "?" for letter in text]
    return "".join(letters).replace("$", r"\$")


@cache
def _letters() -> frozenset[int]:
    """Code points of the font that figures are written in."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("sans")).get_charmap())


def label_decades(axis: Axis) -> None:
    """Label a logarithmic axis with numbers (0.1, 0.2, 0.5, 1) instead of powers of ten."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())
