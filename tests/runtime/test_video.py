"""Video in, video out: the same frames in the same order, whatever the container; damage is said and survived."""

from __future__ import annotations

import shutil
import struct
import subprocess
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.helpers.colours import colour_spec, write_colour_model
from tests.helpers.live import wait_for
from tests.helpers.memory import traced_peak
from tests.helpers.mjpeg import SIZE, draw_number, photo_frame, read_number
from tests.helpers.video import frames_of, numbers
from unet_runtime import BackendError, OutputError, Segmenter, SourceError
from unet_runtime.io.pictures import GREEN
from unet_runtime.io.sinks import VIDEO_KINDS
from unet_runtime.io.sources import VIDEO_SUFFIXES
from unet_runtime.io.video.opencv import load_opencv
from unet_runtime.io.video.reader import Reader, plausible_rate
from unet_runtime.io.video.segment import _Clock, segment_video
from unet_runtime.io.video.writer import CODECS, VideoFile

Frame = npt.NDArray[np.uint8]

BLUE = (0, 0, 255)  # a neutral class: tinted in its own colour, it stays as it is


@pytest.fixture
def colours(tmp_path: Path) -> Segmenter:
    """A quick model: red is foreground, green background, blue neutral."""
    return Segmenter(write_colour_model(tmp_path / "colours.onnx", colour_spec()), backend="onnx")


def write(path: Path, frames: list[Frame], rate: float = 25) -> Path:
    with VideoFile(path, rate) as file:
        for frame in frames:
            file.write(frame)
    return path


def plain(color: tuple[int, int, int] = BLUE, size: tuple[int, int] = SIZE) -> Frame:
    return np.full((size[1], size[0], 3), color, np.uint8)


def numbered(count: int) -> list[Frame]:
    return [draw_number(plain(), number) for number in range(count)]


def rate_of(path: Path) -> float:
    cv2 = load_opencv("a test")
    return float(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS))


@pytest.mark.parametrize(("suffix", "rate"), [(".mp4", 29.97), (".avi", 12.5), (".mkv", 60), (".mov", 23.976)])
def test_no_frame_is_lost_and_none_changes_places(suffix: str, rate: float, tmp_path: Path, colours: Segmenter) -> None:
    source = write(tmp_path / f"clip{suffix}", numbered(40), rate)
    target = tmp_path / "clip.overlay.mp4"
    seen: list[tuple[int, int]] = []
    assert segment_video(colours, source, {"overlay": target}, progress=lambda done, of: seen.append((done, of))) == 40
    assert numbers(target) == list(range(40))
    assert rate_of(target) == pytest.approx(rate, rel=1e-3)
    assert seen == [(done, 40) for done in range(1, 41)]
    assert {frame.shape for frame in frames_of(target)} == {(SIZE[1], SIZE[0], 3)}


def test_every_suffix_that_can_be_written_is_taken_for_a_video() -> None:
    assert set(CODECS) <= VIDEO_SUFFIXES


@pytest.mark.parametrize(
    ("kind", "expected"),
    # Left half red (foreground), right half green (background).
    [
        ("mask", [(255, 0, 0), (0, 255, 0)]),
        ("palette", [(255, 0, 0), (0, 255, 0)]),
        ("cutout", [(200, 20, 20), GREEN]),
        ("overlay", [(228, 10, 10), (0, 200, 0)]),
    ],
)
def test_kinds(kind: str, expected: list[tuple[int, int, int]], tmp_path: Path, colours: Segmenter) -> None:
    frame = plain((0, 200, 0))
    frame[:, :320] = (200, 20, 20)
    source = write(tmp_path / "clip.avi", [frame] * 3)
    segment_video(colours, source, {kind: tmp_path / "out.mp4"})
    last = frames_of(tmp_path / "out.mp4")[-1]
    for column, color in zip((100, 540), expected, strict=True):
        assert np.abs(last[240, column].astype(int) - color).max() < 12, (kind, column)


def test_each_frame_gets_what_the_segmenter_says_of_it(tmp_path: Path, sample_photo: Path) -> None:
    """With the bundled model, a photo that wanders through the picture, and losses in the target's encoding."""
    cat = photo_frame(sample_photo)
    source = write(tmp_path / "cat.mp4", [np.roll(cat, 40 * step, axis=1) for step in range(6)])
    segmenter = Segmenter(backend="onnx")
    segment_video(segmenter, source, {"mask": tmp_path / "cat.mask.mp4"})
    masks = [np.asarray(segmenter(frame).palette_image().convert("RGB")).astype(int) for frame in frames_of(source)]
    shown = frames_of(tmp_path / "cat.mask.mp4")
    assert len(shown) == len(masks)
    for index, frame in enumerate(shown):
        differences = [np.abs(frame - mask).mean() for mask in masks]
        assert differences[index] < 6
        assert differences[index] == min(differences)


def test_smoothing_takes_the_flicker_out_of_a_still_scene(tmp_path: Path, colours: Segmenter) -> None:
    """Frames whose class changes with every one, by a few levels of red and green."""
    frames = [plain((135, 130, 0)) if step % 2 else plain((130, 135, 0)) for step in range(12)]
    source = write(tmp_path / "clip.avi", frames)
    changes = []
    for smooth in (0.0, 0.9):
        target = tmp_path / f"{smooth}.mask.mp4"
        segment_video(colours, source, {"mask": target}, smooth=smooth)
        reds = [frame[..., 0].mean() > 100 for frame in frames_of(target)]
        changes.append(sum(one != other for one, other in pairwise(reds)))
    assert changes == [11, 0]


def test_a_video_is_decoded_and_inferred_once_whatever_the_number_of_kinds(
    tmp_path: Path, colours: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "clip.avi", numbered(9))
    engine, inferred, readers = colours.backend, [], []

    class Counting:
        def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            inferred.append(len(images))
            return engine.run(images)

    class Counted(Reader):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            readers.append(self)

    colours._backend = Counting()  # type: ignore[assignment]
    monkeypatch.setattr("unet_runtime.io.video.segment.Reader", Counted)
    targets = {kind: tmp_path / f"clip.{kind}.mp4" for kind in VIDEO_KINDS}
    assert segment_video(colours, source, targets) == 9
    assert [reader.count for reader in readers] == [9]
    assert sum(inferred) == 9
    assert set(targets) == {"mask", "palette", "overlay", "cutout"}
    assert numbers(targets["overlay"]) == list(range(9))
    assert [len(frames_of(path)) for path in targets.values()] == [9, 9, 9, 9]


def test_a_kind_that_no_video_shows_is_refused_before_anything_is_read(tmp_path: Path, colours: Segmenter) -> None:
    with pytest.raises(OutputError, match=r"a video has no json, expected some of mask, palette, overlay, cutout"):
        segment_video(colours, tmp_path / "absent.mp4", {"json": tmp_path / "clip.json"})


def test_one_target_that_cannot_be_written_leaves_no_other(tmp_path: Path, colours: Segmenter) -> None:
    source = write(tmp_path / "clip.avi", numbered(3))
    with pytest.raises(OutputError, match=r"suffix '\.gif'"):
        segment_video(colours, source, {"overlay": tmp_path / "o.mp4", "mask": tmp_path / "m.gif"})
    assert set(tmp_path.iterdir()) == {source, tmp_path / "colours.onnx"}


def rotate(path: Path) -> Path:
    """Set the rotation of an .mp4's track to a quarter turn clockwise, as a telephone held upright does."""
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # version 0: 40 bytes before the matrix
    quarter = (0, 1 << 16, 0, -(1 << 16), 0, 0, SIZE[1] << 16, 0, 1 << 30)
    assert struct.unpack(">9i", content[matrix : matrix + 36])[0] == 1 << 16  # it was upright
    content[matrix : matrix + 36] = struct.pack(">9i", *quarter)
    path.write_bytes(content)
    return path


def test_a_rotated_video_comes_out_upright(tmp_path: Path, colours: Segmenter) -> None:
    frame = plain()
    frame[:60] = (255, 0, 0)  # stored at the top: shown at the right
    source = rotate(write(tmp_path / "phone.mp4", [frame] * 5))
    segment_video(colours, source, {"overlay": tmp_path / "out.mp4"})
    shown = frames_of(tmp_path / "out.mp4")
    assert [picture.shape for picture in shown] == [(640, 480, 3)] * 5
    assert shown[-1][320, 450, 0] > 200
    assert shown[-1][320, 30, 0] < 60
    assert shown[-1][30, 240, 0] < 60


def test_an_odd_size_loses_its_last_row_and_column(tmp_path: Path, colours: Segmenter) -> None:
    """Encoders store colours for two by two pixels."""
    cv2 = load_opencv("a test")
    path = tmp_path / "odd.avi"
    writer = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25, (451, 301))
    for _ in range(3):
        writer.write(plain(size=(451, 301)))
    writer.release()
    assert frames_of(path)[0].shape == (301, 451, 3)
    assert segment_video(colours, path, {"overlay": tmp_path / "out.mp4"}) == 3
    assert frames_of(tmp_path / "out.mp4")[0].shape == (300, 450, 3)


def gstreamer_video(path: Path, pipeline: str) -> Path:
    """Written by Debian's GStreamer: containers and clocks that OpenCV's own writer does not make."""
    launcher = shutil.which("gst-launch-1.0")
    if launcher is None:
        pytest.skip(
            "no GStreamer: apt-get install gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
        )
    subprocess.run([launcher, "-q", *pipeline.split(), "!", "filesink", f"location={path}"], check=True, timeout=180)
    return path


def test_a_video_of_varying_rate_keeps_to_its_time(
    tmp_path: Path, colours: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of the frames is not there: played at a constant rate, the rest would be over after two thirds."""
    source = gstreamer_video(
        tmp_path / "clip.mkv",
        "videotestsrc num-buffers=90 ! video/x-raw,width=320,height=240,framerate=30/1 ! identity drop-probability=0.3 "
        "! vp8enc deadline=1 ! matroskamux",
    )
    there = len(frames_of(source))
    assert 40 < there < 80
    monkeypatch.setattr("unet_runtime.io.video.ffmpeg.find", lambda: None)  # which keeps each frame's own time
    assert segment_video(colours, source, {"overlay": tmp_path / "out.mp4"}) == there  # and it counts as whole
    written = len(frames_of(tmp_path / "out.mp4"))
    assert written > there
    assert written / rate_of(tmp_path / "out.mp4") == pytest.approx(3.0, abs=0.25)


def test_a_video_that_does_not_say_how_long_it_is(tmp_path: Path, colours: Segmenter) -> None:
    """As browsers record them."""
    source = gstreamer_video(
        tmp_path / "clip.webm",
        "videotestsrc num-buffers=40 ! video/x-raw,width=320,height=240,framerate=30/1 ! vp8enc deadline=1 "
        "! webmmux streamable=true",
    )
    seen: list[tuple[int, int]] = []
    assert (
        segment_video(colours, source, {"overlay": tmp_path / "o.mp4"}, progress=lambda *done: seen.append(done)) == 40
    )
    assert seen[-1] == (40, 0)


@pytest.mark.parametrize(
    ("times", "due"),
    [
        ([0.0, 0.1, 0.2, 0.3], [0, 1, 2, 3]),
        ([5.0, 5.1, 5.2, 6.2], [0, 1, 2, 12]),  # a still of a second; the clock begins anywhere
        ([0.0, 0.14, 0.16, 0.34], [0, 1, 2, 3]),  # what shakes a little is left alone
        ([0.0, 9e9, 9e9 + 0.1, 9e9 + 0.2], [0, 1, 2, 3]),  # set to another time
        ([0.0, float("nan"), float("nan"), 0.3], [0, 1, 2, 3]),
        ([0.0, -5.0, -4.9, -4.8], [0, 1, 2, 3]),
    ],
)
def test_frames_are_repeated_where_time_has_passed(times: list[float], due: list[int]) -> None:
    clock, count, wanted = _Clock(rate=10), 0, []
    for seconds in times:
        count = clock.due(seconds, count)
        wanted.append(count)
        count += 1  # the frame itself
    assert wanted == due


@pytest.mark.parametrize(
    ("said", "taken"), [(29.97, 29.97), (0, 30), (-1, 30), (float("nan"), 30), (1000, 30), (90000, 30), (240, 240)]
)
def test_an_impossible_rate_is_not_believed(said: float, taken: float) -> None:
    assert plausible_rate(said) == taken


# --- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_a_truncated_video_gives_what_can_be_read_and_an_error(suffix: str, tmp_path: Path, colours: Segmenter) -> None:
    source = write(tmp_path / f"clip{suffix}", numbered(50))
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    target = tmp_path / "out.mp4"
    with pytest.raises(SourceError, match=r"clip.*: damaged or truncated: \d+ of its 50 frames .* in .*out.mp4"):
        segment_video(colours, source, {"overlay": target})
    saved = numbers(target)
    assert 15 < len(saved) < 40
    assert saved[:-1] == list(range(len(saved) - 1))  # the last one is half a picture


def test_damage_in_the_middle_costs_the_damaged_frames_alone(tmp_path: Path, colours: Segmenter) -> None:
    source = write(tmp_path / "clip.avi", numbered(50))
    content = bytearray(source.read_bytes())
    middle = len(content) // 2
    content[middle : middle + len(content) // 10] = np.random.default_rng(1).bytes(len(content) // 10)
    source.write_bytes(content)
    with pytest.raises(SourceError, match="damaged or truncated"):
        segment_video(colours, source, {"overlay": tmp_path / "out.mp4"})
    assert len(frames_of(tmp_path / "out.mp4")) >= 20


@pytest.mark.parametrize("content", [b"", b"no video at all", bytes(5000)])
def test_what_is_no_video_is_refused_and_nothing_is_written(content: bytes, tmp_path: Path, colours: Segmenter) -> None:
    source = tmp_path / "clip.mp4"
    source.write_bytes(content)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SourceError, match=r"clip.mp4: not a video"):
        segment_video(colours, source, {"overlay": tmp_path / "out.mp4"})
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(SourceError, match=r"absent.mp4: no such file"):
        segment_video(colours, tmp_path / "absent.mp4", {"overlay": tmp_path / "out.mp4"})


def test_a_video_never_replaces_itself(tmp_path: Path, colours: Segmenter) -> None:
    source = write(tmp_path / "clip.mp4", numbered(3))
    with pytest.raises(OutputError, match="would replace the video it is made of"):
        segment_video(colours, source, {"overlay": tmp_path / "." / "clip.mp4"})
    assert numbers(source) == [0, 1, 2]


@pytest.mark.parametrize("kind", [BackendError, KeyboardInterrupt])
def test_what_ends_it_early_leaves_nothing_and_no_thread(
    kind: type[BaseException], tmp_path: Path, colours: Segmenter
) -> None:
    source = write(tmp_path / "clip.mp4", numbered(60))
    threads = set(threading.enumerate())
    engine, calls = colours.backend, iter(range(1000))

    class Failing:
        def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            if kind is BackendError and next(calls) == 10:
                raise BackendError("the device is gone")
            return engine.run(images)

    def progress(done: int, promised: int) -> None:
        if kind is KeyboardInterrupt and done == 10:
            raise KeyboardInterrupt

    colours._backend = Failing()  # type: ignore[assignment]
    before = sorted(tmp_path.iterdir())
    with pytest.raises(kind):
        segment_video(colours, source, {"overlay": tmp_path / "out.mp4"}, progress=progress)
    assert sorted(tmp_path.iterdir()) == before
    wait_for(lambda: not set(threading.enumerate()) - threads)


def test_a_long_video_needs_no_more_memory_than_a_short_one(tmp_path: Path, colour_model: Path) -> None:
    """NumPy's arrays are counted; were frames kept, 120 of them would be 110 MB."""
    source = write(tmp_path / "clip.avi", numbered(120))
    setup = """
from unet_runtime import Segmenter
from unet_runtime.io.video.opencv import load_opencv
from unet_runtime.io.video.segment import segment_video
load_opencv("a test")
segmenter = Segmenter(sys.argv[1], backend="onnx")
"""
    work = 'segment_video(segmenter, Path(sys.argv[2]), {"overlay": Path(sys.argv[3])})'
    assert traced_peak(setup, work, colour_model, source, tmp_path / "out.mp4") < 40e6
    assert read_number(frames_of(tmp_path / "out.mp4")[-1]) == 119
