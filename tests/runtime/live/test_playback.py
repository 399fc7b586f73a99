"""Chromium plays what unet-run makes of videos and cameras: pictures, size, duration, sound."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.commands import UNET_RUN
from tests.helpers.live import wait_for
from tests.helpers.mjpeg import SIZE, MjpegCamera
from tests.helpers.video import make, needs_ffmpeg

PAGE = """<!doctype html><title>video</title><video id="video" src="{name}" autoplay></video><script>
const seen = [];
for (const event of ["loadeddata", "ended", "error", "stalled"])
    video.addEventListener(event, () => seen.push(event));
</script>"""

FACTS = """({
    width: video.videoWidth, height: video.videoHeight, duration: video.duration, time: video.currentTime,
    sound: video.webkitAudioDecodedByteCount, pictures: video.webkitVideoDecodedByteCount,
    error: video.error && video.error.message,
    colour: (() => {
        const one = new OffscreenCanvas(1, 1).getContext("2d");
        one.drawImage(video, 0, 0, 1, 1);
        return [...one.getImageData(0, 0, 1, 1).data];
    })(),
})"""


PROGRAM = (UNET_RUN, "-q")


def played(browser: Any, path: Path) -> dict[str, Any]:
    """What the browser says of a video when it has played it to its end."""
    place = path.with_suffix(".html")
    place.write_text(PAGE.format(name=path.name))
    context = browser.new_context()
    try:
        page = context.new_page()
        if not page.evaluate("""document.createElement("video").canPlayType('video/mp4; codecs="avc1.42E01E"')"""):
            pytest.skip("this Chromium has no decoder for H.264: Debian's has one")
        page.goto(place.as_uri())
        page.wait_for_function("seen.includes('ended') || seen.includes('error')", timeout=180_000)
        facts: dict[str, Any] = page.evaluate(FACTS)
        assert page.evaluate("seen.filter(event => event != 'stalled')") == ["loadeddata", "ended"], str(facts)
        return facts
    finally:
        context.close()


@needs_ffmpeg
@pytest.mark.parametrize("sound", [True, False])
def test_a_result_of_a_film_plays(sound: bool, browser: Any, colour_model: Path, tmp_path: Path) -> None:
    more = ("-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac") if sound else ()
    film = make(tmp_path / "film.mp4", *more, source="color=red:size=320x240:rate=15:duration=1")
    command = [*PROGRAM, str(film), "--model", str(colour_model)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    facts = played(browser, tmp_path / "film.overlay.mp4")
    assert (facts["width"], facts["height"], facts["error"]) == (320, 240, None)
    assert facts["duration"] == pytest.approx(1, abs=0.1)
    assert facts["pictures"] > 0
    assert (facts["sound"] > 0) == sound
    red, green, blue, _ = facts["colour"]
    assert red > 200 > 80 > max(green, blue)


@needs_ffmpeg
def test_a_recording_plays(browser: Any, sample_photo: Path, tmp_path: Path) -> None:
    recording = tmp_path / "live.mp4"
    with MjpegCamera(sample_photo) as camera:
        command = [*PROGRAM, "--webcam", camera.url, "--view", "none", "--record", str(recording)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            wait_for(lambda: list(tmp_path.glob(".*.part.mp4")), 120)  # some pictures have been shown
            sent = camera.sent
            wait_for(lambda: camera.sent > sent + 20, 60)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    facts = played(browser, recording)
    assert (facts["width"], facts["height"], facts["error"]) == (*SIZE, None)
    assert facts["duration"] > 0.5
    assert facts["pictures"] > 0
    assert facts["sound"] == 0


def test_what_browsers_do_not_play_is_seen_here(browser: Any, tmp_path: Path) -> None:
    """The check itself: without an error of the browser, the tests above would show nothing."""
    (tmp_path / "no.mp4").write_bytes(b"no video")
    with pytest.raises(AssertionError, match="error"):
        played(browser, tmp_path / "no.mp4")
