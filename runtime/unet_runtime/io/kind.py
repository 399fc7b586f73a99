"""What each kind of result file says of itself; sinks.py lists the kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from unet_runtime.core.segmentation import Result

if TYPE_CHECKING:
    import numpy.typing as npt

STAMP_KEY = "unet-edge"
"""Names the stamp in a file's own metadata, and shows that the file is one of ours."""

Checkpoint = Callable[[], None]
"""Called between two steps; raises to stop."""


class Metadata(NamedTuple):
    """What a result file records about its origin, and how it shows it."""

    photo: str = ""
    """File name of the photo."""
    engine: str = ""
    """What ran the model, for people."""
    contours: str = "polygons"
    """How ``json`` shows outlines: one of ``coco.CONTOURS``."""
    stamp: str = ""
    """Changes with the model and with every option that decides the result, see ``stamps.stamp``."""


class Kind(NamedTuple):  # not dataclasses: half a millisecond of a cold start each
    """One kind of result file."""

    suffix: str
    """``photo.jpg`` gives ``photo`` with this suffix."""
    write: Callable[[Result, BinaryIO, Metadata, Checkpoint], None]
    """Writes the file's bytes, ``stamps.mark`` among the first or last ``stamps.STAMP_REACH``."""
    frame: Callable[[Result], npt.NDArray[np.uint8]] | None = None
    """Gives uint8 (H, W, 3) RGB, the picture in a video; None: there is no video of this kind."""
    picture: Callable[[Result], Image.Image] | None = None
    """Gives the whole picture, for the formats of ``other_suffixes``."""
    other_suffixes: tuple[str, ...] = ()
    """Suffixes that a file may have which the user names, of ``formats.FORMATS``, beside the end of ``suffix``."""

    @property
    def own_suffix(self) -> str:
        """``.png`` of ``.mask.png``."""
        return self.suffix[self.suffix.rindex(".") :]

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Every suffix that a file of this kind may have."""
        return (self.own_suffix, *self.other_suffixes)
