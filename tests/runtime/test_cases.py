"""The files of tests/data/cases, and some made of them: what users really have.

What ``same_class`` compares depends on the default model, by a few pixels in a thousand; all else does not.
"""

from __future__ import annotations

import importlib.util
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.helpers.colours import colour_spec, write_colour_model
from tests.helpers.commands import unet_run
from tests.helpers.paths import REPOSITORY
from tests.helpers.video import frames_of, needs_ffmpeg, shown, times
from unet_runtime import Segmenter
from unet_runtime.core.photo import open_photo
from unet_runtime.io.video.segment import segment_video

CASES = REPOSITORY / "tests" / "data" / "cases"
PHOTOS, VIDEOS = CASES / "photos", CASES / "videos"


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(backend="onnx")


@pytest.fixture(scope="module")
def reference() -> Image.Image:
    return open_photo(PHOTOS / "srgb_reference.png")


# --- colours ----------------------------------------------------------------------------------------


def colour_difference(one: Image.Image, other: Image.Image) -> float:
    """Mean CIEDE2000."""
    from skimage.color import deltaE_ciede2000, rgb2lab

    return float(deltaE_ciede2000(rgb2lab(np.asarray(one)), rgb2lab(np.asarray(other))).mean())


def same_class(segmenter: Segmenter, one: Image.Image, other: Image.Image) -> float:
    return float((segmenter(one).mask == segmenter(other).mask).mean())


def result_difference(segmenter: Segmenter, one: Image.Image, other: Image.Image) -> float:
    """The larger mean CIEDE2000 of the overlays, and of the cut-outs where both are opaque."""
    results = [segmenter(photo) for photo in (one, other)]
    cutouts = [np.asarray(result.cutout()) for result in results]
    opaque = (cutouts[0][..., 3] == 255) & (cutouts[1][..., 3] == 255)
    parts = [Image.fromarray(cutout[opaque][np.newaxis, :, :3]) for cutout in cutouts]
    return max(colour_difference(*parts), colour_difference(results[0].overlay(), results[1].overlay()))


def test_display_p3(segmenter: Segmenter, reference: Image.Image) -> None:
    photo = open_photo(PHOTOS / "icc_p3.png")
    assert colour_difference(photo, reference) < 1
    assert result_difference(segmenter, photo, reference) < 1
    assert same_class(segmenter, photo, reference) >= 0.995


def test_adobe_rgb_in_a_jpeg(segmenter: Segmenter, reference: Image.Image) -> None:
    """The conversion is not what costs: an exact one, in floats, gives the same classes.

    The JPEG, of quality 90 and half the colours' resolution, has lost what it lacks: the reference as an sRGB JPEG of
    the same tables has another class than the reference on as many pixels.
    """
    path = PHOTOS / "icc_adobergb.jpg"
    photo = open_photo(path)
    assert colour_difference(photo, reference) < 2
    assert result_difference(segmenter, photo, reference) < 2
    exact = Image.fromarray(from_adobe_rgb(path))
    assert np.abs(np.asarray(photo, np.int16) - np.asarray(exact)).mean() < 0.5
    assert same_class(segmenter, photo, exact) >= 0.995
    same_tables = io.BytesIO()
    with Image.open(path) as image:
        reference.save(same_tables, "JPEG", qtables=image.quantization, subsampling=2)  # type: ignore[attr-defined]
    lost = same_class(segmenter, open_photo(same_tables), reference)
    assert same_class(segmenter, photo, reference) >= lost - 0.003


def from_adobe_rgb(path: Path) -> npt.NDArray[np.uint8]:
    from tests.helpers.profiles import SPACES

    with Image.open(path) as image:
        linear = (np.asarray(image, np.float64) / 255) ** (563 / 256)
    xyz = linear @ np.array(SPACES["Adobe RGB"][0])
    rgb = np.clip(xyz @ np.linalg.inv(np.array(SPACES["sRGB"][0])), 0, 1)
    encoded = np.where(rgb <= 0.0031308, rgb * 12.92, 1.055 * rgb ** (1 / 2.4) - 0.055)
    return np.rint(encoded * 255).astype(np.uint8)


# --- formats ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "package"), [("iphone.heic", "pillow_heif"), ("photo.jp2", "PIL"), ("phone.mpo", "PIL")]
)
def test_formats_of_phones(name: str, package: str, segmenter: Segmenter, reference: Image.Image) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"no {package}")
    assert same_class(segmenter, open_photo(PHOTOS / name), reference) > 0.98


GREY = {
    "grey16_holds12bit.png": lambda grey: grey.astype(np.uint16) * 257 >> 4,
    "float_0_65535.tif": lambda grey: grey.astype(np.float32) * 257,
    "float_0_1.tif": lambda grey: grey.astype(np.float32) / 255,
    "grey16_holds10bit.tif": lambda grey: grey.astype(np.uint16) * 257 >> 6,
}


@pytest.mark.parametrize("name", GREY)
def test_few_bits_in_many(
    name: str, tmp_path: Path, segmenter: Segmenter, reference: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    grey = np.asarray(reference.convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "grey16_full.png")
    Image.fromarray(GREY[name](grey)).save(tmp_path / name)
    full, other = open_photo(tmp_path / "grey16_full.png"), open_photo(tmp_path / name)
    assert same_class(segmenter, other, full) >= 0.97
    assert len(caplog.records) == (name != "float_0_1.tif")  # one line says how; 0 to 1 is what floats usually hold


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, reference: Image.Image) -> tuple[int, list[str], Path]:
    """(exit code, standard error, results) of a run over a folder with all that is odd."""
    folder = tmp_path_factory.mktemp("cases")
    photos = folder / "photos"
    photos.mkdir()
    frames = [reference.rotate(90), reference.rotate(180)]
    reference.save(photos / "animated.gif", save_all=True, append_images=frames)
    reference.save(photos / "pages.tif", save_all=True, append_images=frames)
    stripes = reference.copy()
    stripes.putalpha(Image.fromarray(stripe_alpha(reference.size)))
    stripes.save(photos / "transparent_stripes.png")
    (photos / "html_error_page.jpg").write_text("<html><body>404 Not Found</body></html>")
    (photos / "empty.jpg").touch()
    content = (PHOTOS / "icc_adobergb.jpg").read_bytes()
    (photos / "truncated_half.jpg").write_bytes(content[: len(content) // 2])
    (photos / "camera_raw.dng").write_bytes((PHOTOS / "camera_raw.dng").read_bytes())
    done = unet_run(photos, "-o", folder / "out", "--save", "cutout", "--backend", "onnx")
    return done.returncode, done.stderr.splitlines(), folder / "out"


def stripe_alpha(size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    alpha = np.full((size[1], size[0]), 255, np.uint8)
    alpha[:, np.arange(size[0]) % 40 < 20] = 0
    return alpha


def test_bad_photos_do_not_end_the_run(outcome: tuple[int, list[str], Path]) -> None:
    code, errors, out = outcome
    assert code == 1
    names = sorted(path.name for path in out.iterdir())
    assert names == ["animated.cutout.png", "pages.cutout.png", "transparent_stripes.cutout.png"]
    assert sum("photos failed" in line for line in errors) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("html_error_page.jpg", "is an HTML page"),
        ("empty.jpg", "is empty"),
        ("truncated_half.jpg", "truncated"),
        ("camera_raw.dng", "camera raw"),
        ("animated.gif", "the first one is taken"),
        ("pages.tif", "the first one is taken"),
    ],
)
def test_each_is_said_once(name: str, words: str, outcome: tuple[int, list[str], Path]) -> None:
    lines = [line for line in outcome[1] if name in line]
    assert len(lines) == 1
    assert words in lines[0]


def test_what_was_transparent_stays_so(outcome: tuple[int, list[str], Path], reference: Image.Image) -> None:
    with Image.open(outcome[2] / "transparent_stripes.cutout.png") as cutout:
        alpha = np.asarray(cutout.getchannel("A"))
    assert alpha[stripe_alpha(reference.size) == 0].max() == 0


def test_a_raw_file_is_refused_where_it_is_named() -> None:
    done = unet_run("-q", PHOTOS / "camera_raw.dng")
    assert done.returncode == 1
    assert "is a camera's raw file (DNG)" in done.stderr


# --- videos -----------------------------------------------------------------------------------------


@pytest.fixture
def result(tmp_path: Path) -> Callable[[Path], Path]:
    """Segments a video with a quick model."""
    colours = Segmenter(write_colour_model(tmp_path / "colours.onnx", colour_spec()), backend="onnx")

    def segmented(source: Path) -> Path:
        target = tmp_path / "out.mp4"
        assert segment_video(colours, source, {"overlay": target}) == 30
        return target

    return segmented


@needs_ffmpeg
def test_the_sound_is_kept(result: Callable[[Path], Path]) -> None:
    """tests/runtime/live/test_playback.py plays such a result in Chromium."""
    target = result(VIDEOS / "h264_audio.mp4")
    assert shown(target, "stream=codec_name") == ["h264"]
    assert shown(target, "stream=codec_name", "a:0") == ["aac"]


@needs_ffmpeg
def test_pixels_that_are_not_square(result: Callable[[Path], Path]) -> None:
    assert shown(result(VIDEOS / "sar16_9.mp4"), "stream=sample_aspect_ratio") == ["16:9"]


@needs_ffmpeg
def test_a_rate_that_varies(result: Callable[[Path], Path]) -> None:
    source = VIDEOS / "vfr.mp4"
    before, after = times(source), times(result(source))
    shifts = [abs((one - before[0]) - (other - after[0])) for one, other in zip(before, after, strict=True)]
    assert max(shifts) < 0.04


def test_a_phone_that_was_held_upright(result: Callable[[Path], Path], tmp_path: Path) -> None:
    content = bytearray((VIDEOS / "h264_audio.mp4").read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 240 << 16, 0, 1 << 30)
    (tmp_path / "rotated.mp4").write_bytes(content)
    upright, lying = frames_of(result(tmp_path / "rotated.mp4"))[0], frames_of(result(VIDEOS / "h264_audio.mp4"))[0]
    assert upright.shape == (320, 240, 3)
    assert np.abs(np.rot90(lying, -1).astype(np.int16) - upright).mean() < 8


@pytest.mark.parametrize("name", ["picam.h264", "av1.mp4"])
@needs_ffmpeg
def test_what_a_pi_records_and_what_opencv_does_not_decode(name: str, result: Callable[[Path], Path]) -> None:
    assert len(frames_of(result(VIDEOS / name))) == 30


@needs_ffmpeg
def test_a_raw_stream_is_a_video_for_the_command(tmp_path: Path) -> None:
    done = unet_run("-q", VIDEOS / "picam.h264", "-o", tmp_path, "--json", "--backend", "onnx")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)
    assert (tmp_path / "picam.overlay.mp4").is_file()
