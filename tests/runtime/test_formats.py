"""What files people have: formats, bits, frames, raw files, and what is no photo at all."""

from __future__ import annotations

import io
import logging
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.helpers.memory import needs_proc, run_child
from unet_runtime import ImageError, Segmenter
from unet_runtime.core import decoders, photo
from unet_runtime.core.containers import jpeg_xl_size
from unet_runtime.core.photo import open_photo, photo_size

Levels = npt.NDArray[np.uint8]


@pytest.fixture(autouse=True)
def nothing_was_said_before() -> None:
    photo._say.cache_clear()


@pytest.fixture(scope="module")
def original(sample_photo: Path) -> Image.Image:
    with Image.open(sample_photo) as image:
        return Image.fromarray(np.asarray(image.convert("RGB").resize((120, 80))))


@pytest.fixture(scope="module")
def grey(original: Image.Image) -> Levels:
    """0..255."""
    levels = np.asarray(original.convert("L"), np.float64)
    return np.rint((levels - levels.min()) * 255 / np.ptp(levels)).astype(np.uint8)


def difference(path: Path, expected: Levels) -> float:
    """Most levels of 255 by which a photo is off."""
    opened = np.asarray(open_photo(path), np.int16)
    return float(np.abs(opened - (expected if expected.ndim == 3 else expected[..., np.newaxis])).max())


def write_tiff(path: Path, values: npt.NDArray[np.generic], **options: object) -> Path:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(path, values, **options)
    return path


# --- bits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_fewer_bits_in_16(
    bits: int, suffix: str, grey: Levels, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"grey.{suffix}"
    Image.fromarray(np.rint(grey * ((2**bits - 1) / 255)).astype(np.uint16)).save(path)
    assert difference(path, grey) <= 1
    said = [record.getMessage() for record in caplog.records]
    assert said == ([] if bits == 16 else [f"{path}: values up to {2**bits - 1} in 16 bits, taken for {bits} bits"])


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["png", "png alpha", "tif", "tif big-endian", "tif deflate"])
def test_colours_of_fewer_bits_in_16(
    bits: int, kind: str, original: Image.Image, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Pillow keeps the upper 8 of 16 bits: black where the file holds 8."""
    expected = np.asarray(original)
    values = np.rint(expected * ((2**bits - 1) / 255)).astype(np.uint16)
    if kind.startswith("png"):
        path = tmp_path / "photo.png"
        if kind.endswith("alpha"):
            values = np.dstack([values, np.full(values.shape[:2], 2**bits - 1, np.uint16)])
        path.write_bytes(png_of_16_bits(values))
    else:
        options = {"byteorder": ">"} if "big" in kind else {"compression": "deflate"} if "deflate" in kind else {}
        path = write_tiff(tmp_path / "photo.tif", values, photometric="rgb", **options)
    assert difference(path, expected) <= 1
    said = [record.getMessage() for record in caplog.records]
    assert said == ([] if bits == 16 else [f"{path}: 16 bits a channel that hold {bits}: taken for {bits} bits"])


def png_of_16_bits(values: npt.NDArray[np.uint16]) -> bytes:
    height, width, channels = values.shape
    rows = values.astype(">u2").tobytes()
    stride = 2 * width * channels
    lines = b"".join(b"\0" + rows[top * stride : (top + 1) * stride] for top in range(height))
    return png((width, height), 16, 2 if channels == 3 else 6, zlib.compress(lines))


def png(size: tuple[int, int], bits: int, colour: int, data: bytes) -> bytes:
    result = b"\x89PNG\r\n\x1a\n"
    for kind, content in (
        (b"IHDR", struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0)),
        (b"IDAT", data),
        (b"IEND", b""),
    ):
        result += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return result


FLOATS: dict[str, tuple[Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]], str]] = {
    "0 to 1": (lambda share: share, ""),
    "0 to 255": (lambda share: share * 255, "floats up to 255, taken for 0 to 255"),
    "0 to 4095": (lambda share: share * 4095, "floats up to 4095, taken for 0 to 4095"),
    "0 to 65535": (lambda share: share * 65535, "floats up to 65535, taken for 0 to 65535"),
    "a height model": (lambda share: share * 900 - 100, "values -100 to 800, spread from black to white"),
    "linear light": (lambda share: share * 3.5, "values 0 to 3.5, spread from black to white"),
    "millions": (lambda share: share * 5e6, "values 0 to 5e+06, spread from black to white"),
    "no value": (lambda share: np.where(share == 0, -3.4e38, share), ""),
    "not a number": (lambda share: np.where(share == 0, np.nan, share), ""),
    "infinite": (lambda share: np.where(share == 0, -np.inf, share), ""),
}


@pytest.mark.parametrize("kind", FLOATS)
def test_floats(kind: str, grey: Levels, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stored, said = FLOATS[kind]
    path = tmp_path / "photo.tif"
    Image.fromarray(stored(grey / 255).astype(np.float32)).save(path)
    assert difference(path, grey) <= 1
    assert [record.getMessage() for record in caplog.records] == ([f"{path}: {said}"] if said else [])


@pytest.mark.parametrize("kind", ["32 bits", "20 bits", "signed", "white is zero", "white is zero, 8 bits"])
def test_other_integers(kind: str, grey: Levels, tmp_path: Path) -> None:
    values, options = {
        "32 bits": (grey.astype(np.uint32) * 16843009, {}),
        "20 bits": (grey.astype(np.uint32) * 4112, {}),
        "signed": (grey.astype(np.int16) * 100 - 9000, {}),
        "white is zero": (65535 - grey.astype(np.uint16) * 257, {"photometric": "miniswhite"}),
        "white is zero, 8 bits": (255 - grey, {"photometric": "miniswhite"}),
    }[kind]
    assert difference(write_tiff(tmp_path / "photo.tif", values, **options), grey) <= 1


def test_black_is_black_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for index, values in enumerate((np.zeros((4, 4), np.uint16), np.zeros((4, 4), np.float32))):
        Image.fromarray(values).save(tmp_path / f"{index}.tif")
        assert difference(tmp_path / f"{index}.tif", np.zeros((4, 4), np.uint8)) == 0
    (tmp_path / "rgb.png").write_bytes(png_of_16_bits(np.zeros((4, 4, 3), np.uint16)))
    assert difference(tmp_path / "rgb.png", np.zeros((4, 4), np.uint8)) == 0
    assert not caplog.records


@pytest.mark.parametrize("kind", ["64-bit floats", "colours in floats", "separate planes"])
def test_tiffs_that_pillow_cannot_read(kind: str, original: Image.Image, tmp_path: Path) -> None:
    pixels = np.asarray(original)
    path = tmp_path / "photo.tif"
    if kind == "64-bit floats":
        write_tiff(path, pixels[..., 0] / 255)
    elif kind == "colours in floats":
        write_tiff(path, (pixels / 255).astype(np.float32), photometric="rgb")
    else:
        planes = pixels.transpose(2, 0, 1).astype(np.uint16) * 257
        write_tiff(path, planes, photometric="rgb", planarconfig="separate")
    with pytest.raises(ImageError, match=r"photo\.tif: a TIFF .*(convert|save) it"):
        open_photo(path)


# --- frames ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_first_of_several_frames_is_taken_and_said_once(
    format_: str, original: Image.Image, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "photo"
    original.save(path, format_, save_all=True, append_images=[Image.new("RGB", original.size)] * 2)
    for _ in range(2):
        photo_size(path)
        assert np.abs(np.asarray(open_photo(path), np.int16) - np.asarray(original)).mean() < 20
    what = "pages" if format_ == "TIFF" else "frames"
    assert [record.getMessage() for record in caplog.records] == [f"{path}: has several {what}: the first one is taken"]
    assert caplog.records[0].levelno == logging.WARNING


PHOTO, COPY, MASK = 0, 1, 4
"""NewSubfileType of a TIFF's page."""


@pytest.mark.parametrize(
    ("kinds", "taken", "word"),
    [
        ([COPY, PHOTO], 1, "page 2"),
        ([COPY, COPY, PHOTO, PHOTO], 2, "page 3"),
        ([COPY, MASK, PHOTO], 2, "page 3"),
        ([PHOTO, COPY, COPY], 0, ""),
        ([PHOTO, MASK], 0, ""),
        ([PHOTO, COPY, PHOTO], 0, "several pages"),
        ([COPY], 0, ""),
        ([COPY, COPY], 0, ""),
        ([PHOTO], 0, ""),
    ],
)
def test_the_page_of_a_tiff_that_is_the_photo(
    kinds: list[int], taken: int, word: str, original: Image.Image, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tifffile = pytest.importorskip("tifffile")
    levels = np.asarray(original)
    path = tmp_path / "pages.tif"
    for big, order in ((False, "<"), (False, ">"), (True, "<")):
        photo._say.cache_clear()
        caplog.clear()
        with tifffile.TiffWriter(path, bigtiff=big, byteorder=order) as file:
            for index, kind in enumerate(kinds):
                size = levels[:: index + 1, :: index + 2]
                if kind == MASK:
                    file.write(size[..., 0] > 127, subfiletype=kind, metadata=None)
                else:
                    file.write(size, photometric="rgb", subfiletype=kind, metadata=None)
        assert difference(path, levels[:: taken + 1, :: taken + 2]) == 0
        assert photo_size(path) == open_photo(path).size
        assert len(caplog.records) == bool(word)
        assert word in caplog.text


def test_a_thumbnail_of_the_old_kind(original: Image.Image, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for size, kind in ((original.resize((30, 20)), 2), (original, 1)):
            tag = (255, 3, 1, kind, True)
            file.write(np.asarray(size), photometric="rgb", extratags=[tag], metadata=None)
    assert difference(tmp_path / "a.tif", np.asarray(original)) == 0


def test_a_photo_that_pillow_does_not_find_behind_its_thumbnail(original: Image.Image, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        small = np.asarray(original.resize((30, 20)))
        file.write(small, photometric="rgb", subfiletype=COPY, subifds=1, metadata=None)
        file.write(np.asarray(original), photometric="rgb", metadata=None)
    with pytest.raises(ImageError, match=r"a\.tif: a TIFF that begins with a reduced copy .* in a SubIFD"):
        open_photo(tmp_path / "a.tif")


def test_colours_as_cie_lab(original: Image.Image, tmp_path: Path) -> None:
    from PIL import ImageCms

    profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
    lab = ImageCms.applyTransform(original, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    lab.save(tmp_path / "lab.tif")
    assert difference(tmp_path / "lab.tif", np.asarray(original)) < 12  # 8 bits of a and b are coarse
    write_tiff(tmp_path / "deep.tif", np.zeros((4, 4, 3), np.uint16), photometric="cielab")
    with pytest.raises(ImageError, match=r"L\*a\*b\* in 16 bits"):
        open_photo(tmp_path / "deep.tif")


@pytest.mark.parametrize("format_", ["JPEG", "TIFF", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_of_a_photo_that_is_turned(format_: str, orientation: int, original: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    original.save(file, format_, exif=exif)
    assert photo_size(file) == original.size
    assert photo_size(file, upright=True) == open_photo(file).size


def test_one_frame_is_no_news(original: Image.Image, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for format_ in ("GIF", "PNG", "WEBP", "TIFF", "AVIF", "JPEG"):
        original.save(tmp_path / format_, format_)
        open_photo(tmp_path / format_)
    original.save(tmp_path / "phone.mpo", "MPO", save_all=True, append_images=[original])  # its gain map, its other eye
    open_photo(tmp_path / "phone.mpo")
    assert not caplog.records


# --- decoders that are packages of their own --------------------------------------------------------


def written(original: Image.Image, suffix: str, path: Path) -> Path:
    if suffix == "jxl":
        pytest.importorskip("pillow_jxl.JpegXLImagePlugin")
        original.save(path, "JXL", quality=95)
    elif suffix == "heic":
        pytest.importorskip("pillow_heif").from_pillow(original).save(path, quality=95)
    else:
        original.save(path, {"jp2": "JPEG2000", "avif": "AVIF"}[suffix])
    return path


@pytest.mark.parametrize("suffix", ["heic", "jxl", "jp2", "avif"])
def test_formats_of_phones_and_archives(suffix: str, original: Image.Image, tmp_path: Path) -> None:
    path = written(original, suffix, tmp_path / "photo")  # by its content, whatever its name
    assert photo_size(path) == original.size
    opened = open_photo(path)
    assert np.abs(np.asarray(opened, np.int16) - np.asarray(original)).mean() < 5
    with pytest.raises(ImageError, match="too many pixels"):
        open_photo(path, 5000)


@pytest.mark.parametrize(("suffix", "package"), [("heic", "pillow-heif"), ("jxl", "pillow-jxl-plugin")])
def test_a_missing_decoder_is_named(
    suffix: str, package: str, original: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(original, suffix, tmp_path / f"photo.{suffix}")
    for module in ("pillow_heif", "pillow_jxl", "pillow_jxl.JpegXLImagePlugin"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImageError, match=f"needs the package {package}: pip install "):
        open_photo(path)


def test_jpeg_xl_tells_its_size_before_it_is_decoded() -> None:
    plugin = pytest.importorskip("pillow_jxl.JpegXLImagePlugin")
    for size in ((8, 8), (256, 256), (300, 200), (640, 480), (1, 700), (1920, 1080), (4000, 3000), (513, 9000)):
        for container in (False, True):
            file = io.BytesIO()
            Image.new("RGB", size).save(file, "JXL", use_container=container, effort=1)
            assert jpeg_xl_size(file) == size
            file.seek(0)
            assert plugin.JXLImageFile(file, "").size == size


def test_the_exif_of_jpeg_xl_does_not_turn_it_again(original: Image.Image) -> None:
    pytest.importorskip("pillow_jxl.JpegXLImagePlugin")
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    original.save(file, "JXL", exif=exif.tobytes())
    assert open_photo(file).size == original.size


# --- raw files -------------------------------------------------------------------------------------


def raw_tiff(kind: str) -> bytes:
    """A preview of 16x16 pixels, and what marks the file as a camera's."""
    entries = [
        (256, 4, 16),
        (257, 4, 16),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 400),
        (278, 4, 16),
        (279, 4, 256),
    ]
    child = b""
    if kind == "DNG":
        entries.append((50706, 1, 0x0401))
    elif kind == "first picture":
        entries[4] = (262, 3, 32803)
    else:
        entries.append((330, 4, 250))
        photometric = {"sensor": 32803, "linear": 34892}[kind]
        child = struct.pack("<H", 1) + struct.pack("<HHII", 262, 3, 1, photometric) + bytes(4)
    entries.sort()
    folder = struct.pack("<H", len(entries))
    for tag, type_, value in entries:
        count = 4 if tag == 50706 else 1
        folder += struct.pack("<HHII", tag, type_, count, value)
    content = b"II\x2a\0\x08\0\0\0" + folder + bytes(4)
    return (content.ljust(250, b"\0") + child).ljust(400, b"\0") + bytes(range(256))


@pytest.mark.parametrize("kind", ["DNG", "sensor", "linear", "first picture"])
def test_a_raw_file_is_refused_whatever_its_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.tif"
    path.write_bytes(raw_tiff(kind))
    with pytest.raises(ImageError, match=r"photo\.tif: is a camera's raw file, .*preview"):
        open_photo(path)


MARKS = {
    "raf": b"FUJIFILMCCD-RAW 0201",
    "x3f": b"FOVb\0\0\2\0",
    "orf": b"IIRO\x08\0\0\0",
    "rw2": b"IIU\0\x18\0\0\0",
    "cr2": b"II\x2a\0\x10\0\0\0CR\2\0",
    "cr3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
    "mrw": b"\0MRM\0\0\0\0",
    "crw": b"II\x1a\0\0\0HEAPCCDR",
}


@pytest.mark.parametrize("suffix", MARKS)
def test_raw_files_of_other_makers(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"photo.{suffix}"
    path.write_bytes(MARKS[suffix] + bytes(200))
    with pytest.raises(ImageError, match=rf"is a camera's raw file \({suffix.upper()}\)"):
        open_photo(path)


def test_an_ordinary_tiff_is_none_but_for_its_name(original: Image.Image, tmp_path: Path) -> None:
    for name in ("photo.tif", "photo.nef"):
        original.save(tmp_path / name, "TIFF")
    assert open_photo(tmp_path / "photo.tif").size == original.size
    with pytest.raises(ImageError, match=r"raw file \(NEF\)"):
        open_photo(tmp_path / "photo.nef")


# --- what Pillow may decode ----------------------------------------------------------------------


def test_only_the_decoders_that_are_meant(original: Image.Image) -> None:
    """Whatever else Pillow can read is refused; what it registers under those names is what runs."""
    Image.init()
    meant = {known.name for known in decoders.FORMATS}
    for format_ in ("ICO", "ICNS", "PCX", "SGI", "DDS", "MSP", "XBM", "SPIDER"):
        assert format_ not in meant
        file = io.BytesIO()
        stored = original.resize((64, 64)).convert({"MSP": "1", "XBM": "1", "SPIDER": "F"}.get(format_, "RGB"))
        stored.save(file, format_)
        for name in ("", "photo.jpg"):
            file.seek(0)
            with pytest.raises(decoders.RefusedError):
                decoders.open_image(file, name, lambda size: None)


@needs_proc
@pytest.mark.parametrize("kind", ["ico", "icns", "cur", "png", "jxl", "webp", "gif"])
def test_the_limit_of_pixels_holds_while_opening(kind: str, tmp_path: Path, colour_model: Path) -> None:
    """Some decoders decode to tell the size: 400 megapixels, and not one is decoded."""
    side = 20_000
    rows = zlib.compressobj(1)
    data = b"".join(rows.compress(bytes(side // 8 + 1)) for _ in range(side)) + rows.flush()
    bomb = png((side, side), 1, 0, data)
    header = struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(bomb), 22)
    gif_header = b"GIF89a" + struct.pack("<HHBBB", side, side, 0, 0, 0) + b"!\xf9\x04\x0c\0\0\0\0"
    gif_frame = b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x01\x44\0;"
    content = {
        "ico": struct.pack("<HHH", 0, 1, 1) + header + bomb,
        "cur": struct.pack("<HHH", 0, 2, 1) + header + bomb,
        "icns": b"icns" + struct.pack(">I", 16 + len(bomb)) + b"ic10" + struct.pack(">I", 8 + len(bomb)) + bomb,
        "png": bomb,
        "jxl": b"\xff\x0a" + jxl_size_bits(side, side) + bytes(100),
        "webp": b"RIFF\x28\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x1f\x4e\0\x1f\x4e\0" + bytes(18),
        "gif": gif_header + gif_frame,
    }[kind]
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    measured = run_child(
        """
from unet_runtime import ImageError
from unet_runtime.core.photo import open_photo, photo_size
photo_size(sys.argv[2])
try:
    open_photo(sys.argv[2], 1_000_000)
    refused = False
except ImageError:
    refused = True
print(json.dumps({"peak": megabytes("VmHWM") - base, "refused": refused}))
""",
        colour_model,
        path,
    )
    assert measured["refused"]
    assert measured["peak"] < 30


def jxl_size_bits(width: int, height: int) -> bytes:
    """A SizeHeader: no multiple of 8, sides of up to 18 bits, no ratio."""
    value, position = 0, 0
    for number, length in ((0, 1), (2, 2), (height - 1, 18), (0, 3), (2, 2), (width - 1, 18)):
        value |= number << position
        position += length
    return value.to_bytes((position + 7) // 8, "little")


# --- transparency ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "one colour"])
def test_what_was_transparent_stays_so(kind: str, original: Image.Image, colour_model: Path, tmp_path: Path) -> None:
    """The hidden half is red, which ``colour_model`` predicts as foreground; a grey pixel has opacity 128."""
    path = tmp_path / "photo.png"
    stored = original.copy()
    stored.paste((255, 0, 0), (0, 0, 60, 80))
    alpha = Image.new("L", original.size, 255)
    alpha.paste(0, (0, 0, 60, 80))
    if kind == "one colour":
        stored.save(path, transparency=(255, 0, 0))
    elif kind == "P":
        stored.quantize(32).save(path, transparency=stored.quantize(32).getpixel((0, 0)))
    else:
        stored = stored.convert(kind[:-1])
        stored.putalpha(alpha)
        stored.save(path)
    segmenter = Segmenter(colour_model)
    for result in (segmenter(path), segmenter(Image.open(path)), segmenter.tiled(path)):
        opacity = np.asarray(result.cutout())[..., 3]
        assert (opacity[:, :60] == 0).all()
        assert opacity[:, 60:].max() > 100
