"""A camera over HTTP and one over RTSP that behave as cameras do: late, cut off, damaged, gone and back."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.live import IMPATIENT, QUICK, closed_port, wait_for
from tests.helpers.mjpeg import SIZE, Frame, MjpegCamera, age, photo_frame, read_number
from tests.helpers.paths import REPOSITORY
from tests.helpers.video import write_video
from unet_runtime.core.errors import MissingDependencyError, SourceError
from unet_runtime.core.timings import Timings
from unet_runtime.live.camera import Camera
from unet_runtime.live.source import Patience, parse_source


@pytest.fixture
def served(sample_photo: Path) -> Iterator[MjpegCamera]:
    with MjpegCamera(sample_photo) as camera:
        yield camera


@pytest.fixture(autouse=True)
def _the_terminal_stays_clean(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """OpenCV and FFmpeg write to the descriptor, past Python."""
    yield
    assert capfd.readouterr().err == ""


def shown(camera: Camera) -> Frame:
    frame = camera.newest()
    assert frame is not None
    return frame.picture


def test_the_newest_frame_wins_and_none_is_older_for_waiting(served: MjpegCamera) -> None:
    """A busy machine may be late, but not each time."""
    assert any(stays_young(served) for _ in range(4))


def stays_young(served: MjpegCamera) -> bool:
    timings = Timings()
    with Camera(served.url, timings=timings) as camera:
        ages, numbers = [], [0]
        for _ in range(8):
            wait_for(lambda: camera.captured >= numbers[-1] + 7)  # a reader seven times slower than the camera
            before = camera.captured
            frame = camera.newest()
            assert frame is not None
            assert frame.number >= before
            ages.append(age(frame.picture))
            numbers.append(frame.number)
        assert frame.picture.shape == (SIZE[1], SIZE[0], 3)
    assert timings.count("capture") >= numbers[-1]
    # Were frames kept in a queue, each would be 0.2 s older than the one before.
    return min(ages[4:]) < min(ages[:4]) + 300


def test_a_picture_is_rgb_and_what_the_camera_sent(served: MjpegCamera) -> None:
    with Camera(served.url) as camera:
        difference = np.abs(shown(camera)[40:].astype(int) - served.frame[40:])
    assert difference.mean() < 4  # JPEG's


def test_a_frame_is_taken_once(served: MjpegCamera) -> None:
    served.rate = 5
    with Camera(served.url) as camera:
        first = camera.newest()
        assert first is not None
        served.mode = "stall"
        before = -1
        while camera.captured != before:  # until those that were under way have come
            before = camera.captured
            time.sleep(0.1)
        assert camera.newest(after=before) is None
        served.mode = "play"
        following = camera.newest(after=first.number, timeout=60)
        assert following is not None
        assert following.number > first.number
        assert read_number(following.picture) != read_number(first.picture)


def test_parts_without_a_length_are_read_too(sample_photo: Path) -> None:
    with MjpegCamera(sample_photo, lengths=False) as served, Camera(served.url) as camera:
        wait_for(lambda: age(shown(camera)) < 2000)


@pytest.mark.parametrize("mode", ["drop", "stall", "garbage"])
def test_a_lost_camera_is_said_to_be_lost_and_found_again(served: MjpegCamera, mode: str) -> None:
    with Camera(served.url, QUICK) as camera:
        assert camera.message == ""
        served.mode = mode
        wait_for(lambda: camera.message.startswith("camera lost, trying again"))
        before = camera.captured
        served.mode = "play"
        wait_for(lambda: camera.captured > before)
        wait_for(lambda: camera.reconnects and not camera.message)
        wait_for(lambda: camera.captured > before + 10)  # and it stays
        wait_for(lambda: age(shown(camera)) < 2000)


def test_silence_is_told_before_the_camera_counts_as_lost(served: MjpegCamera) -> None:
    with Camera(served.url, Patience(read=60)) as camera:
        served.mode = "stall"
        wait_for(lambda: re.fullmatch(r"no picture from the camera for \d+ s", camera.message))
        served.mode = "play"  # or its thread would be waited for


def test_attempts_get_rarer(served: MjpegCamera) -> None:
    with Camera(served.url, Patience(delays=(0.0, 0.2, 0.6, 30))) as camera:
        connected = served.connections
        served.mode = "refuse"
        wait_for(lambda: re.fullmatch(r"camera lost, trying again in \d\d s", camera.message))
        assert served.connections - connected == 3
    # The block ended in the middle of those 30 seconds, at once.


def test_a_camera_that_was_switched_off_is_found_again(sample_photo: Path) -> None:
    with MjpegCamera(sample_photo) as first:
        camera = Camera(first.url, QUICK)
        camera.start()
    with closing(camera):
        wait_for(lambda: camera.message.startswith("camera lost"))
        before = camera.captured
        with MjpegCamera(sample_photo, port=first.port):
            wait_for(lambda: camera.captured > before)
            assert camera.reconnects


def test_closing_a_stalled_camera_ends_its_thread(served: MjpegCamera) -> None:
    camera = Camera(served.url, Patience(read=1))
    camera.start()
    served.mode = "stall"
    time.sleep(0.2)
    camera.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "camera"]


def test_a_program_that_forgets_to_close_its_camera_ends_all_the_same(served: MjpegCamera) -> None:
    """Without care it would be aborted (a thread in OpenCV while Python ends), or never end."""
    script = "import sys; from unet_runtime.live.camera import Camera; Camera(sys.argv[1]).start(); print('end')"
    done = subprocess.run([sys.executable, "-c", script, served.url], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


# --- video files as cameras ------------------------------------------------------------------------


def test_a_video_file_plays_at_its_own_rate_once(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 20, rate=20)
    numbers = []
    start = time.monotonic()
    with Camera(str(path)) as camera:
        while (frame := camera.newest(after=numbers[-1] + 1 if numbers else 0, timeout=60)) is not None:
            numbers.append(read_number(frame.picture))
        assert camera.ended
        assert camera.message == ""
    assert time.monotonic() - start > 0.8  # of the second that it lasts
    assert numbers == sorted(numbers)
    assert numbers[-1] == 19


# --- what is no camera -----------------------------------------------------------------------------


def test_a_camera_that_does_not_answer_is_named_without_its_password() -> None:
    address = f"rtsp://anna:secret@127.0.0.1:{closed_port()}/stream"
    with (
        pytest.raises(SourceError, match=r"Connection refused.*is the camera on") as caught,
        Camera(address, IMPATIENT),
    ):
        pass
    assert "rtsp://anna:***@127.0.0.1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_refusal_is_told_with_its_reason(served: MjpegCamera) -> None:
    served.mode = "refuse"
    with pytest.raises(SourceError, match="503 Service Unavailable"), Camera(served.url, QUICK):
        pass


def test_name_and_password_belong_into_the_address(served: MjpegCamera) -> None:
    served.login = "anna:s/cret"
    with pytest.raises(SourceError, match="401 Unauthorized: is the path right, are name and password needed"):
        Camera(served.url, QUICK).start()
    wrong = served.url.replace("//", "//anna:wrong@")
    with pytest.raises(SourceError, match=re.escape("http://anna:***@127.0.0.1")) as caught:
        Camera(wrong, QUICK).start()
    assert "401 Unauthorized" in str(caught.value)
    with Camera(served.url.replace("//", "//anna:s%2Fcret@"), QUICK) as camera:
        wait_for(lambda: age(shown(camera)) < 2000)
        assert "cret" not in camera.source.name


@pytest.mark.parametrize("address", ["rtsp://camera:abc/", "http://127.0.0.1:99999/", "http://[::1/"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(SourceError, match=r"no address .*expected one such as rtsp"):
        Camera(address)


def test_a_camera_that_stays_silent_from_the_beginning_is_given_up(served: MjpegCamera) -> None:
    served.mode = "stall"
    with pytest.raises(SourceError, match=r"gives no video.*Waited 1 s"), Camera(served.url, IMPATIENT):
        pass


def test_a_number_without_a_camera_lists_what_there_is() -> None:
    with pytest.raises(SourceError, match="camera 87: there is no /dev/video87: this machine has"), Camera("87"):
        pass


def test_a_device_that_is_no_camera_is_refused() -> None:
    with pytest.raises(SourceError, match=r"/dev/null: .*does not open as a camera"), Camera("/dev/null"):
        pass


def test_what_does_not_exist_or_is_no_video_is_refused(tmp_path: Path, sample_photo: Path) -> None:
    with pytest.raises(SourceError, match=r"clip.mp4: No such file .* an address such as rtsp"):
        parse_source(str(tmp_path / "clip.mp4"))
    text = tmp_path / "notes.mp4"
    text.write_text("no video")
    with pytest.raises(SourceError, match=r"notes.mp4: not a video that OpenCV can read"), Camera(str(text)):
        pass


def test_without_opencv_the_command_to_install_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingDependencyError, match=r'needs OpenCV.*pip install "opencv-python-headless>='):
        Camera("0")


# --- RTSP ------------------------------------------------------------------------------------------

GSTREAMER = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
for name in ("appsrc", "videoconvert", "x264enc", "rtph264pay", "rtpbin"):
    assert Gst.ElementFactory.find(name), name
"""


@pytest.fixture(scope="module")
def gstreamer() -> str:
    python = "/usr/bin/python3"
    try:
        subprocess.run([python, "-c", GSTREAMER], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(
            "no GStreamer RTSP server: python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-{base,good,ugly}"
        )
    return python


LATE = 600
"""Milliseconds behind life."""


@contextmanager
def rtsp_server(python: str, photo: Path, folder: Path, port: int = 0) -> Iterator[int]:
    """Its port."""
    (folder / "frame.rgb").write_bytes(photo_frame(photo).tobytes())
    script = REPOSITORY / "tests" / "helpers" / "rtsp_server.py"
    command = [python, str(script), str(folder / "frame.rgb"), *map(str, SIZE), "30", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.kill()


def test_an_rtsp_camera_is_read_without_delay_and_found_again(
    gstreamer: str, sample_photo: Path, tmp_path: Path
) -> None:
    patience = Patience(open=30, read=1, delays=(0.1, 0.2, 0.4, 0.4))
    with rtsp_server(gstreamer, sample_photo, tmp_path) as port:
        # By itself FFmpeg begins a second or two behind life. A busy machine may be late, but not each time.
        for _ in range(3):
            camera = Camera(f"rtsp://127.0.0.1:{port}/camera", patience)
            camera.start()
            if (first := age(shown(camera))) < LATE:
                break
            camera.close()
        assert first < LATE
        # Were frames kept in a queue, the camera would fall further behind each time, and never catch up.
        for _ in range(6):
            time.sleep(0.5)
            wait_for(lambda: age(shown(camera)) < LATE)
    with closing(camera):
        wait_for(lambda: camera.message.startswith("camera lost"))
        before = camera.captured
        with rtsp_server(gstreamer, sample_photo, tmp_path, port):
            wait_for(lambda: camera.captured > before + 5)
            wait_for(lambda: age(shown(camera)) < 2000)
            assert camera.reconnects
