"""What passes between the main thread, which has pictures, and a web view's clients, which want the newest."""

from __future__ import annotations

import io
import threading
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from unet_runtime.live.view import Status

_QUALITY = 85
"""Of the JPEG files, 1..95: above it they grow faster than they improve."""


class Shown(NamedTuple):
    """A picture that was shown."""

    number: int
    """From 1 on."""
    picture: npt.NDArray[np.uint8]
    """(H, W, 3) RGB."""
    status: Status


class Feed:
    """The newest picture, as a JPEG file if somebody wants it, and the keys that clients have pressed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._shown: Shown | None = None
        self._pressed = ""
        self._ended = False
        self._encoding = threading.Lock()
        self._encoded: tuple[Shown, bytes] | None = None

    def put(self, picture: npt.NDArray[np.uint8], status: Status) -> None:
        with self._changed:
            self._shown = Shown(self._shown.number + 1 if self._shown else 1, picture, status)
            self._changed.notify_all()

    def end(self) -> None:
        """Wake up whoever waits: there will be no more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        with self._changed:
            return self._ended

    def newest(self, after: int = 0, wait: float = 0.0) -> Shown | None:
        """The newest picture, once its number is another than ``after``; None if it is not within ``wait`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._number() != after, wait)
            return self._shown if self._number() != after else None

    def jpeg(self, shown: Shown) -> tuple[Shown, bytes]:
        """``shown``, or one that came meanwhile, with its JPEG file. Each picture is encoded once at most."""
        with self._encoding:
            newest = self.newest() or shown
            if self._encoded is None or self._encoded[0].number != newest.number:
                file = io.BytesIO()
                Image.fromarray(newest.picture).save(file, "JPEG", quality=_QUALITY)
                self._encoded = (newest, file.getvalue())
            return self._encoded

    def press(self, keys: str) -> None:
        with self._changed:
            self._pressed += keys

    def take_keys(self) -> str:
        with self._changed:
            pressed, self._pressed = self._pressed, ""
        return pressed

    def _number(self) -> int:
        return self._shown.number if self._shown else 0
