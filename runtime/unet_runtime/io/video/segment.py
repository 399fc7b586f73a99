"""Video in, videos out: every frame segmented, in order; decoding, inference and encoding overlap.

A result has the frames' size and pixel aspect, upright. Where the program ffmpeg is installed it is H.264, has the
source's sound, and each frame at its own time. Else OpenCV writes it, without sound and at a constant rate: frames are
repeated or left out so that it keeps to its source's time.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from unet_runtime.core.errors import OutputError
from unet_runtime.core.segmentation import Segmentation
from unet_runtime.core.stream import Stream
from unet_runtime.io.sinks import VIDEO_KINDS
from unet_runtime.io.video import ffmpeg, h264
from unet_runtime.io.video.reader import Frame, Reader, plausible_rate
from unet_runtime.io.video.smooth import Smoother
from unet_runtime.io.video.writer import VideoFile
from unet_runtime.segmenter import Prepared, Segmenter

logger = logging.getLogger(__name__)

_AHEAD = 3  # frames that a stage may be ahead of the next: bounds the memory
_MAX_DELAY = 0.04  # seconds. A result that is off its source's clock by more repeats a frame, or leaves one out
_MAX_LEAD = 1.0  # seconds. More is no fast source, but a clock that was set back
_MAX_STILL = 60.0  # seconds. A longer gap is a broken clock
_LEAST_STEP = 1e-4  # seconds
_LEAST_RATE = 25.0  # frames a second, for sources of less than half of it: else frames could not keep to their time

_HDR = ("smpte2084", "arib-std-b67")
"""ffprobe's names of PQ and HLG."""

_LOSS = "%s: %s: the result %shas no sound and a constant frame rate: %s"

Write = Callable[[list[Frame], float], None]
"""Takes one picture for each target, and its time in seconds."""


class _Clock:
    """How many frames a result of constant rate should have when a frame of the source is to be seen."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._start: float | None = None  # seconds of the source's clock that are the result's 0

    def due(self, seconds: float, count: int) -> int:
        """Frames to have been written before the one of ``seconds``; ``count``, those written, if it is not late.

        One less means that it is too early for this frame.
        """
        if self._start is None:
            self._start = seconds - count / self._rate
        delay = seconds - self._start - count / self._rate
        if not abs(delay) < _MAX_STILL:  # the clock has been set, or is none
            self._start = None
            return count
        if delay > _MAX_DELAY:
            return count + round(delay * self._rate)
        return count - 1 if -_MAX_LEAD < delay < -_MAX_DELAY - _LEAST_STEP else count


class _Times:
    """Times that grow from 0, whatever a source's clock says; raw streams have none."""

    def __init__(self, rate: float) -> None:
        self._step = 1 / rate
        self._shift = 0.0
        self._last: float | None = None

    def next(self, seconds: float) -> float:
        if self._last is None:
            self._shift = -seconds if abs(seconds) < float("inf") else 0.0
            self._last = 0.0
            return 0.0
        time = seconds + self._shift
        if not _LEAST_STEP <= time - self._last < _MAX_STILL:
            time = self._last + self._step
            self._shift = time - seconds if abs(seconds) < float("inf") else self._shift
        self._last = time
        return time


def segment_video(
    segmenter: Segmenter,
    source: Path,
    targets: Mapping[str, Path],
    progress: Callable[[int, int], None] | None = None,
    stamp: str = "",
    *,
    refine: bool = False,
    smooth: float = 0.0,
) -> int:
    """Segment each frame of a video, once, into one video or several.

    Args:
        segmenter: the model.
        source: a video file.
        targets: kind, of ``sinks.VIDEO_KINDS`` -> the video to write, whole or not at all; its suffix, of
            ``writer.CODECS``, chooses the container.
        progress: called after each frame with the frames done and the number promised (0: unknown).
        stamp: what the targets record of model and options, see ``io.stamps``.
        refine: whether the edges of cut-outs follow the picture, see ``Segmentation.refined``.
        smooth: share of the last frames in each, see ``Smoother``.

    Returns:
        Frames segmented: as many as ``source`` has.

    Raises:
        SourceError: ``source`` is no video; or it is damaged, and ``targets`` hold what could be read of it.
        OutputError: a target cannot be written, is ``source``, or is of a kind that no video shows.
        BackendError: the engine failed.
    """
    _check_targets(source, targets)
    reader = Reader(source)

    def draw(result: Segmentation) -> list[Frame]:
        shown = result.refined() if refine else result
        return [VIDEO_KINDS[kind](shown) for kind in targets]

    smoother = Smoother(smooth, segmenter.spec)

    def segment(prepared: Prepared) -> Segmentation:
        return segmenter.finish(prepared, smoother(prepared.images, segmenter.infer(prepared.images)[0]))

    program, why_not = h264.choose(targets.values())
    facts = ffmpeg.probe(program, source) if program else ffmpeg.Facts()
    if any(value in _HDR for _, value in facts.colours):
        logger.warning("%s: is an HDR video: the model sees its pictures as if they were not, darker and paler", source)
    rate = plausible_rate(facts.rate or reader.rate)
    times = _Times(rate)
    with ExitStack() as opened:
        if program is not None:
            write = _timed(reader, targets.values(), program, facts, rate, stamp, opened)
        else:
            write = _constant(reader, targets.values(), why_not, stamp, opened)
        prepared = opened.enter_context(Stream(reader, segmenter.prepare, segment, _AHEAD))  # decodes in one thread
        pictures = opened.enter_context(Stream(prepared, _unchanged, draw, _AHEAD))  # infers in another
        count = 0
        for current in pictures:
            write(current, times.next(reader.times.popleft()))
            count += 1
            if progress is not None:
                progress(count, reader.promised)
    if not count:
        raise reader.no_frame()
    reader.check_complete(targets.values())
    return count


def _check_targets(source: Path, targets: Mapping[str, Path]) -> None:
    for kind, target in targets.items():
        if kind not in VIDEO_KINDS:
            raise OutputError(f"{source}: a video has no {kind}, expected some of {', '.join(VIDEO_KINDS)}")
        if source.exists() and target.exists() and target.samefile(source):
            raise OutputError(f"{target}: would replace the video it is made of: name another file")


def _timed(
    reader: Reader,
    targets: Iterable[Path],
    program: ffmpeg.Program,
    facts: ffmpeg.Facts,
    rate: float,
    stamp: str,
    opened: ExitStack,
) -> Write:
    """H.264 files, each frame at its own time."""
    files = []
    for path in targets:
        file = h264.H264File(path, program, reader.path, facts, rate=rate, aspect=reader.aspect, stamp=stamp)
        files.append(opened.enter_context(file))

    def write(pictures: list[Frame], seconds: float) -> None:
        for file, picture in zip(files, pictures, strict=True):
            file.write(picture, seconds)

    return write


def _constant(
    reader: Reader, targets: Iterable[Path], why_not: tuple[str, str], stamp: str, opened: ExitStack
) -> Write:
    """Files of OpenCV, of constant rate and square pixels."""
    rate = reader.rate * max(1, math.ceil(_LEAST_RATE / reader.rate)) if reader.rate < _LEAST_RATE / 2 else reader.rate
    files = [opened.enter_context(VideoFile(path, rate, stamp)) for path in targets]
    lost = "" if all(file.plays_in_browsers for file in files) else "does not play in browsers, "
    reason, advice = why_not
    logger.warning(_LOSS, reader.path, reason, lost, advice)
    clock = _Clock(rate)
    last: list[Frame] = []

    def write(pictures: list[Frame], seconds: float) -> None:
        nonlocal last
        count = files[0].count if files else 0
        due = clock.due(seconds, count)
        if due < count and last:
            return
        squared = [_square(picture, reader.aspect) for picture in pictures]
        for file, before, picture in zip(files, last or squared, squared, strict=True):
            for _ in range(due - count if last else 0):
                file.write(before)
            file.write(picture)
        last = squared

    return write


def _square(picture: Frame, aspect: tuple[int, int]) -> Frame:
    """A picture of square pixels, widened or heightened."""
    if aspect[0] == aspect[1]:
        return picture
    import cv2

    height, width = picture.shape[:2]
    ratio = aspect[0] / aspect[1]
    size = (round(width * ratio), height) if ratio > 1 else (width, round(height / ratio))
    enlarged: Frame = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR).astype(picture.dtype)
    return enlarged


def _unchanged(result: Segmentation) -> Segmentation:
    return result
