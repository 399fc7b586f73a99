"""Exchange between the main thread, which has pictures, and a web view's clients, which want the newest."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from unet_runtime.live.newest import Newest, Numbered
from unet_runtime.live.view import Status

_QUALITY = 85
"""JPEG quality, 1..95: above it files grow faster than they improve."""


@dataclass(frozen=True)
class Picture:
    pixels: npt.NDArray[np.uint8]
    """(H, W, 3) RGB."""
    status: Status


class Feed(Newest[Picture]):
    """The newest picture, as a JPEG file if somebody wants it, and the keys that clients have pressed."""

    def __init__(self) -> None:
        super().__init__()
        self._pressed: dict[str, None] = {}  # in order, each once: a thousand presses of s must not save for minutes
        self._encoding = threading.Lock()
        self._encoded: tuple[Numbered[Picture], bytes] | None = None

    def jpeg(self, after: int = 0, timeout: float = 0.0) -> tuple[Numbered[Picture], bytes] | None:
        """As ``get``, with the picture's JPEG file. Each picture is encoded once at most."""
        newest = self.get(after, timeout)
        if newest is None:
            return None
        with self._encoding:
            newest = self.get() or newest  # one may have come meanwhile
            if self._encoded is None or self._encoded[0].number != newest.number:
                file = io.BytesIO()
                Image.fromarray(newest.value.pixels).save(file, "JPEG", quality=_QUALITY)
                self._encoded = (newest, file.getvalue())
            return self._encoded

    def press(self, keys: str) -> None:
        """Take some of ``view.KEYS``; a key that waits already waits once."""
        with self._changed:
            self._pressed.update(dict.fromkeys(keys))

    def take_keys(self) -> str:
        with self._changed:
            pressed = "".join(self._pressed)
            self._pressed.clear()
        return pressed
