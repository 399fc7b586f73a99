"""An ffmpeg that makes no progress any more is ended, and said."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unet_runtime.core.errors import OutputError
from unet_runtime.io.video import ffmpeg
from unet_runtime.io.video.h264 import H264File

pytestmark = [
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg"),
    pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="a system without SIGSTOP"),
]

PICTURE = np.zeros((480, 640, 3), np.uint8)


@pytest.fixture
def begun(tmp_path: Path) -> H264File:
    program = ffmpeg.find()
    assert program is not None
    file = H264File(tmp_path / "out.mp4", program, tmp_path / "in.mp4", ffmpeg.Facts(), rate=25)
    file.write(PICTURE, 0.0)
    return file


def _stop(file: H264File) -> subprocess.Popen[bytes]:
    assert file._process is not None
    file._process.send_signal(signal.SIGSTOP)
    return file._process


def _write_many(file: H264File) -> None:
    with file:
        for number in range(1, 20):
            file.write(PICTURE, number / 25)


def test_one_that_takes_no_picture_any_more(begun: H264File, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    process = _stop(begun)
    monkeypatch.setattr(ffmpeg, "PATIENCE", 0.3)
    with pytest.raises(OutputError, match=r"out\.mp4: cannot be written \(ffmpeg: it has stalled\)"):
        _write_many(begun)
    assert process.poll() is not None
    assert not list(tmp_path.iterdir())


def test_one_that_does_not_end(begun: H264File, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    process = _stop(begun)
    monkeypatch.setattr(ffmpeg, "PATIENCE", 0.3)
    with pytest.raises(OutputError, match="it has stalled"):
        begun.close()
    assert process.poll() is not None
    assert not list(tmp_path.iterdir())


def test_a_slow_one_that_goes_on_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    states = itertools.count()
    monkeypatch.setattr(ffmpeg, "_state", lambda path: (next(states), 0))
    monkeypatch.setattr(ffmpeg, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(ffmpeg, "PATIENCE", 0.0)
    assert ffmpeg.run(["sleep", "0.4"], tmp_path / "growing") == ""
    assert next(states) > 1


def test_one_that_fails_gives_its_reason(tmp_path: Path) -> None:
    assert ffmpeg.run([sys.executable, "-c", "import sys; sys.exit('no space')"], tmp_path / "none") == "no space"
    assert "No such file" in ffmpeg.run([str(tmp_path / "absent")], tmp_path / "none")
