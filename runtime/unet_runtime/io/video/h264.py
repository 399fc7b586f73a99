"""A video that plays everywhere: H.264 with each picture at its own time, and the source's sound. Needs ffmpeg."""

from __future__ import annotations

import logging
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unet_runtime.core.errors import OutputError
from unet_runtime.core.files import publish, temporary_sibling
from unet_runtime.io.stamps import mark_video
from unet_runtime.io.video import ffmpeg, matroska
from unet_runtime.io.video.opencv import load_opencv
from unet_runtime.io.video.writer import frames_in

logger = logging.getLogger(__name__)

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv"})

WITHOUT_PROGRAM = ("no program ffmpeg with an H.264 encoder", "install it (apt-get install ffmpeg)")
"""(why a file is not H.264, what to do)"""
WITHOUT_SUFFIX = ("files of this suffix are written by OpenCV", "name an .mp4")

_CLOCK = "90000"  # ticks a second
_NO_FACTS = ffmpeg.Facts()
_END_SECONDS = 10.0  # for the program to end after its input has been closed


def choose(paths: Iterable[Path]) -> tuple[ffmpeg.Program | None, tuple[str, str]]:
    """The program that writes these files, or None; and why it does not, and what to do."""
    if not all(path.suffix.lower() in SUFFIXES for path in paths):
        return None, WITHOUT_SUFFIX
    return ffmpeg.find(), WITHOUT_PROGRAM


class H264File:
    """Takes pictures and their times into a file that is whole at its place when it is closed, or not there at all.

    Args:
        path: its suffix, of ``SUFFIXES``, chooses the container.
        program: what encodes.
        source: the video whose sound is taken; None where there is none.
        facts: of ``source``.
        rate: pictures a second, about.
        aspect: width of a pixel by its height, as two integers.
        stamp: what the file records of its origin, see ``io.stamps``.

    Raises:
        OutputError: a place that cannot be written.
    """

    def __init__(
        self,
        path: Path,
        program: ffmpeg.Program,
        source: Path | None = None,
        facts: ffmpeg.Facts = _NO_FACTS,
        *,
        rate: float,
        aspect: tuple[int, int] = (1, 1),
        stamp: str = "",
    ) -> None:
        self.path = path
        self.count = 0
        """Pictures written."""
        self._program = program
        self._source = source
        self._facts = facts
        self._rate = rate
        self._aspect = aspect
        self._stamp = stamp
        self._process: subprocess.Popen[bytes] | None = None
        self._stalled = threading.Event()
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._size = (0, 0)
        suffix = f".part{path.suffix.lower()}"
        self._silent, self._sounding = temporary_sibling(path, suffix), temporary_sibling(path, suffix)
        self._check_place()

    def __enter__(self) -> H264File:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def write(self, picture: npt.NDArray[np.uint8], seconds: float) -> None:
        """Add a picture, uint8 (H, W, 3) RGB, to be seen at a time later than the one before.

        Colours are stored for two by two pixels: of an odd height or width the last row or column is lost.

        Raises:
            OutputError: the program has ended, for instance because the disk is full.
        """
        picture = picture[: picture.shape[0] // 2 * 2 or None, : picture.shape[1] // 2 * 2 or None]
        size = (picture.shape[1], picture.shape[0])
        if self._process is None:
            self._size = size
            self._process = self._start(size)
            self._send(matroska.head(size, self._rate))
        elif size != self._size:
            cv2 = load_opencv("a video file")
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        with ffmpeg.patience(self._process) as self._stalled:
            self._send(matroska.picture_head(seconds, picture.nbytes))
            self._send(np.ascontiguousarray(picture).data)
        self.count += 1

    def close(self) -> None:
        """Finish the file, add the sound and move it into place; without a picture there is no file.

        Raises:
            OutputError: the file is incomplete, for instance because the disk is full.
        """
        if self._process is None:
            self._messages.close()
            return
        try:
            process, self._process = self._process, None
            with suppress(OSError):
                assert process.stdin is not None
                process.stdin.close()
            if not ffmpeg.ended(process, self._silent):
                raise self._error(ffmpeg.STALLED)
            if process.returncode:
                raise self._error()
            found = frames_in(self._silent)
            is_estimate = self.path.suffix.lower() == ".mkv"  # from its duration and rate
            if found != self.count and not (is_estimate and found):
                raise OutputError(
                    f"{self.path}: {self.count} frames were written, the file holds {found}: is the disk full?"
                )
            finished = self._with_sound()
            mark_video(finished, self._stamp)
            publish(finished, self.path)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror or error})") from error
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove what was written."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_END_SECONDS)
            with suppress(OSError):
                assert self._process.stdin is not None
                self._process.stdin.close()
            self._process = None
        self._messages.close()
        for part in (self._silent, self._sounding):
            part.unlink(missing_ok=True)

    def _check_place(self) -> None:
        try:
            if self.path.is_dir():
                raise OutputError(f"{self.path}: is a folder, expected a file to write")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._silent.touch(exist_ok=False)
            self._silent.unlink()
        except OSError as error:
            self._messages.close()
            raise OutputError(f"{self.path}: cannot be written ({error.strerror})") from error
        except OutputError:
            self._messages.close()
            raise

    def _start(self, size: tuple[int, int]) -> subprocess.Popen[bytes]:
        arguments = [self._program.ffmpeg, "-v", "error", "-f", "matroska", "-i", "pipe:0", "-map", "0:v:0"]
        arguments += ["-c:v", self._program.encoder, "-pix_fmt", "yuv420p", "-enc_time_base", f"1:{_CLOCK}"]
        arguments += self._program.own_times
        if self._program.encoder == "libx264":
            arguments += ["-preset", "veryfast", "-crf", "20"]
        else:
            arguments += ["-b:v", str(max(1_000_000, size[0] * size[1] * 6))]
        arguments += ["-vf", "setsar={}/{}".format(*self._aspect)]
        for option in self._facts.colours:
            arguments += option
        arguments += self._container_options()
        arguments.append(ffmpeg.as_input(self._silent))
        try:
            return subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._messages,
                start_new_session=os.name == "posix",  # Ctrl-C is for us: we end it
            )
        except OSError as error:
            raise OutputError(f"{self.path}: ffmpeg does not start ({error.strerror or error})") from error

    def _container_options(self) -> list[str]:
        if self.path.suffix.lower() == ".mkv":
            return []
        return ["-movflags", "+faststart", "-video_track_timescale", _CLOCK]

    def _send(self, content: bytes | memoryview) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(content)
        except OSError:
            self._process.wait()
            raise self._error(ffmpeg.STALLED if self._stalled.is_set() else "") from None

    def _error(self, reason: str = "") -> OutputError:
        self._messages.seek(0)
        reason = reason or ffmpeg.last_line(self._messages.read()) or "ended early: is the disk full?"
        return OutputError(f"{self.path}: cannot be written (ffmpeg: {reason})")

    def _with_sound(self) -> Path:
        """The finished file, with the sound where there is any."""
        if self._source is None or not self._facts.sound:
            return self._silent
        copied = ffmpeg.COPIED_SOUND.issuperset(self._facts.sound) or self.path.suffix.lower() == ".mkv"
        problem = ""
        for codec in ("copy", "aac") if copied else ("aac",):
            problem = ffmpeg.run(self._sound_arguments(self._source, codec), self._sounding)
            if not problem:
                return self._sounding
        logger.warning("%s: without sound: ffmpeg cannot add that of %s (%s)", self.path, self._source, problem)
        return self._silent

    def _sound_arguments(self, source: Path, codec: str) -> list[str]:
        arguments = [self._program.ffmpeg, "-v", "error", "-y"]
        arguments += ["-itsoffset", f"{self._facts.offset:.6f}", "-i", ffmpeg.as_input(self._silent)]
        arguments += ["-i", ffmpeg.as_input(source), "-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", codec]
        return [*arguments, *self._container_options(), ffmpeg.as_input(self._sounding)]
