"""What each kind of result file says of itself; sinks.py lists the kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from unet_runtime.core.segmentation import Result

STAMP_KEY = "unet-edge"
"""Names the stamp in a file's own metadata, and shows that the file is one of ours."""

Checkpoint = Callable[[], None]
"""Called between two steps; raises to stop."""


@dataclass(frozen=True)
class Metadata:
    """What a result file records about its origin, and how it shows it."""

    photo: str = ""
    """File name of the photo."""
    engine: str = ""
    """What ran the model, for people."""
    contours: str = "polygons"
    """How ``json`` shows outlines: one of ``coco.CONTOURS``."""
    stamp: str = ""
    """Changes with the model and with every option that decides the result, see ``sinks.stamp``."""


@dataclass(frozen=True)
class Kind:
    """One kind of result file."""

    suffix: str
    """``photo.jpg`` gives ``photo`` with this suffix."""
    write: Callable[[Result, BinaryIO, Metadata, Checkpoint], None]
    """Writes the file's bytes, the stamp among the first or last ``sinks.STAMP_REACH``."""
    frame: Callable[[Result], npt.NDArray[np.uint8]] | None = None
    """Gives uint8 (H, W, 3) RGB, the picture in a video; None: there is no video of this kind."""
    is_common_name: bool = False
    """Other programs write files of such names: one of theirs is not replaced."""
