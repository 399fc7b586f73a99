"""Cameras of boards: a program of the board's maker sends JPEG pictures through a pipe.

OpenCV cannot open them: https://github.com/opencv/opencv/issues/22820. Raspberry Pi's ``rpicam-vid`` (on Bullseye
``libcamera-vid``) and GStreamer's ``gst-launch-1.0`` with NVIDIA's elements can.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from unet_runtime.core.errors import SourceError
from unet_runtime.io.addresses import shown_address

PICAMERA, CSI, GST = "picamera", "csi", "gst"

NAMES = (PICAMERA, CSI, GST)
"""``picamera``, ``picamera:1``, ``csi``, ``csi:1``, ``gst:ELEMENT ! ... ! jpegenc``."""

_WIDTH, _HEIGHT, _RATE = 640, 480, 30
"""More pixels cost the board time, and the model does not see them."""

_RPICAM = ("rpicam-vid", "libcamera-vid")
_GST_LAUNCH = "gst-launch-1.0"

_INSTALL = {
    PICAMERA: "sudo apt install rpicam-apps (Bullseye: libcamera-apps)",
    CSI: "sudo apt install gstreamer1.0-tools nvidia-l4t-gstreamer",
    GST: "sudo apt install gstreamer1.0-tools gstreamer1.0-plugins-good",
}

_START, _END = b"\xff\xd8", b"\xff\xd9"
_SCAN = 0xDA
_ALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length
_MOST_BYTES = 1 << 25
_BLOCK = 1 << 17
_SECONDS_TO_END = 2.0


def is_piped(text: str) -> bool:
    """Whether ``--webcam`` names such a camera."""
    kind, colon, rest = text.partition(":")
    return kind in NAMES and (kind == GST) == bool(colon and not rest.isdecimal())


def command(text: str) -> list[str]:
    """The program, with its arguments, that sends a camera's pictures to its standard output.

    Raises:
        SourceError: the number of the camera is none, or there is no pipeline.
    """
    kind, colon, rest = text.partition(":")
    if kind == GST:
        return _gst_command(rest)
    if colon and not rest.isdecimal():
        raise SourceError(f"{text}: expected {kind} or {kind}:1 with the camera's number")
    number = int(rest or 0)
    if kind == PICAMERA:
        program = next(filter(shutil.which, _RPICAM), _RPICAM[0])
        return [
            *(program, "--camera", str(number), "--timeout", "0", "--nopreview", "--codec", "mjpeg", "--flush"),
            *("--width", str(_WIDTH), "--height", str(_HEIGHT), "--framerate", str(_RATE), "--output", "-"),
        ]
    return _gst_command(
        f"nvarguscamerasrc sensor-id={number} ! video/x-raw(memory:NVMM),width=1280,height=720,framerate={_RATE}/1 ! "
        f"nvvidconv ! video/x-raw,format=I420,width={_WIDTH},height=360 ! nvjpegenc"
    )


def _gst_command(pipeline: str) -> list[str]:
    try:
        words = shlex.split(pipeline)
    except ValueError as error:
        raise SourceError(f"gst:{shown(pipeline)}: {error}: expected a pipeline as gst-launch-1.0 takes it") from error
    if not words:
        raise SourceError(f"{GST}: names no pipeline, expected one such as gst:v4l2src ! videoconvert ! jpegenc")
    return [_GST_LAUNCH, "--quiet", *words, "!", "fdsink", "fd=1"]


def shown(text: str) -> str:
    """A pipeline, or what a program said, without the secrets of addresses and properties in it."""
    return " ".join(map(shown_address, text.split()))


def problem(text: str, seconds: float) -> str:
    """Why such a camera gives no picture: its program is started once more, and its last words are repeated."""
    words = command(text)
    if shutil.which(words[0]) is None:
        return f"{words[0]} is not installed: {_INSTALL[text.partition(':')[0]]}"
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{words[0]} runs, but sent no JPEG picture within {seconds:g} s"
    except OSError as error:
        return f"{words[0]} does not start ({error.strerror}): {_INSTALL[text.partition(':')[0]]}"
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    said = f": {shown(lines[-1])}" if lines else ""
    advice = "is the camera connected, does another program use it?"
    return f"{words[0]} ended with exit code {done.returncode}{said}: {advice}"


class Piped:
    """A program's pictures, read as a ``cv2.VideoCapture`` is; what has gathered while nobody read is left out.

    Args:
        cv2: the module.
        text: what ``is_piped`` accepts.
        timeout: seconds for one picture.
    """

    def __init__(self, cv2: Any, text: str, timeout: float) -> None:
        self._cv2 = cv2
        self._timeout = timeout
        self._buffer = bytearray()
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # a pipe that nobody reads would fill up
        try:
            # In a session of its own: Ctrl-C in the terminal is for us, who then end it.
            self._process = subprocess.Popen(
                command(text),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._said,
                start_new_session=True,
            )
        except OSError:
            self._said.close()
            raise

    def read(self) -> tuple[bool, npt.NDArray[np.uint8] | None]:
        """(whether there is one, uint8 (H, W, 3) BGR)."""
        deadline = time.monotonic() + self._timeout
        while True:
            there = self._receive(0.0)
            newest = b""
            while frame := take_picture(self._buffer):
                newest = frame
            if newest:
                picture = self._cv2.imdecode(np.frombuffer(newest, np.uint8), self._cv2.IMREAD_COLOR)
                if picture is not None:
                    return True, picture
            left = deadline - time.monotonic()
            if left <= 0 or len(self._buffer) > _MOST_BYTES or (not there and not self._receive(left)):
                return False, None

    def _receive(self, seconds: float) -> bool:
        """Take over what the program has sent, waiting at most so long for the first of it; False: nothing came."""
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        came = False
        while select.select([pipe], [], [], 0.0 if came else seconds)[0]:
            block = os.read(pipe, _BLOCK)
            if not block:
                return came
            came = True
            self._buffer += block
            if len(self._buffer) > _MOST_BYTES:
                break
        return came

    def get(self, prop: int) -> float:
        """No property is known."""
        return 0.0

    def release(self) -> None:
        """End the program."""
        self._process.terminate()
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with suppress(OSError):
            if self._process.stdout is not None:
                self._process.stdout.close()
        self._said.close()


def take_picture(buffer: bytearray) -> bytes:
    """Remove the first whole JPEG picture from a buffer, and what stands before it; empty where there is none yet.

    Segments are stepped over by their lengths: a thumbnail in one of them has an end of its own.
    """
    start = buffer.find(_START)
    if start < 0:
        del buffer[:-1]
        return b""
    del buffer[:start]
    place = len(_START)
    while place + 4 <= len(buffer):
        if buffer[place] != 0xFF:
            del buffer[: len(_START)]  # no picture: look for the next start
            return take_picture(buffer)
        marker = buffer[place + 1]
        if marker == 0xFF:
            place += 1
        elif marker in _ALONE:
            place += 2
        elif marker == _SCAN:
            end = buffer.find(_END, place)
            if end < 0:
                return b""
            picture = bytes(buffer[: end + len(_END)])
            del buffer[: len(picture)]
            return picture
        else:
            place += 2 + int.from_bytes(buffer[place + 2 : place + 4], "big")
    return b""
