"""A photo's colour profile: its colours are those of the same photo in sRGB, for the network and in the results."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from skimage.color import deltaE_ciede2000, rgb2lab

from tests.helpers.memory import MB_A_MEGAPIXEL, WORKING, needs_proc, run_child
from tests.helpers.paths import REPOSITORY
from tests.helpers.profiles import SPACES, cmyk_profile, grey_profile, in_cmyk, in_space, rgb_profile
from unet_runtime import Segmenter
from unet_runtime.core import colour, photo
from unet_runtime.core.photo import open_photo, upright_rgb

WIDE = [space for space in SPACES if space != "sRGB"]


@pytest.fixture(autouse=True)
def nothing_was_said_before() -> None:
    photo._say.cache_clear()


@pytest.fixture(scope="module")
def original(sample_photo: Path) -> Image.Image:
    with Image.open(sample_photo) as image:
        return Image.fromarray(np.asarray(image.convert("RGB").resize((226, 150))))


def difference(picture: Image.Image, expected: Image.Image) -> float:
    """Mean dE2000."""
    pair = [rgb2lab(np.asarray(image.convert("RGB"))) for image in (picture, expected)]
    return float(deltaE_ciede2000(*pair).mean())


def file_of(picture: Image.Image, format_: str = "PNG", **options: object) -> io.BytesIO:
    file = io.BytesIO()
    picture.save(file, format_, **options)
    return file


@pytest.mark.parametrize("space", WIDE)
def test_wide_colour_spaces(space: str, original: Image.Image) -> None:
    wide = in_space(original, space)
    assert difference(wide, original) > 1  # what a reader without profiles sees
    opened = open_photo(file_of(wide, icc_profile=rgb_profile(space)))
    assert difference(opened, original) < 0.6
    assert "icc_profile" not in opened.info  # it is sRGB now: nobody may apply the profile again
    assert difference(upright_rgb(opened), original) < 0.6


def with_chunks(content: bytes, *chunks: tuple[bytes, bytes]) -> io.BytesIO:
    """A PNG with more chunks behind its header."""
    more = b""
    for kind, data in chunks:
        more += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return io.BytesIO(content[:33] + more + content[33:])


def gamma_chunk(gamma: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(gamma * 100_000))


ADOBE_CHUNK = (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000))
SRGB_CHUNK = (b"sRGB", b"\0")


def linear(picture: Image.Image) -> Image.Image:
    levels = np.asarray(picture) / 255
    return Image.fromarray(
        np.rint(255 * np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)).astype(np.uint8)
    )


def test_gamma_and_chromaticities_of_a_png(original: Image.Image) -> None:
    plain = file_of(original).getvalue()
    for content in (
        with_chunks(file_of(linear(original)).getvalue(), gamma_chunk(1)),
        with_chunks(file_of(in_space(original, "Adobe RGB")).getvalue(), gamma_chunk(256 / 563), ADOBE_CHUNK),
    ):
        opened = open_photo(content)
        assert difference(opened, original) < 0.6
        assert difference(upright_rgb(opened), original) < 0.6
        with Image.open(content) as image:  # as a user of the library may give it
            assert difference(upright_rgb(image), original) < 0.6
    for chunks in ((gamma_chunk(1 / 2.2),), (gamma_chunk(1), SRGB_CHUNK), (gamma_chunk(0),), (gamma_chunk(40000),)):
        assert np.array_equal(open_photo(with_chunks(plain, *chunks)), original)
    zeros = (b"cHRM", bytes(32))
    assert np.array_equal(open_photo(with_chunks(plain, gamma_chunk(0.5), zeros)), original)


def test_code_points_of_a_png(original: Image.Image, caplog: pytest.LogCaptureFixture) -> None:
    wide = file_of(in_space(original, "Display P3")).getvalue()
    of_p3 = (b"cICP", bytes((12, 13, 0, 1)))
    assert difference(open_photo(with_chunks(wide, gamma_chunk(1), of_p3)), original) < 0.6
    plain = file_of(original).getvalue()
    for codes in ((1, 13, 0, 1), (1, 1, 0, 1), (2, 2, 0, 1), (255, 255, 0, 1)):
        assert np.array_equal(open_photo(with_chunks(plain, (b"cICP", bytes(codes)))), original)
    assert not caplog.records


@pytest.mark.parametrize("transfer", ["PQ", "HLG"])
def test_hdr(transfer: str, caplog: pytest.LogCaptureFixture) -> None:
    """Reference white, 203 cd/m2, is white; a tenth of its light is what sRGB makes of a tenth."""
    levels = {"PQ": (0.5807, 0.3660), "HLG": (0.75, 0.3416)}[transfer]
    picture = Image.fromarray(np.rint(255 * np.repeat([[levels]], 3, axis=0).T.reshape(1, 2, 3)).astype(np.uint8))
    code = {"PQ": 16, "HLG": 18}[transfer]
    opened = np.asarray(open_photo(with_chunks(file_of(picture).getvalue(), (b"cICP", bytes((9, code, 0, 1))))))
    assert np.abs(opened.astype(int) - [[[255] * 3, [89] * 3]]).max() <= 3
    assert "is an HDR picture" in caplog.text


@pytest.mark.parametrize("format_", ["AVIF", "HEIF"])
def test_code_points_of_avif_and_heic(format_: str, original: Image.Image) -> None:
    if format_ == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    content = bytearray(file_of(in_space(original, "Display P3"), format_, quality=95).getvalue())
    place = content.index(b"nclx") + 4
    content[place : place + 4] = struct.pack(">HH", 12, 13)
    assert difference(open_photo(io.BytesIO(bytes(content))), original) < 2
    content[place : place + 4] = struct.pack(">HH", 1, 13)
    assert difference(open_photo(io.BytesIO(bytes(content))), original) > 1.5


@pytest.mark.parametrize(("format_", "limit"), [("TIFF", 0.6), ("JPEG", 2), ("WEBP", 2), ("AVIF", 2)])
def test_file_formats(format_: str, limit: float, original: Image.Image) -> None:
    options = {} if format_ == "TIFF" else {"quality": 95}
    wide = in_space(original, "Display P3")
    assert (
        difference(open_photo(file_of(wide, format_, icc_profile=rgb_profile("Display P3"), **options)), original)
        < limit
    )


def test_jpeg_2000_keeps_its_profile_in_a_box(original: Image.Image) -> None:
    """Pillow neither writes nor reads it."""
    profile = rgb_profile("Adobe RGB")
    content = file_of(in_space(original, "Adobe RGB"), "JPEG2000").getvalue()
    start = content.index(b"colr") - 4
    length = int.from_bytes(content[start : start + 4], "big")
    box = (11 + len(profile)).to_bytes(4, "big") + b"colr\x02\0\0" + profile
    header = content.index(b"jp2h") - 4
    grown = int.from_bytes(content[header : header + 4], "big") + len(box) - length
    content = (
        content[:header] + grown.to_bytes(4, "big") + content[header + 4 : start] + box + content[start + length :]
    )
    assert difference(open_photo(io.BytesIO(content)), original) < 0.6


@pytest.mark.parametrize("format_", ["TIFF", "JPEG"])
def test_cmyk(format_: str, original: Image.Image) -> None:
    inks = in_cmyk(original)
    assert difference(inks, original) > 4
    options = {"quality": 98} if format_ == "JPEG" else {}
    assert difference(open_photo(file_of(inks, format_, icc_profile=cmyk_profile(), **options)), original) < 2


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey(mode: str, original: Image.Image) -> None:
    """Linear greys, as some scanners write."""
    grey = original.convert("L")
    linear = grey.point([round(255 * (value / 255) ** (1 / 1.2)) for value in range(256)])
    expected = ImageCms.profileToProfile(
        linear, io.BytesIO(grey_profile(1.0)), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    stored = linear.convert(mode)
    opened = open_photo(file_of(stored, icc_profile=grey_profile(1.0)))
    if mode != "1":
        assert difference(opened, expected) < 0.1
    assert np.ptp(np.asarray(opened).astype(int), axis=-1).max() <= 1


@pytest.mark.parametrize("mode", ["P", "RGBA", "L"])
def test_other_modes_with_an_rgb_profile(mode: str, original: Image.Image) -> None:
    profile = rgb_profile("Adobe RGB")
    stored = in_space(original, "Adobe RGB").convert(mode)
    expected = open_photo(file_of(stored.convert("RGB"), icc_profile=profile))
    assert difference(open_photo(file_of(stored, icc_profile=profile)), expected) < 0.1


def test_transparent_pixels_of_a_photo_with_a_profile(original: Image.Image) -> None:
    wide = in_space(original, "Display P3")
    wide.putalpha(Image.new("L", wide.size, 255))
    wide.paste((9, 9, 9, 0), (0, 0, 30, wide.height))
    opened = open_photo(file_of(wide, icc_profile=rgb_profile("Display P3")))
    assert (np.asarray(opened)[:, :30] == 255).all()
    assert difference(opened.crop((30, 0, 226, 150)), original.crop((30, 0, 226, 150))) < 0.6


def test_adobe_rgb_of_a_camera_is_in_its_exif(original: Image.Image) -> None:
    """Design rule for Camera File system 2.0: interoperability index R03, no profile."""
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 0xFFFF, 0xA005: {1: "R03"}}
    wide = in_space(original, "Adobe RGB")
    file = file_of(wide, "JPEG", quality=98, subsampling=0, exif=exif)
    assert difference(open_photo(file), original) < difference(wide, original) / 3
    exif[0x8769] = {0xA001: 1, 0xA005: {1: "R98"}}
    assert difference(open_photo(file_of(wide, "JPEG", quality=98, subsampling=0, exif=exif)), wide) < 0.7


def test_the_adobe_profile_is_adobes() -> None:
    ours, expected = colour.adobe_rgb(), rgb_profile("Adobe RGB")
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    pair = [
        ImageCms.profileToProfile(colours, io.BytesIO(profile), ImageCms.createProfile("sRGB"))
        for profile in (ours, expected)
    ]
    assert np.abs(np.asarray(pair[0], np.int16) - np.asarray(pair[1], np.int16)).max() <= 1


def test_srgb_is_recognised_and_pixels_are_not_touched(original: Image.Image) -> None:
    known = [rgb_profile("sRGB"), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()]
    for profile in known:
        assert colour.is_srgb(profile)
        tagged = original.copy()
        tagged.info["icc_profile"] = profile
        assert upright_rgb(tagged) is tagged
        assert open_photo(file_of(original, icc_profile=profile)).tobytes() == original.tobytes()
    renamed = rgb_profile("Adobe RGB").replace(b"Adobe RGB", b"sRGB IEC6")
    assert not colour.is_srgb(renamed)  # by its colours, not by its name


def test_pillow_images_of_the_library_keep_what_they_are(original: Image.Image) -> None:
    wide = in_space(original, "Display P3")
    wide.info["icc_profile"] = rgb_profile("Display P3")
    before = wide.tobytes()
    converted = upright_rgb(wide)
    assert wide.tobytes() == before
    assert "icc_profile" in wide.info
    assert difference(converted, original) < 0.6


BROKEN = {
    "cut": rgb_profile("Display P3")[:200],
    "noise": bytes(np.random.default_rng(1).integers(0, 256, 3000, np.uint8)),
    "of a printer": cmyk_profile(),
    "of a grey picture": grey_profile(2.2),
    "shifted": rgb_profile("Display P3").replace(b"XYZ \0\0\0\0", b"XYZ \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")[:4000],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_profile_that_cannot_be_used_is_named_once(
    kind: str, original: Image.Image, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(file_of(original, icc_profile=BROKEN[kind]).getvalue())
    for _ in range(3):
        assert open_photo(path).tobytes() == original.tobytes()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"{path}: its colour profile is not used")


def test_damaged_profiles_never_raise(original: Image.Image) -> None:
    """Flipped bytes: a picture every time."""
    rng = np.random.default_rng(0)
    small = original.resize((8, 8))
    for profile in (rgb_profile("Display P3"), cmyk_profile()[:3000]):
        for _ in range(60):
            damaged = bytearray(profile)
            for place in rng.integers(0, len(damaged), 4):
                damaged[place] = rng.integers(0, 256)
            assert open_photo(file_of(small, icc_profile=bytes(damaged))).size == (8, 8)


def test_the_same_classes_as_the_photo_in_srgb(original: Image.Image, tmp_path: Path) -> None:
    """For the network, and in the overlay and the cut-out."""
    segmenter = Segmenter()
    expected = segmenter(original)
    for space in ("Display P3", "Adobe RGB"):
        path = tmp_path / "photo.png"
        in_space(original, space).save(path, icc_profile=rgb_profile(space))
        for result in (segmenter(path), segmenter(Image.open(path))):
            assert (result.mask == expected.mask).mean() >= 0.995
            assert difference(result.overlay(), expected.overlay()) < 1
            assert difference(result.cutout(), expected.cutout()) < 1


@needs_proc
def test_memory(tmp_path: Path, colour_model: Path) -> None:
    """A photo of 36 megapixels is converted in place; inks and greys need the photo beside."""
    for mode, profile, copies in (("RGB", rgb_profile("Display P3"), 1), ("CMYK", cmyk_profile(), 2)):
        path = tmp_path / f"{mode}.tif"
        Image.new(mode, (6000, 6000), (30, 200, 90, 0)[: len(mode)]).save(
            path, compression="tiff_lzw", icc_profile=profile
        )
        measured = run_child(
            """
from unet_runtime.core.photo import open_photo
photo = open_photo(sys.argv[2])
print(json.dumps({"peak": megabytes("VmHWM") - base}))
""",
            colour_model,
            path,
        )
        assert measured["peak"] < 36 * copies * MB_A_MEGAPIXEL + WORKING, mode


def test_the_fast_path_needs_no_colour_management(sample_photo: Path) -> None:
    """A JPEG without a profile: not even the module is imported."""
    import subprocess
    import sys

    code = (
        "import sys; from unet_runtime.core.photo import open_photo; open_photo(sys.argv[1]);"
        "bad = {'PIL.ImageCms', 'unet_runtime.core.colour', 'unet_runtime.core.levels', 'unet_runtime.core.raw',"
        " 'PIL.PngImagePlugin'}; print(sorted(bad & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(sample_photo)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"
