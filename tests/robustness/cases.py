"""Unfriendly commands: a table of inputs, a table of options, and their product.

No command names a device of the machine as an output: as the superuser it could replace it.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from tests.helpers.colours import colour_model_bytes, colour_spec, write_colour_model
from unet_runtime.core.artifact import append_to_onnx

Case = dict[str, Any]

LONG = "x" * 251 + ".jpg"
"""As long as a name may be."""

ODD_NAMES = (
    "caf\udce9.jpg",
    "red\x1b[31m.jpg",
    "two\nlines.jpg",
    "bell\x07\x9b2J.jpg",
    "turned\u202egpj.jpg",
    LONG,
    "--json.jpg",
    "[x].jpg",
    "*.jpg",
    "a\\b.jpg",
    "50%d.jpg",
    "\u30d5\u30a9\u30c8 \U0001f408.jpg",
    " .jpg",
    "'\"$(x)`.jpg",
    "My photos [2024]/a.jpg",
)
"""Photos of the folder ``names``."""

INPUTS = (
    "photo.jpg",
    *(f"names/{name}" for name in ODD_NAMES),
    "names",
    "names/My photos [2024]/*.jpg",
    "names/**/*.jpg",
    "links/**/*.jpg",
    "links",
    "names/[",
    "[",
    "**",
    "***/?",
    "y" * 300 + ".jpg",
    "/".join(["z" * 200] * 30),
    "absent.jpg",
    "absent\udcff\x1b]0;title\x07.jpg",
    "photo.jpg/",
    "photo.jpg/inside.jpg",
    "pipe.jpg",
    "/dev/zero",
    "/dev/null",
    "/dev/full",
    "/dev/fd/99",
    "loop.jpg",
    "loop.jpg/a.jpg",
    "broken.jpg",
    "empty.jpg",
    "text.jpg",
    "half.jpg",
    "folder.jpg",
    "nothing",
    "case",
    "film.mp4",
    "pipe.mp4",
    "https://127.0.0.1:1/a.jpg",
    "https:/127.0.0.1/a.jpg",
    "~",
    "names/../names",
    "-",
    "",
    " ",
)

_WHERE = "-o ../out"
RUN_OPTIONS = (
    _WHERE,
    f"{_WHERE} --json",
    "-o -",
    f"{_WHERE} --save mask,mask,cutout",
    f"{_WHERE} --save json,probabilities",
    f"{_WHERE} --resume",
    f"{_WHERE} --on-error stop -v",
    f"{_WHERE} --max-pixels 1",
    f"{_WHERE} --tile",
    "-o ../out/a.png",
    "-o ../out/caf\udce9/\x1b[1m.png",
    "-o photo.jpg/below",
    "-o pipe.jpg/below",
    "-o full.png",
    f"-o {'y' * 300}",
    f"-o {'y' * 300}.png",
)

HUGE = "9" * 5000
ONLY_WITH_A_PHOTO = (
    *(f"{_WHERE} --tile {value}" for value in ("nan", "inf", "-0.5", "0.75", "1e-300", "x", HUGE)),
    *(f"{_WHERE} --threads {value}" for value in ("0", "-1", "100000", "1e3", "nan", HUGE, "64")),
    *(f"{_WHERE} --max-pixels {value}" for value in ("-1", "nan", "1e9", "9" * 400)),
    *(f"{_WHERE} --save {value}" for value in (",", "nothing", "mask,", "\x1b[31m")),
    *(
        f"{_WHERE} --model {value}"
        for value in (
            *("absent.onnx", "absent\udce9.onnx", "pipe.onnx", "text.onnx", "photo.jpg", "names", "/dev/zero"),
            *("loop.jpg", "bomb.onnx", "external.onnx", "margin.onnx", "twice.onnx", "nested.onnx", "empty.tflite"),
        )
    ),
    f"{_WHERE} --model colours.onnx",
    f"{_WHERE} --backend openvino --model colours.onnx",
    f"{_WHERE} --backend none",
    f"{_WHERE} --device cuda",
    f"{_WHERE} --device tensorrt",
    f"{_WHERE} --contours none",
    f"{_WHERE} --output-dir ../out2",
    f"{_WHERE} --record a.mp4",
    f"{_WHERE} --nonsense",
    "--webcam",
    "-q -v -o ../out",
)

OTHERS: tuple[tuple[str, ...], ...] = (
    ("unet-run",),
    ("unet-run", "--output", ""),
    ("unet-run", "photo.jpg", "--output-dir", ""),
    ("unet-run", "photo.jpg", "--model", ""),
    *(
        ("unet-run", "--view", "none", "--max-seconds", "1", "--webcam", value)
        for value in ("", "-1", "nan", HUGE, "absent.mp4", "absent\udce9.mp4", "text.jpg", "names", "pipe.mp4", "x://y")
    ),
    *(("unet-run", "--webcam", "absent.mp4", "--max-seconds", value) for value in ("nan", "inf", "-1", "0")),
    *(("unet-run", "--webcam", "absent.mp4", "--smooth", value) for value in ("nan", "1", "inf")),
    *(("unet-run", "--webcam", "absent.mp4", "--port", value) for value in ("-1", "99999", "nan")),
    ("unet-info", "absent.onnx", "--json"),
    ("unet-info", "pipe.onnx", "names", "text.onnx", "", "-q"),
    ("unet-info", "--output", ""),
    ("unet-info", "--output", "names"),
    *(("unet-bench", "--threads", value) for value in ("0", "nan", "100000", HUGE, "", "1,,2", "\x1b[31m")),
    *(("unet-bench", "--rounds", value) for value in ("0", HUGE, "nan")),
    ("unet-bench", "absent.onnx", "-o", "../out"),
    ("unet-bench", "pipe.onnx", "-o", "../out"),
    ("unet-bench", "names", "-o", "../out"),
    ("unet-bench", "", "-o", "../out"),
    ("unet-bench", "-o", ""),
    ("unet-bench", "-o", "photo.jpg"),
    ("unet-bench", "--photos", "absent", "-o", "../out"),
    ("unet-bench", "--json", "colours.onnx", "-o", "../out"),
    ("unet-export", "model", ""),
    ("unet-export", "model", "a.keras", "-o", ""),
    ("unet-export", "model", "a.keras", "--calibration-count", HUGE),
    ("unet-export", "model", "a.keras", "--size", "99999999"),
    ("unet-export", "modle"),
    ("unet-export", "bundle", "", "--platform", "linux-aarch64"),
    ("unet-export", "bundle", "absent", "--platform", "linux-aarch64"),
    ("unet-export", "bundle", "names", "--platform", "none"),
    ("unet-train", "--data", ""),
    ("unet-train", "-o", ""),
    ("unet-train", "-o", "photo.jpg"),
    *(("unet-train", "--learning-rate", value) for value in ("nan", "inf", "0", "-1", HUGE)),
    *(("unet-train", "--seed", value) for value in ("-1", "4294967296", HUGE)),
    *(("unet-train", "--sizes", value) for value in ("0", "nan", HUGE, "", "96,,96", "1e2")),
    *(("unet-train", "--batch-size", value) for value in ("0", "99999999999999999999")),
    ("unet-train", "--epochs", HUGE),
    ("unet-train", "--ema", "nan"),
    ("unet-train", "--weights", ""),
    ("unet-train", "--tensorboard", ""),
    ("unet-train", "evaluate", ""),
    ("unet-train", "chek"),
    ("unet-train", "check", ""),
    ("unet-train", "compare", "unet:nan", "--data", "names"),
)


def make_folder(folder: Path, photo: Path) -> None:
    """Fill a folder with everything that the commands name."""
    small = Image.open(photo).resize((90, 60))
    small.save(folder / "photo.jpg")
    content = (folder / "photo.jpg").read_bytes()
    for name in ODD_NAMES:
        path = folder / "names" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "links" / "deep").mkdir(parents=True)
    shutil.copy(folder / "photo.jpg", folder / "links" / "deep" / "a.jpg")
    for name in ("one", "two"):
        (folder / "links" / name).symlink_to(".", target_is_directory=True)
    (folder / "case").mkdir()
    for name in ("a.jpg", "A.jpg", "a.JPG", "\u00e9.jpg", "e\u0301.jpg", "a.png"):
        (folder / "case" / name).write_bytes(content)
    for name in ("pipe.jpg", "pipe.mp4", "pipe.onnx"):
        os.mkfifo(folder / name)
    with suppress(OSError):  # nodes of our own: a command that replaces one must not replace the machine's
        os.mknod(folder / "full.png", stat.S_IFCHR | 0o666, os.makedev(1, 7))
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "broken.jpg").symlink_to("gone.jpg")
    (folder / "empty.jpg").touch()
    (folder / "empty.tflite").touch()
    for name in ("text.jpg", "text.onnx", "film.mp4"):
        (folder / name).write_text("<html>not found</html>")
    (folder / "half.jpg").write_bytes(content[: len(content) // 2])
    (folder / "folder.jpg").mkdir()
    (folder / "nothing").mkdir()
    _write_models(folder)


def _write_models(folder: Path) -> None:
    spec = colour_spec()
    graph = colour_model_bytes(spec)
    write_colour_model(folder / "colours.onnx", spec)
    (folder / "bomb.onnx").write_bytes(_digested(b"\x80" * 3_000_000))
    plain = append_to_onnx(graph, spec)[:-64]
    text = spec.to_json()
    for name, wrong in (
        ("margin", text.replace('"margin":0', '"margin":4')),
        ("twice", text.replace('"name":"green"', '"name":"red"')),
    ):
        # Of another length, it would need another prefix.
        assert text.encode() in plain
        padded = wrong.encode() + b" " * (len(text) - len(wrong))
        (folder / f"{name}.onnx").write_bytes(_digested(plain.replace(text.encode(), padded)))
    nested = b'["' * (len(text) // 2) + b" " * (len(text) % 2)
    (folder / "nested.onnx").write_bytes(_digested(plain.replace(text.encode(), nested)))
    external = b"\x2a\x1d\x08\x03\x10\x01\x6a\x13\x0a\x08location\x12\x07weights\x70\x01\x42\x00"
    (folder / "external.onnx").write_bytes(_digested(plain + b"\x3a" + bytes([len(external)]) + external))


def _digested(body: bytes) -> bytes:
    import hashlib

    return body + hashlib.sha256(body).hexdigest().encode()


def sample() -> Iterator[Case]:
    """Every input once, and every option once."""
    for name in INPUTS:
        yield run_case(name, RUN_OPTIONS[0])
    for options in RUN_OPTIONS[1:]:
        yield run_case("photo.jpg", options)
    yield from others()


def others() -> Iterator[Case]:
    """Options and commands that do not depend on the photo."""
    for options in ONLY_WITH_A_PHOTO:
        yield run_case("photo.jpg", options)
    for words in OTHERS:
        yield {"words": list(words)}
    for stdout in ("/dev/full", "closed"):
        for words in (["unet-run", "photo.jpg", "-o", "../out", "--json"], ["unet-run", "photo.jpg", "-o", "-"]):
            yield {"words": words, "stdout": stdout}
        yield {"words": ["unet-run", "--help"], "stdout": stdout}
        yield {"words": ["unet-train", "--help"], "stdout": stdout}
        yield {"words": ["unet-export", "model", "--help"], "stdout": stdout}
    for without_folder in (
        ("unet-run", "photo.jpg", "--model", "colours.onnx"),
        ("unet-run", ".", "-o", "../out", "--coco", "all.json"),
        ("unet-run", "--manifest", "list.txt"),
        ("unet-info", "colours.onnx", "-o", "report.txt"),
        ("unet-bench",),
        ("unet-train", "--data", "data"),
        ("unet-train", "check", "data"),
        ("unet-export", "model", "model.keras"),
        ("unet-export", "adopt", "a.onnx"),
    ):
        yield {"words": list(without_folder), "gone": True}
    yield {"words": ["unet-run", "-", "-o", "../out"], "stdin": "closed"}
    yield {"words": ["unet-run", "-", "-o", "../out"], "stdin": "photo.jpg"}
    yield {"words": ["unet-run", "-", "-o", "../out"], "stdin": "half.jpg"}


def all_cases() -> Iterator[Case]:
    """The product of inputs and options, and the rest."""
    for name, options in itertools.product(INPUTS, RUN_OPTIONS):
        yield run_case(name, options)
    yield from others()


def run_case(name: str, options: str) -> Case:
    """``unet-run`` with one input."""
    return {"words": ["unet-run", *options.split(" "), "--", name]}


def to_lines(cases: Iterator[Case]) -> str:
    """One line of JSON each."""
    return "".join(json.dumps(case) + "\n" for case in cases)
