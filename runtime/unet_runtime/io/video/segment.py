"""Video in, videos out: every frame segmented, in order; decoding, inference and encoding overlap.

A result has the frames' size, the frame rate and the number of frames of the source. It has no sound. Where the
source's rate varies, frames are repeated, so that the result keeps to its time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from unet_runtime.core.errors import OutputError, SourceError
from unet_runtime.core.segmentation import Segmentation
from unet_runtime.core.stream import Stream
from unet_runtime.io.sinks import VIDEO_KINDS
from unet_runtime.io.video.reader import Frame, Reader
from unet_runtime.io.video.writer import VideoFile
from unet_runtime.segmenter import Segmenter

_AHEAD = 3  # frames that a stage may be ahead of the next: bounds the memory
_MAX_DELAY = 0.1  # seconds. A result that is ahead of its source's clock by more repeats a frame
_MAX_STILL = 60.0  # seconds. A longer gap is a broken clock


class _Clock:
    """How many frames a result of constant rate should have when a frame of the source is to be seen."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._start: float | None = None  # seconds of the source's clock that are the result's 0

    def due(self, seconds: float, count: int) -> int:
        """Frames to have been written before the one of ``seconds``; ``count``, those written, if it is not late."""
        if self._start is None:
            self._start = seconds - count / self._rate
        delay = seconds - self._start - count / self._rate
        if not abs(delay) < _MAX_STILL:  # the clock has been set, or is none
            self._start = None
            return count
        return count + round(delay * self._rate) if delay > _MAX_DELAY else count


def segment_video(
    segmenter: Segmenter,
    source: Path,
    targets: Mapping[str, Path],
    progress: Callable[[int, int], None] | None = None,
    stamp: str = "",
) -> int:
    """Segment each frame of a video, once, into one video or several.

    Args:
        segmenter: the model.
        source: a video file.
        targets: kind, of ``sinks.VIDEO_KINDS`` -> the video to write, whole or not at all; its suffix, of
            ``writer.CODECS``, chooses the container.
        progress: called after each frame with the frames done and the number promised (0: unknown).
        stamp: what the targets record of model and options, see ``io.stamps``.

    Returns:
        Frames written to each target: as many as ``source`` has, more where its rate varies.

    Raises:
        SourceError: ``source`` is no video; or it is damaged, and ``targets`` hold what could be read of it.
        OutputError: a target cannot be written, is ``source``, or is of a kind that no video shows.
        BackendError: the engine failed.
    """
    for kind in targets:
        if kind not in VIDEO_KINDS:
            raise OutputError(f"{source}: a video has no {kind}, expected some of {', '.join(VIDEO_KINDS)}")
    reader = Reader(source)
    for target in targets.values():
        if target.exists() and target.samefile(source):
            raise OutputError(f"{target}: would replace the video it is made of: name another file")

    def draw(result: Segmentation) -> list[Frame]:
        return [VIDEO_KINDS[kind](result) for kind in targets]

    with ExitStack() as opened:
        files = [opened.enter_context(VideoFile(target, reader.rate, stamp)) for target in targets.values()]
        results = opened.enter_context(segmenter.stream(reader, ahead=_AHEAD))  # decodes in one thread
        pictures = opened.enter_context(Stream(results, _unchanged, draw, _AHEAD))  # infers in another
        clock = _Clock(reader.rate)
        count = 0
        last: list[Frame] = []
        for current in pictures:
            due = clock.due(reader.times.popleft(), count)
            repeats = max(0, due - count) if last else 0
            for file, before, picture in zip(files, last or current, current, strict=True):
                for _ in range(repeats):
                    file.write(before)
                file.write(picture)
            count += repeats + 1
            last = current
            if progress is not None:
                progress(count, reader.promised)
    if not count:
        raise SourceError(f"{source}: damaged: not one frame could be read")
    reader.check_complete(targets.values())
    return count


def _unchanged(result: Segmentation) -> Segmentation:
    return result
