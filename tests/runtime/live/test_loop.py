"""The live loop with a real camera, a real engine and a view that remembers what it was shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.helpers.colours import colour_spec, write_colour_model
from tests.helpers.live import QUICK, wait_for
from tests.helpers.mjpeg import SIZE, MjpegCamera, age, read_number
from tests.helpers.video import write_video
from unet_runtime import BackendError, OutputError, Segmentation, Segmenter
from unet_runtime.core.timings import Timings
from unet_runtime.io.video.smooth import Smoother
from unet_runtime.live.camera import Camera
from unet_runtime.live.loop import Live, Session
from unet_runtime.live.record import Recorder
from unet_runtime.live.view import Status

Picture = npt.NDArray[np.uint8]


class Remembering:
    """A view that keeps what it is shown, and whose keys a test presses."""

    name, note = "memory", ""

    def __init__(self) -> None:
        self.pictures: list[Picture] = []
        self.statuses: list[Status] = []
        self.ages: list[float] = []  # milliseconds, read from the picture
        self._pressed = ""

    def show(self, picture: Picture, status: Status) -> None:
        self.pictures.append(picture)
        self.statuses.append(status)
        self.ages.append(age(picture))

    def press(self, keys: str) -> None:
        self._pressed += keys

    def keys(self) -> str:
        pressed, self._pressed = self._pressed, ""
        return pressed

    def close(self) -> None: ...


class Altered:
    """A backend that calls ``before`` at each inference."""

    def __init__(self, segmenter: Segmenter, before: Callable[[], None]) -> None:
        self._backend = segmenter.backend
        self._before = before
        segmenter._backend = self  # type: ignore[assignment]

    def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self._before()
        return self._backend.run(images)


@pytest.fixture
def served(sample_photo: Path) -> Iterator[MjpegCamera]:
    with MjpegCamera(sample_photo) as camera:
        yield camera


@pytest.fixture
def colours(tmp_path: Path) -> Segmenter:
    """A quick model: red is foreground, green background, blue neutral."""
    return Segmenter(write_colour_model(tmp_path / "colours.onnx", colour_spec()), backend="onnx")


@pytest.fixture
def view() -> Remembering:
    return Remembering()


def run(
    camera: Camera, segmenter: Segmenter, view: Remembering, seconds: float | None = 10, **options: object
) -> Session:
    timings = Timings()
    with camera:
        return Live(segmenter, camera, view, timings, **options).run(threading.Event(), seconds)  # type: ignore[arg-type]


def meanwhile(view: Remembering, *actions: Callable[[], object]) -> threading.Thread:
    """Carries out the actions, one after the other, while the main thread shows pictures; then presses q."""

    def act() -> None:
        try:
            for action in actions:
                action()
        finally:
            view.press("q")

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_a_model_slower_than_the_camera_shows_pictures_as_old_as_its_inference(
    served: MjpegCamera, view: Remembering
) -> None:
    segmenter = Segmenter(backend="onnx")
    Altered(segmenter, lambda: time.sleep(0.1))
    # Were every frame worked through, each picture would be older than the one before by this much more.
    growth = 100 - 1000 / served.rate

    def stays_young() -> bool:
        view.ages.clear()
        pressing = meanwhile(view, lambda: wait_for(lambda: len(view.ages) >= 18))
        session = run(Camera(served.url), segmenter, view, None)
        pressing.join()
        assert session.dropped > 0
        third = len(view.ages) // 3
        return min(view.ages[-third:]) < min(view.ages[:third]) + growth * third

    assert any(stays_young() for _ in range(4))  # a busy machine makes pictures older, but not each time


def test_every_stage_is_timed_and_every_frame_counted(
    served: MjpegCamera, colours: Segmenter, view: Remembering
) -> None:
    pressing = meanwhile(view, lambda: wait_for(lambda: len(view.pictures) > 5))
    session = run(Camera(served.url), colours, view, None)
    pressing.join()
    for stage in ("preprocess", "inference", "compose", "display", "age"):
        assert session.timings.count(stage) >= session.shown > 3, stage
    assert session.shown == len(set(map(id, view.pictures)))  # one is shown again where the next is late
    assert view.statuses[-1].dropped == session.dropped
    assert all(status.latency > 0 for status in view.statuses)
    assert all(status.frame_rate > 0 for status in view.statuses[1:])


def test_it_ends_when_the_time_is_up(served: MjpegCamera, colours: Segmenter, view: Remembering) -> None:
    assert run(Camera(served.url), colours, view, 0.5).seconds >= 0.5


def test_what_is_not_found_is_said(tmp_path: Path, colours: Segmenter, view: Remembering) -> None:
    """Red and green pictures in turn: the green ones lack what the model looks for."""
    from unet_runtime.io.video.opencv import load_opencv

    cv2 = load_opencv("a test")
    path = tmp_path / "halves.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, SIZE)
    for number in range(20):
        color = (0, 0, 255) if number < 10 else (0, 255, 0)  # BGR
        writer.write(np.full((SIZE[1], SIZE[0], 3), color, np.uint8))
    writer.release()
    run(Camera(str(path)), colours, view, None, is_found=lambda result: bool(result.found()))
    told = {"red" if picture[50, 50, 0] > 127 else "green": set() for picture in view.pictures}
    for picture, status in zip(view.pictures, view.statuses, strict=True):
        told["red" if picture[50, 50, 0] > 127 else "green"].add(status.message)
    assert "no red found" in told["green"]
    assert "no red found" not in told.get("red", set())


def test_each_picture_is_shown_with_its_own_mask(tmp_path: Path, colours: Segmenter, view: Remembering) -> None:
    """A cut-out keeps the red ones of red and green pictures in turn; another frame's mask would keep a green one."""
    from unet_runtime.io.video.opencv import load_opencv

    cv2 = load_opencv("a test")
    path = tmp_path / "turns.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, SIZE)
    for is_red in np.random.default_rng(1).random(50) < 0.5:  # no rate at which frames are taken meets one kind alone
        color = (0, 0, 255) if is_red else (0, 255, 0)  # BGR
        writer.write(np.full((SIZE[1], SIZE[0], 3), color, np.uint8))
    writer.release()
    session = run(Camera(str(path)), colours, view, None, background="cutout")
    assert session.shown > 1  # and it ended with the file
    kinds = []
    for picture in view.pictures:
        red, green, blue = (picture[..., channel].mean() for channel in range(3))
        assert not (green > 200 and red < 100), "a green picture was kept"
        kinds.append("red" if green < 100 and red > 200 else "removed" if abs(red - blue) < 10 else "?")
    assert set(kinds) == {"red", "removed"}


def test_the_last_frame_of_a_file_is_shown(tmp_path: Path, colours: Segmenter, view: Remembering) -> None:
    path = write_video(tmp_path / "clip.avi", 12, rate=60)
    run(Camera(str(path)), colours, view)
    assert read_number(view.pictures[-1]) == 11


def test_keys_quit_save_and_switch_the_background(served: MjpegCamera, colours: Segmenter, view: Remembering) -> None:
    saved: list[Segmentation] = []

    def save(result: Segmentation) -> list[Path]:
        saved.append(result)
        return [Path("folder/shot.png")]

    def said(what: str) -> Callable[[], None]:
        return lambda: wait_for(lambda: any(status.message == what for status in view.statuses))

    pressing = meanwhile(
        view,
        lambda: wait_for(lambda: view.pictures),
        lambda: view.press("s"),
        said("saved shot.png"),
        lambda: view.press("b"),
        said("background: cutout"),
        lambda: view.press("bb"),
        said("background: overlay"),
    )
    session = run(Camera(served.url), colours, view, None, save=save)
    pressing.join()
    assert session.saved == [Path("folder/shot.png")]
    assert len(saved) == 1
    assert saved[0].photo.size == SIZE
    assert saved[0].mask.shape == (SIZE[1], SIZE[0])
    assert read_number(np.asarray(saved[0].photo)) in [read_number(picture) for picture in view.pictures]


def test_a_picture_that_cannot_be_saved_is_told_and_the_view_goes_on(
    served: MjpegCamera, colours: Segmenter, view: Remembering
) -> None:
    def save(result: Segmentation) -> list[Path]:
        raise OutputError("shots: the disk is full")

    pressing = meanwhile(
        view,
        lambda: wait_for(lambda: view.pictures),
        lambda: view.press("s"),
        lambda: wait_for(lambda: any(status.message == "shots: the disk is full" for status in view.statuses)),
    )
    session = run(Camera(served.url), colours, view, None, save=save)
    pressing.join()
    assert session.saved == []


def test_a_lost_camera_is_told_over_the_last_picture_and_the_recording_goes_on(
    served: MjpegCamera, colours: Segmenter, view: Remembering, tmp_path: Path
) -> None:
    def message_starts(text: str) -> Callable[[], None]:
        return lambda: wait_for(lambda: view.statuses[-1].message.startswith(text))

    def set_mode(mode: str) -> Callable[[], None]:
        return lambda: setattr(served, "mode", mode)

    changing = meanwhile(
        view,
        lambda: wait_for(lambda: len(view.pictures) > 3),
        set_mode("drop"),
        message_starts("camera lost, trying again"),
        lambda: time.sleep(1.2),
        set_mode("play"),
        lambda: wait_for(lambda: view.statuses[-1].message == ""),
    )
    recorder = Recorder(tmp_path / "live.mp4")
    session = run(Camera(served.url, QUICK), colours, view, None, recorder=recorder)
    changing.join()
    recorder.close(time.perf_counter())
    assert session.reconnects
    lost = [index for index, status in enumerate(view.statuses) if status.message]
    assert len(lost) >= 2  # shown again and again, older each time
    assert np.array_equal(view.pictures[lost[-2]], view.pictures[lost[-1]])
    assert view.statuses[lost[-1]].latency > view.statuses[lost[-2]].latency
    assert 1.2 < recorder.seconds < session.seconds + 10  # with the time that the camera was away


def test_setting_the_event_ends_it(served: MjpegCamera, colours: Segmenter, view: Remembering) -> None:
    stop = threading.Event()
    with Camera(served.url) as camera:
        stopping = meanwhile(view, lambda: wait_for(lambda: view.pictures), stop.set)
        session = Live(colours, camera, view, Timings()).run(stop)
        stopping.join()
    assert session.shown >= 1


def test_an_engine_that_fails_ends_the_view_with_its_error(
    served: MjpegCamera, colours: Segmenter, view: Remembering
) -> None:
    def fail() -> None:
        if len(view.pictures) >= 2:
            raise BackendError("the device is gone")

    Altered(colours, fail)
    with pytest.raises(BackendError, match="the device is gone"):
        run(Camera(served.url), colours, view, None)
    assert not [thread for thread in threading.enumerate() if thread.name in ("camera", "inference")]


@pytest.mark.parametrize(("damage", "message"), [("NaN", "NaN or infinity"), ("shape", "its spec says")])
def test_an_output_that_is_no_probabilities_ends_the_view_whenever_it_comes(
    damage: str, message: str, served: MjpegCamera, colours: Segmenter, view: Remembering
) -> None:
    engine = colours.backend

    class Failing:
        engine, device = "test", "cpu"

        def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            output = engine.run(images)
            if len(view.pictures) < 2:
                return output
            return output * np.float32("nan") if damage == "NaN" else output[:, 1:]

    colours._backend = Failing()  # type: ignore[assignment]
    with pytest.raises(BackendError, match=message):
        run(Camera(served.url), colours, view, None)
    assert len(view.pictures) >= 2


def test_answers_are_smoothed_where_it_is_asked_for(served: MjpegCamera, view: Remembering) -> None:
    """A model that calls the same picture foreground and background in turn makes no picture blink."""
    segmenter = Segmenter(backend="tflite")
    engine, turns = segmenter.backend, iter(range(10**6))

    class Blinking:
        def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            share = 0.65 if next(turns) % 2 else 0.2
            answer = np.empty_like(engine.run(images))
            answer[..., 0], answer[..., 1:] = share, (1 - share) / 2
            return answer

    segmenter._backend = Blinking()  # type: ignore[assignment]

    def blinking(smoother: Smoother | None) -> float:
        """The largest change from one picture to the next, in levels of 255."""
        view.pictures.clear()
        pressing = meanwhile(view, lambda: wait_for(lambda: len(view.pictures) > 12))
        run(Camera(served.url), segmenter, view, None, smoother=smoother)
        pressing.join()
        # The first ones may show no result yet.
        parts = [picture[100:].astype(int) for picture in view.pictures[4:]]
        return float(max(np.abs(after - before).mean() for before, after in pairwise(parts)))

    plain = blinking(None)
    assert plain > 5
    assert blinking(Smoother(0.95, segmenter.spec)) < plain / 3
