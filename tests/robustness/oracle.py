"""What Pillow says of a photo, in a process of its own that imports nothing of this project.

    python -m tests.robustness.oracle MOST_PIXELS

reads paths, one a line, and answers each with a line of JSON (``error``, or ``size`` and ``tolerance``) and the RGB
bytes of one picture or, where a colour profile may be applied or found damaged, two: with and without it.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps

Rgb = npt.NDArray[np.uint8]

_BITS = (8, 10, 12, 14, 16)
_SCALES = (255, 1023, 4095, 16383, 65535)
_MISSING = 1e30


class Oracle:
    """Asks the process; one that has ended is started again."""

    def __init__(self, most_pixels: int) -> None:
        self._command = [sys.executable, "-m", "tests.robustness.oracle", str(most_pixels)]
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, path: Path) -> tuple[list[Rgb], int] | str:
        """(possible pictures, levels that each value may be off), or why there is none."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(os.fsencode(path) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            return f"Pillow's process ended with {self._process.wait()}"
        answer = json.loads(line)
        if "error" in answer:
            return str(answer["error"])
        width, height = answer["size"]
        pictures = []
        for _ in range(answer["pictures"]):
            content = self._process.stdout.read(width * height * 3)
            pictures.append(np.frombuffer(content, np.uint8).reshape(height, width, 3))
        return pictures, answer["tolerance"]

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


def pictures(path: Path, most_pixels: int) -> tuple[list[Image.Image], int]:
    image = _open(path)
    if image.width * image.height > most_pixels:
        raise ValueError("too many pixels")
    is_deep = image.format in ("PNG", "TIFF") and image.mode in ("RGB", "RGBA") and ";16" in str(image.tile)
    is_negative = image.format == "TIFF" and image.tag_v2.get(262) == 0  # type: ignore[attr-defined]
    is_unsigned = image.format == "TIFF" and image.tag_v2.get(339, (1,)) == (1,)  # type: ignore[attr-defined]
    image.load()
    profile = image.info.get("icc_profile")
    if image.format != "JXL" or getattr(image, "jpeg", False):
        image = ImageOps.exif_transpose(image)
    tolerance = 255 if is_deep and max(np.asarray(image)[..., :3].max(), 0) < 64 else 0
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bit(image, is_unsigned)
        image = ImageOps.invert(image) if is_negative else image
        tolerance = 1
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    found = [_flat(image)]
    if isinstance(profile, bytes) and profile:
        tolerance = max(tolerance, 2)
        with suppress(Exception):  # such a profile is ignored
            found.append(_flat(_in_srgb(image, profile)))
    return found, tolerance


def _open(path: Path) -> Any:
    try:
        return Image.open(path)
    except Image.UnidentifiedImageError:
        content = path.read_bytes()
        if content[4:8] != b"ftyp":
            raise
        import pillow_heif  # by Pillow it is asked for files alone whose first brand it knows

        return pillow_heif.HeifImageFile(io.BytesIO(content))


def _to_8_bit(image: Image.Image, is_unsigned: bool) -> Image.Image:
    """As docs/commands.md states it."""
    values: npt.NDArray[Any] = np.asarray(image)
    if is_unsigned and image.mode == "I":
        values = values.view(np.uint32)
    is_float = image.mode == "F"
    values = values.astype(np.float64)
    valid = np.abs(values) < _MISSING
    low, high = (values[valid].min(), values[valid].max()) if valid.any() else (0.0, 0.0)
    bottom, top = low, high if high > low else low + 1
    if low >= 0 and not is_float:
        bits = next((bits for bits in _BITS if high < 1 << bits), int(high).bit_length())
        return Image.fromarray((values.astype(np.int64) >> (bits - 8)).astype(np.uint8))
    if low >= 0 and high <= 1:
        bottom, top = 0.0, 1.0
    elif low >= 0 and 32 <= high <= 65535:
        bottom, top = 0.0, float(next(scale for scale in _SCALES if high <= scale))
    with np.errstate(all="ignore"):
        levels = np.rint((np.where(valid, values, bottom) - bottom) * 255 / (top - bottom))
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    mode = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}[profile[16:20]]
    if image.mode == "RGB" and image.has_transparency_data:
        image = image.convert("RGBA")
    if mode == "RGB" and image.mode in ("1", "L", "P", "PA", "LA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    base = image.convert(mode) if alpha is not None or image.mode == "1" else image
    source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    result = ImageCms.profileToProfile(base, source, target, outputMode="RGB")
    assert result is not None
    if alpha is not None:
        result.putalpha(alpha)
    return result


def _flat(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    paper = Image.new("RGB", image.size, (255, 255, 255))
    paper.paste(image, mask=image.getchannel("A"))
    return paper


def main() -> None:
    warnings.simplefilter("ignore")
    from tests.robustness.limits import limit_memory

    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
        import pillow_jxl  # noqa: F401
    except ImportError:
        pass
    Image.init()
    limit_memory()
    output = sys.stdout.buffer
    for line in sys.stdin.buffer:
        try:
            found, tolerance = pictures(Path(os.fsdecode(line.rstrip(b"\n"))), int(sys.argv[1]))
        except Exception as error:
            output.write(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        else:
            header = {"size": found[0].size, "pictures": len(found), "tolerance": tolerance}
            output.write(json.dumps(header).encode() + b"\n")
            for image in found:
                output.write(image.tobytes())
        output.flush()


if __name__ == "__main__":
    main()
