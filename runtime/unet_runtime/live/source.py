"""What the user named -> an open OpenCV capture, or what to do about one that does not open."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from unet_runtime.core.errors import SourceError
from unet_runtime.io.addresses import ENCODE, meant_address, named_file, parse_address, shown_address
from unet_runtime.io.video.opencv import load_opencv, plain_path
from unet_runtime.live import piped


@dataclass(frozen=True)
class Source:
    """Where frames come from."""

    kind: Literal["camera", "file", "stream", "snapshots", "program"]
    """A camera of this machine, a video file played as if it were one, an address, one that gives a picture a time, a
    program that sends pictures (see ``piped``)."""
    target: int | str
    """As OpenCV takes it: a camera's number, a path or an address."""
    name: str
    """For people: ``camera 0``, ``rtsp://user:***@10.0.0.7/stream``."""


@dataclass(frozen=True)
class Patience:
    """How long a camera is waited for, in seconds."""

    open: float = 5.0
    """For a stream to respond."""
    read: float = 3.0
    """For the next frame of a stream, until it counts as lost. (V4L2 cameras: see opencv.py.)"""
    delays: tuple[float, ...] = (0.2, 1, 2, 4, 8, 16, 30)
    """Before each new attempt to find a lost camera; the last for all further ones."""


_CAMERA_DIGITS = 4


def parse_source(text: str) -> Source:
    """A camera's number (``0``), a device (``/dev/video0``), a video file, an address (``rtsp://``, ``http://``), or a
    board's own (``picamera``, ``csi:1``).

    Raises:
        SourceError: none of these; the message lists this machine's cameras.
    """
    if text.isdecimal() and len(text) <= _CAMERA_DIGITS:
        return Source("camera", int(text), f"camera {int(text)}")
    if piped.is_piped(text):
        piped.command(text)  # refuses what is none
        return Source("program", text, piped.shown(text))
    if named_file(text):
        raise SourceError(f"{text}: expected a path, not an address of a file: {named_file(text)}")
    meant = meant_address(text)
    if "://" in text:
        if meant.partition("://")[0] != text.partition("://")[0].lower():
            raise _mistyped(text, meant)
        return Source("stream", parse_address(text).url, shown_address(text))
    path = Path(text)
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
            raise OSError(errno.EINVAL, "a folder or a pipe")
    except (OSError, ValueError) as error:
        if meant != text:
            raise _mistyped(text, meant) from error
        reason = getattr(error, "strerror", None) or "no name of a file"
        raise SourceError(
            f"{shown_address(text)}: {reason}: expected a camera's number, a device, a video file, an address such as "
            f"rtsp://10.0.0.7/stream, picamera (Raspberry Pi) or csi (Jetson); {cameras_here()}"
        ) from error
    return Source("camera" if stat.S_ISCHR(mode) else "file", text, text)


def _mistyped(text: str, meant: str) -> SourceError:
    return SourceError(f"{shown_address(text)}: no address, expected one such as {shown_address(meant)}: is it that?")


def resolved(source: Source, patience: Patience) -> Source:
    """The source, an HTTP address of single pictures recognised as such; asks it once."""
    if source.kind == "stream" and str(source.target).lower().startswith(("http://", "https://")):
        from unet_runtime.live.fetch import gives_pictures  # HTTP is slow to import

        if gives_pictures(str(source.target), patience.open):
            return replace(source, kind="snapshots")
    return source


def open_capture(source: Source, patience: Patience) -> Any | None:
    """A ``cv2.VideoCapture`` that is open, or None. Takes ``patience.open`` seconds at the most."""
    cv2 = load_opencv("a camera")
    try:
        if source.kind == "camera":
            capture = cv2.VideoCapture(source.target, cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY)
        elif source.kind == "file":
            with plain_path(Path(str(source.target))) as name:
                capture = cv2.VideoCapture(name)
        elif source.kind == "program":
            return piped.Piped(cv2, str(source.target), patience.open)
        elif source.kind == "snapshots":
            return _open_snapshots(cv2, str(source.target), patience)
        else:
            capture = _open_stream(cv2, str(source.target), patience)
    except (cv2.error, FileNotFoundError, PermissionError):
        return None
    if capture.isOpened():
        return capture
    capture.release()
    return None


def _open_snapshots(cv2: Any, address: str, patience: Patience) -> Any:
    from unet_runtime.live.fetch import Snapshots

    return Snapshots(cv2, address, patience.read)


_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"

# TCP: a lost packet delays the picture; UDP would tear it. nobuffer: what arrives while FFmpeg examines the stream's
# format is not played first (an RTSP stream would begin 0.9 s late).
_LOW_LATENCY = "rtsp_transport;tcp|fflags;nobuffer"

_environment_lock = threading.Lock()


def _open_stream(cv2: Any, address: str, patience: Patience) -> Any:
    parameters = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        int(patience.open * 1000),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        int(patience.read * 1000),
        # Each further thread of a decoder delays the picture by one frame:
        # https://github.com/Nevcairiel/LAVFilters/issues/112
        cv2.CAP_PROP_N_THREADS,
        1,
    ]
    with _environment_lock:  # FFmpeg's own options have no other way in
        set_by_user = _OPTIONS in os.environ
        os.environ.setdefault(_OPTIONS, _LOW_LATENCY)
        try:
            return cv2.VideoCapture(address, cv2.CAP_FFMPEG, parameters)
        finally:
            if not set_by_user:
                del os.environ[_OPTIONS]


# --- what to do when it does not open ---------------------------------------------------------------


_NO_DECODER = (
    "opened, but gave no picture: damaged, or of a codec for which OpenCV has no decoder (AV1): without --webcam, "
    "unet-run reads it through ffmpeg"
)


def explain(source: Source, opened: bool, patience: Patience) -> str:
    """Why a source gives no picture, as far as can be found out from here, and what to do."""
    if source.kind == "camera":
        reason = f"opened, but gave no picture: {_OTHER}. Now {cameras_here()}." if opened else _camera_problem(source)
    elif source.kind == "program":
        reason = piped.problem(str(source.target), patience.open)
    elif source.kind == "file":
        reason = _NO_DECODER if opened else "not a video that OpenCV can read"
    elif opened:
        reason = f"opened, but gave no picture within {patience.read:g} s: {_OTHER}"
    else:
        reason = _stream_problem(str(source.target), patience)
    return f"{source.name}: {reason}"


_OTHER = "does another program use it?"


def cameras_here() -> str:
    """``this machine has /dev/video0, /dev/video2`` or that it has none."""
    if sys.platform != "linux":
        return "cameras of this machine are named 0, 1, ..."
    devices = sorted(Path("/dev").glob("video*"), key=lambda path: int("0" + re.sub(r"\D", "", path.name)))
    if not devices:
        return "this machine has no camera (no /dev/video*): plug one in, or pass it on to this container"
    return f"this machine has {', '.join(map(str, devices))}"


def _camera_problem(source: Source) -> str:
    if sys.platform != "linux":
        return "does not open: is it plugged in, and may this program use cameras?"
    device = Path(f"/dev/video{source.target}" if isinstance(source.target, int) else source.target)
    if not device.exists():
        return f"there is no {device}: {cameras_here()}"
    if not os.access(device, os.R_OK | os.W_OK):
        return f'no permission for {device}: sudo usermod -aG video "$USER", then log in again'
    return (
        f"{device} does not open as a camera: another program may use it, or it is one of the camera's side channels: "
        f"{cameras_here()}"
    )


_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443, "rtmp": 1935}


def _stream_problem(address: str, patience: Patience) -> str:
    parts = parse_address(address).bare
    port = (parts.port or _PORTS[parts.scheme]) if parts.scheme in _PORTS else None  # of TCP: udp:// has none
    if parts.hostname and port:
        try:
            socket.create_connection((parts.hostname, port), timeout=patience.read).close()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "no such host"
            if isinstance(error, TimeoutError):
                reason = "timed out"
            return f"no connection to {parts.hostname} port {port} ({reason}): is the camera on?"
        refused = _http_refusal(address, patience) if parts.scheme in ("http", "https") else ""
        if refused:
            return f"the camera responds {refused}: is the path right, are name and password needed? {ENCODE}"
    waited = f"Waited {patience.open:g} s for a response and {patience.read:g} s for a picture."
    return f"gives no video: is the path right? {waited}"


def _http_refusal(address: str, patience: Patience) -> str:
    from unet_runtime.live.fetch import refusal

    return refusal(address, patience.read)
