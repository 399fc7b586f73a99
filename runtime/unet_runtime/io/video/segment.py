"""Video in, video out: every frame segmented, in order; decoding, inference and encoding overlap.

The result has the frames' size, the frame rate and the number of frames of the source. It has no sound. Where the
source's rate varies, frames are repeated, so that the result keeps to its time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unet_runtime.core.errors import OutputError, SourceError
from unet_runtime.io.video.reader import Frame, Reader

if TYPE_CHECKING:
    from unet_runtime.core.segmentation import Segmentation
    from unet_runtime.segmenter import Segmenter

KINDS = ("overlay", "mask", "cutout")
"""A video has neither a palette nor transparency: masks come in the classes' colours, cut-outs before ``GREEN``."""

GREEN = (0, 177, 64)
"""RGB of the studio screen that editing programs know how to remove."""

_AHEAD = 3
"""Frames that a stage may be ahead of the next: bounds the memory."""

_LATE, _LONGEST_STILL = 0.1, 60.0
"""Seconds. A result that is ahead of its source's clock by more than the first repeats a frame; a gap longer than the
second is a broken clock."""


class _Clock:
    """How many frames a result of constant rate should have when a frame of the source is to be seen."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._start: float | None = None  # seconds of the source's clock that are the result's 0

    def due(self, seconds: float, count: int) -> int:
        """Frames to have been written before the one of ``seconds``; ``count``, those written, if it is not late."""
        if self._start is None:
            self._start = seconds - count / self._rate
        late = seconds - self._start - count / self._rate
        if not abs(late) < _LONGEST_STILL:  # the clock has been set, or is none
            self._start = None
            return count
        return count + round(late * self._rate) if late > _LATE else count


def segment_video(
    segmenter: Segmenter,
    source: Path,
    target: Path,
    kind: str = "overlay",
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Segment each frame of a video into another video.

    Args:
        segmenter: the model.
        source: a video file.
        target: the video to write, whole or not at all; its suffix, of ``videofile.CODECS``, chooses the container.
        kind: of ``KINDS``.
        progress: called after each frame with the frames done and the number promised (0: unknown).

    Returns:
        Frames written: as many as ``source`` has, more where its rate varies.

    Raises:
        SourceError: ``source`` is no video; or it is damaged, and ``target`` holds what could be read of it.
        OutputError: ``target`` cannot be written, or is ``source``.
        BackendError: the engine failed.
    """
    from unet_runtime.core.stream import Stream
    from unet_runtime.io.video.writer import VideoFile

    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}, expected one of {', '.join(KINDS)}")
    reader = Reader(source)
    if target.exists() and target.samefile(source):
        raise OutputError(f"{target}: would replace the video it is made of: name another file")

    with (
        VideoFile(target, reader.rate) as file,
        segmenter.stream(reader, ahead=_AHEAD) as results,  # decodes in one thread
        Stream(results, _as_it_is, lambda result: _picture(result, kind), _AHEAD) as pictures,  # infers in another
    ):
        clock = _Clock(reader.rate)
        before: Frame | None = None
        for picture in pictures:
            due = clock.due(reader.times.popleft(), file.count)
            while before is not None and file.count < due:
                file.write(before)
            file.write(picture)
            before = picture
            if progress is not None:
                progress(file.count, reader.promised)
    if not file.count:
        raise SourceError(f"{source}: damaged: not one frame could be read")
    reader.check_complete(target)
    return file.count


def _picture(result: Segmentation, kind: str) -> Frame:
    """uint8 (H, W, 3) RGB."""
    from PIL import Image

    if kind == "mask":
        return np.asarray(result.mask_image().convert("RGB"))
    if kind == "overlay":
        return np.asarray(result.overlay())
    cutout = result.cutout()
    screen = Image.new("RGB", cutout.size, GREEN)
    screen.paste(cutout, mask=cutout)
    return np.asarray(screen)


def _as_it_is(result: Segmentation) -> Segmentation:
    return result
