"""What one client, and all of them together, may take."""

from __future__ import annotations

from dataclasses import dataclass, replace

from unet_runtime.io.jobs import PIXELS_IN_WORK

MEGABYTE = 1_000_000

_BODY_SECONDS = 30.0


@dataclass(frozen=True)
class Limits:
    """Bounds of the service; each is checked before the work that it bounds."""

    body: int = 50 * MEGABYTE
    """Bytes of a request's body."""
    bodies: int = 250 * MEGABYTE
    """Bytes of all bodies that are being received or wait for their turn."""
    pixels: int = 50_000_000
    """Pixels of a photo, by its header, before it is decoded."""
    pixels_in_work: int = PIXELS_IN_WORK
    """Pixels of all photos in work together; a larger photo is in work alone."""
    waiting: int = 64
    """Requests that wait for a worker; a further one gets status 429."""
    seconds: float = 60.0
    """From a request's last byte to its response."""
    photos: int = 64
    """Photos of one request of the Open Inference Protocol."""

    @property
    def body_seconds(self) -> float:
        """From a request's first byte to its last: a client that sends slowly holds memory."""
        return min(self.seconds, _BODY_SECONDS)

    @property
    def all_bodies(self) -> int:
        """``bodies``, but at least one whole body."""
        return max(self.body, self.bodies)

    def share(self, workers: int) -> Limits:
        """The limits of one process of several, which together keep these."""
        return replace(
            self,
            bodies=self.bodies // workers,
            pixels_in_work=self.pixels_in_work // workers,
            waiting=-(-self.waiting // workers),
        )
