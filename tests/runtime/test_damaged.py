"""Damaged photos and model files: a clean error or a right result each time, never a crash, never a hang.

The work is done in child processes, each with a time limit: a decoder or an engine that crashes takes its whole process
along. Everything follows from seeds: what a failure names can be done again with

    python tests/runtime/test_damaged.py photos JPEG 17 18
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[2]
MODELS = REPOSITORY / "runtime" / "unet_runtime" / "models"
PHOTO = REPOSITORY / "runtime" / "unet_runtime" / "samples" / "chelsea.jpg"
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
PHOTOS_A_FORMAT = 340  # six formats: 2,040
SLOW = 20.0
"""Seconds for one file of a few kilobytes: as good as a hang."""
TIME_LIMIT = 300
MAX_PIXELS = 2_000_000
"""A header may say anything up to the limit, and the limit is what keeps that cheap."""

Sizes = tuple[int, int]


def test_photos() -> None:
    outcomes: Counter[str] = Counter()
    for format_ in FORMATS:
        counted = run_child("photos", format_, PHOTOS_A_FORMAT)
        assert counted["refused"] > 0, format_
        assert counted["picture"] > 0, format_
        outcomes += counted
    assert outcomes["refused"] + outcomes["picture"] == outcomes.total() >= 2000, outcomes


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_models_are_refused_for_their_digest(kind: str) -> None:
    """No engine sees them: 2 x 270 files."""
    assert run_child("models", kind, 270) == {"refused": 270}


def test_onnx_models_with_a_digest_of_their_damage() -> None:
    """Someone made these on purpose, or another program did; the engines read them."""
    outcomes = run_child("forged", "onnx", 300)
    assert outcomes["refused"] + outcomes["output"] == outcomes.total() == 300, outcomes
    assert outcomes["refused"] > 0
    assert outcomes["output"] > 0


def test_tflite_models_with_a_digest_of_their_damage() -> None:
    """LiteRT itself ends a process in about 1 of 300 such files: the digest is what keeps accidents away from it."""
    outcomes = run_child("forged", "tflite", 60, crashes_allowed=3)
    assert outcomes["refused"] + outcomes["output"] + outcomes["crash"] == outcomes.total() == 60, outcomes
    assert outcomes["refused"] > 0
    assert outcomes["output"] > 0


def run_child(task: str, kind: str, count: int, *, crashes_allowed: int = 0) -> Counter[str]:
    """Outcomes of ``count`` seeds by name; what is neither an output nor a refusal is its own text."""
    outcomes: Counter[str] = Counter()
    first = 0
    while first < count:
        command = [sys.executable, "-X", "faulthandler", __file__, task, kind, str(first), str(count)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT, cwd=REPOSITORY)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        outcomes.update(outcome for _, outcome in lines if outcome != "begun")
        if done.returncode == 0:
            break
        seed, last = lines[-1]
        assert last == "begun", f"{command} ended with {done.returncode}: {done.stderr[-2000:]}"
        outcomes["crash"] += 1
        assert outcomes["crash"] <= crashes_allowed, f"{task} {kind} seed {seed}: {done.stderr[-2000:]}"
        first = seed + 1
    return outcomes


# --- in the child ----------------------------------------------------------------------------------


def child(task: str, kind: str, first: int, last: int) -> None:
    """Print [seed, "begun"] and [seed, outcome] of each seed."""
    warnings.simplefilter("ignore")  # Pillow's notes on odd EXIF
    from unet_runtime import UnetRuntimeError

    with tempfile.TemporaryDirectory() as folder:
        attempt = {"photos": photo_attempt, "models": model_attempt, "forged": forged_attempt}[task](kind, Path(folder))
        for seed in range(first, last):
            print(json.dumps([seed, "begun"]), flush=True)
            start = time.monotonic()
            try:
                outcome = attempt(random.Random(f"{task} {kind} {seed}"))
            except UnetRuntimeError as error:
                outcome = "refused" if str(error) else "refused without a word"
            except BaseException as error:
                outcome = f"seed {seed}: {type(error).__name__}: {error}"
            if time.monotonic() - start > SLOW:
                outcome = f"seed {seed}: took {time.monotonic() - start:.0f} s"
            print(json.dumps([seed, outcome]), flush=True)


def photo_attempt(format_: str, folder: Path) -> Callable[[random.Random], str]:
    from unet_runtime.core.geometry import model_input
    from unet_runtime.core.photo import open_photo
    from unet_runtime.core.spec import InputSpec

    whole, other = photo_bytes(format_, (120, 80)), photo_bytes(format_, (61, 97))

    def attempt(rng: random.Random) -> str:
        damage = rng.choice([flipped, flipped, truncated, spliced, lied])
        content = lied(whole, rng, format_) if damage is lied else damage(whole, rng, other)
        photo = open_photo(io.BytesIO(content), MAX_PIXELS)
        assert photo.mode == "RGB"
        assert 0 < photo.width * photo.height <= MAX_PIXELS
        batch = model_input(photo, InputSpec(32, 32))
        assert (batch.shape, batch.dtype) == ((1, 32, 32, 3), np.uint8)
        return "picture"

    return attempt


def photo_bytes(format_: str, size: Sizes) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned
    file = io.BytesIO()
    options = {"exif": exif} if format_ in ("JPEG", "PNG", "WEBP", "TIFF") else {}
    Image.open(PHOTO).resize(size).save(file, format_, **options)
    return file.getvalue()


def flipped(content: bytes, rng: random.Random, other: bytes) -> bytes:
    """Bits and bytes, in the headers above all."""
    result = bytearray(content)
    for _ in range(rng.choice([1, 2, 5, 20])):
        position = rng.randrange(min(len(result), rng.choice([64, 600, len(result)])))
        result[position] = rng.choice([0, 255, rng.randrange(256), result[position] ^ (1 << rng.randrange(8))])
    return bytes(result)


def truncated(content: bytes, rng: random.Random, other: bytes) -> bytes:
    return content[: rng.randrange(min(len(content), rng.choice([40, 700, len(content)])))]


def spliced(content: bytes, rng: random.Random, other: bytes) -> bytes:
    """The beginning of one file and the end of another of the same format, or with a piece twice or missing."""
    cut, length = rng.randrange(len(content)), rng.randrange(2000)
    tails = (other[cut:], content[max(0, cut - length) :], content[cut + length :])
    return content[:cut] + rng.choice(tails)


def lied(content: bytes, rng: random.Random, format_: str) -> bytes:
    """A header that says another width or height, and is right otherwise."""
    result = bytearray(content)
    at, code = size_field(content, format_, rng.randrange(2))
    limit = 1 << (8 * struct.calcsize(code))
    value = rng.choice([0, 1, 3, 81, 200, 5000, 16383, limit // 2 - 1, limit - 1, rng.randrange(limit)])
    struct.pack_into(code, result, at, value % limit)
    if format_ == "PNG":
        struct.pack_into(">I", result, 29, zlib.crc32(result[12:29]))
    return bytes(result)


def size_field(content: bytes, format_: str, which: int) -> tuple[int, str]:
    """Where the width (0) or height (1) is, and its struct code."""
    if format_ == "PNG":
        return 16 + 4 * which, ">I"
    if format_ == "BMP":
        return 18 + 4 * which, "<I"
    if format_ == "GIF":
        frame = content.index(b"\x2c\x00\x00\x00\x00") + 5
        return frame + 2 * which, "<H"
    if format_ == "WEBP":
        return content.index(b"\x9d\x01\x2a") + 3 + 2 * which, "<H"
    if format_ == "JPEG":
        return content.index(b"\xff\xc0") + 7 - 2 * which, ">H"
    tag = struct.pack("<HH", 256 + which, 4 if struct.pack("<HH", 256 + which, 4) in content else 3)
    return content.index(tag) + 8, "<H"


def model_attempt(kind: str, folder: Path) -> Callable[[random.Random], str]:
    """The file's digest is that of the undamaged file; one bit, a cut or a splice is the least damage."""
    from unet_runtime import Segmenter

    content = small_onnx() if kind == "onnx" else (MODELS / "pets-edge-160.int8.tflite").read_bytes()
    path = folder / f"model.{kind}"

    def attempt(rng: random.Random) -> str:
        position = rng.randrange(len(content))
        damaged = rng.choice(
            [
                content[:position] + bytes([content[position] ^ (1 << rng.randrange(8))]) + content[position + 1 :],
                content[:position],
                content[:position] + content[position + rng.randrange(1, 100) :],
                content[:position] + bytes(rng.randrange(1, 100)) + content[position:],
            ]
        )
        path.write_bytes(damaged)
        Segmenter(path)
        return "accepted"

    return attempt


def forged_attempt(kind: str, folder: Path) -> Callable[[random.Random], str]:
    from unet_runtime import Segmenter

    content = small_onnx() if kind == "onnx" else (MODELS / "pets-edge-160.int8.tflite").read_bytes()
    path = folder / f"model.{kind}"
    photo = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)

    def attempt(rng: random.Random) -> str:
        body = b"".join(forged(content[:-64], rng))
        path.write_bytes(body + hashlib.sha256(body).hexdigest().encode())
        result = Segmenter(path, threads=1)(photo)
        assert result.mask.shape == (48, 64)
        assert result.mask.max() < len(result.spec.classes)
        return "output"

    return attempt


def forged(body: bytes, rng: random.Random) -> Iterator[bytes]:
    result = bytearray(body)
    reach = min(len(result), rng.choice([64, 2000, len(result)]))
    for _ in range(rng.choice([1, 3, 20])):
        position = rng.randrange(reach)
        position = position if rng.random() < 0.7 else len(result) - 1 - position
        result[position] = rng.choice([0, 255, rng.randrange(256), result[position] ^ (1 << rng.randrange(8))])
    cut = rng.randrange(len(result))
    yield bytes(result[:cut])
    yield bytes(result[cut + rng.choice([0, 0, 0, 1, 64]) :])


def small_onnx() -> bytes:
    from tests.helpers.convolution import convolution_spec, write_convolution

    with tempfile.TemporaryDirectory() as folder:
        return write_convolution(Path(folder) / "model.onnx", convolution_spec(1)).read_bytes()


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    child(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
