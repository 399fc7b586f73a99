"""The program ffmpeg, where one is installed: it makes H.264, which browsers play, and keeps the source's sound.

OpenCV's wheels have no H.264 encoder (https://github.com/opencv/opencv-python/issues/81) and write no sound at all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_ENCODERS = ("libx264", "h264_videotoolbox", "libopenh264", "h264_mf")
_SECONDS = 30.0  # for a question

PATIENCE = 300.0
"""Seconds without any progress, after which the program counts as stalled; a slow machine needs some for a picture."""

_LOOK_SECONDS = 1.0

STALLED = "it has stalled"

COPIED_SOUND = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"})
"""Codecs that an .mp4 may have; others become AAC."""


@dataclass(frozen=True)
class Program:
    """An ffmpeg that encodes H.264."""

    ffmpeg: str
    ffprobe: str | None
    encoder: str
    own_times: tuple[str, ...] = ("-fps_mode", "passthrough")
    """Options that keep each picture's time; before FFmpeg 5.1 they had another name."""


@dataclass(frozen=True)
class Facts:
    """What a source says of itself beyond what OpenCV reads."""

    sound: tuple[str, ...] = ()
    """Codec of each sound track."""
    offset: float = 0.0
    """Seconds from the file's first moment to its first picture."""
    rate: float = 0.0
    """Frames a second; 0: unknown."""
    colours: tuple[tuple[str, str], ...] = ()
    """How its colours are stored, as options of ffmpeg."""


def find() -> Program | None:
    """The installed program; None where there is none, or one without an encoder for H.264."""
    return _look(os.environ.get("PATH", ""))


@cache
def _look(path: str) -> Program | None:
    ffmpeg = shutil.which("ffmpeg", path=path)
    if ffmpeg is None:
        return None
    listed = _ask([ffmpeg, "-hide_banner", "-encoders"]).split()
    encoder = next((name for name in _ENCODERS if name in listed), None)
    if encoder is None:
        return None
    has_mode = "-fps_mode" in _ask([ffmpeg, "-hide_banner", "-h", "long"])
    own_times = ("-fps_mode" if has_mode else "-vsync", "passthrough")
    return Program(ffmpeg, shutil.which("ffprobe", path=path), encoder, own_times)


def probe(program: Program, source: Path) -> Facts:
    """What ffprobe says of a video; nothing where it fails, which OpenCV may not."""
    if program.ffprobe is None:
        return Facts()
    entries = (
        "format=start_time:stream=codec_type,codec_name,start_time,avg_frame_rate,color_space,color_transfer,"
        "color_primaries,color_range"
    )
    answer = _ask([program.ffprobe, "-v", "error", "-show_entries", entries, "-of", "json", as_input(source)])
    try:
        content = json.loads(answer)
        streams: list[dict[str, Any]] = content["streams"]
        video = next(stream for stream in streams if stream.get("codec_type") == "video")
        begin = float(content.get("format", {}).get("start_time", 0))
        offset = float(video.get("start_time", begin)) - begin
        numerator, _, denominator = str(video.get("avg_frame_rate", "0/1")).partition("/")
        rate = float(numerator) / (float(denominator) or 1.0)
    except (ValueError, KeyError, TypeError, StopIteration, AttributeError):
        return Facts()
    sound = tuple(str(stream.get("codec_name")) for stream in streams if stream.get("codec_type") == "audio")
    return Facts(sound, min(max(0.0, offset), 60.0), rate, _colours(video))


def _colours(video: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    options = (
        ("-colorspace", "color_space"),
        ("-color_trc", "color_transfer"),
        ("-color_primaries", "color_primaries"),
    )
    found = []
    for option, key in options:
        value = str(video.get(key, "unknown"))
        if value.isascii() and value.replace("-", "").isalnum() and value not in ("unknown", "reserved", "gbr"):
            found.append((option, value))
    return tuple(found)


def as_input(path: Path) -> str:
    """A path as ffmpeg takes it: ``12:30.mp4`` would be a protocol, ``-y.mp4`` an option."""
    return "file:" + os.path.abspath(path)  # noqa: PTH100  # keeps links as they are


def run(arguments: list[str], output: Path) -> str:
    """Run a command to its end; returns why it failed, in one line, or nothing.

    Args:
        arguments: of the command.
        output: file that it writes, by which its progress is seen.
    """
    with tempfile.TemporaryFile() as messages:
        try:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=messages,
                start_new_session=os.name == "posix",
            )
        except OSError as error:
            return str(error.strerror or error)
        try:
            if not ended(process, output):
                return STALLED
        finally:
            process.kill()  # where Ctrl-C came
        messages.seek(0)
        return last_line(messages.read()) or f"exit code {process.returncode}" if process.returncode else ""


def ended(process: subprocess.Popen[bytes], output: Path) -> bool:
    """Wait until a process ends; False where its output has not changed for ``PATIENCE``: it is killed then."""
    seen, since = _state(output), time.monotonic()
    while True:
        try:
            process.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            state, now = _state(output), time.monotonic()
            if state != seen:
                seen, since = state, now
            elif now - since > PATIENCE:
                process.kill()
                process.wait()
                return False
        else:
            return True


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


@contextmanager
def patience(process: subprocess.Popen[bytes]) -> Iterator[threading.Event]:
    """Kill a process where the block takes longer than ``PATIENCE``; gives an event that is set then."""
    stalled = threading.Event()

    def stop() -> None:
        stalled.set()
        process.kill()

    timer = threading.Timer(PATIENCE, stop)
    timer.daemon = True
    timer.start()
    try:
        yield stalled
    finally:
        timer.cancel()


def last_line(text: bytes) -> str:
    """The last line that says something."""
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _ask(arguments: list[str]) -> str:
    try:
        done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")
