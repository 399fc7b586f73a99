"""Unfriendly commands of trainings, exports and services: the products of what may be wrong with data, models, places.

No command names a device of the machine as an output: as the superuser it could replace it.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tests.robustness.cases import HUGE, Case

_TINY = "--preset demo --width 2 --depth 1 --size 32 --epochs 1 --no-cache -o ../trained/{}"
_TRAIN = ("unet-train", *_TINY.split(" "))
_EXPORT = ("unet-export", "model", "model.keras", "--data", "data", "--formats", "onnx")
_SERVE = ("unet-serve", "--port", "0")
_BENCH = ("unet-bench", "-o", "../out", "--rounds", "1", "--photos-a-round", "1", "--threads", "1")

DATA = (
    "absent",
    "absent\udcff\x1b]0;title\x07",
    "photo.jpg",
    "pipe.jpg",
    "loop.jpg",
    "names",
    "nothing",
    "links",
    "film.mp4",
    "data/images",
    "data/annotations",
    "one",
    "bytes",
    "hollow",
    "/dev/null",
    "~",
    "y" * 300,
    "",
    " ",
    "-",
)

MODELS = (
    "absent.keras",
    "absent\udce9\x1b[1m.keras",
    "pipe.onnx",
    "pipe.keras",
    "text.onnx",
    "text.keras",
    "empty.keras",
    "photo.jpg",
    "names",
    "loop.jpg",
    "/dev/zero",
    "cut.keras",
    "plain.keras",
    "foreign.keras",
    "config.keras",
    "weights.keras",
    "zeros.keras",
    "bomb.onnx",
    "nested.onnx",
    "margin.onnx",
    "twice.onnx",
    "",
    "y" * 300,
)

PLACES = ("photo.jpg", "photo.jpg/below", "pipe.jpg/below", "full.png/below", "loop.jpg/below", "y" * 300, "", "mine")
FILES = ("photo.jpg", "full.png", "names", "loop.jpg", "model.keras", "data/annotations/trainval.txt", "y" * 300, "")

_WITH_DATA = (
    (*_TRAIN, "--data"),
    (*_TRAIN, "--resume", "--data"),
    ("unet-train", "check", "--no-html"),
    ("unet-train", "evaluate", "model.keras", "--data"),
    ("unet-export", "model", "model.keras", "--formats", "onnx", "-o", "../out", "--data"),
    ("unet-export", "model", "model.keras", "--formats", "onnx", "-o", "../out", "--parity", "data", "--calibration"),
    ("unet-export", "bundle", "--platform", "linux-aarch64", "-o", "../out"),
)
_WITH_MODEL = (
    (*_TRAIN, "--data", "data", "--weights"),
    (*_TRAIN, "--data", "data", "--teacher"),
    (*_TRAIN, "--data", "data", "--architecture", "unet-lite", "--encoder-weights"),
    ("unet-train", "evaluate", "--data", "data"),
    ("unet-export", "model", "--formats", "onnx", "--data", "data", "-o", "../out"),
    ("unet-export", "model", "--formats", "onnx", "--classes", "a,b", "--data", "data", "-o", "../out"),
    ("unet-export", "diagnose", "--data", "data", "-o", "../out"),
    ("unet-info",),
    (*_SERVE, "--model"),
)
_WITH_PLACE = (
    ("unet-train", "--data", "data", "-o"),
    (*_EXPORT, "-o"),
    ("unet-export", "diagnose", "model.keras", "--data", "data", "-o"),
    ("unet-export", "bundle", "nothing", "--platform", "linux-aarch64", "-o"),
    ("unet-train", "compare", "unet:nothing", "--data", "data", "-o"),
    (*_TRAIN, "--data", "absent", "--tensorboard"),
)
_WITH_FILE = (
    ("unet-train", "check", "data", "--no-html", "--json"),
    ("unet-train", "check", "data", "--html"),
    ("unet-train", "evaluate", "model.keras", "--data", "data", "--count", "2", "--json"),
    (*_TRAIN, "--data", "absent", "--json"),
    (*_BENCH, "absent.onnx", "--json"),
    ("unet-info", "model.keras", "--output"),
    (*_TRAIN, "--data", "absent", "--class-weights"),
    ("unet-train", "check", "data", "--no-html", "--classes"),
)

_VALUES = ("", "nan", "-1", "0", HUGE, "\x1b[31m", "caf\udce9", "1e400")
_OF_TRAINING = (
    *("--epochs", "--batch-size", "--learning-rate", "--ema", "--size", "--sizes", "--split", "--group-by", "--name"),
    *("--license", "--ignore", "--classes", "--width", "--depth", "--validation", "--class-weights", "--cache"),
)
_OF_EXPORT = ("--gate", "--parity-count", "--calibration-count", "--formats", "--classes", "--size", "--split")
_OF_SERVICE = (
    *("--port", "--host", "--token", "--allow-host", "--allow-origin", "--queue", "--timeout", "--max-body"),
    *("--max-pixels", "--threads", "--backend"),
)

_MORE: tuple[tuple[str, ...], ...] = (
    (*_TRAIN, "--data", "data", "--group-by", "("),
    (*_TRAIN, "--data", "data", "--group-by", "(a+)+$"),
    (*_TRAIN, "--data", "data", "--size", "7"),
    (*_TRAIN, "--data", "data", "--size", "1"),
    (*_TRAIN, "--data", "data", "--layout", "coco"),
    (*_TRAIN, "--data", "data", "--split", "fold:1/0"),
    (*_TRAIN, "--data", "data", "--split", "fold:9/3"),
    (*_TRAIN, "--data", "data", "--split", f"random:{HUGE}"),
    (*_TRAIN, "--data", "data", "--architecture", "unet2015", "--size", "32"),
    (*_TRAIN, "--data", "synthetic", "--synthetic-count", "7"),
    (*_TRAIN, "--data", "data", "--learning-rate", "1e30"),
    (*_EXPORT, "-o", "../out", "--gate", "int8.agreement=nan"),
    (*_EXPORT, "-o", "../out", "--gate", "float32.max=1e999"),
    (*_EXPORT, "-o", "../out", "--gate", "=="),
    (*_EXPORT, "-o", "../out", "--formats", "all,onnx"),
    (*_EXPORT, "-o", "."),
    ("unet-export", "adopt", "text.onnx", "-o", "../out"),
    ("unet-export", "adopt", "colours.onnx", "--classes", "a", "-o", "../out"),
    ("unet-export", "adopt", "bomb.onnx", "--classes", "a,b", "-o", "../out"),
    ("unet-export", "bundle", "nothing", "--platform", "linux-aarch64", "--python", "3.\x1b"),
    ("unet-export", "bundle", "nothing", "--platform", "linux-aarch64", "--engines", "none"),
    ("unet-train", "evaluate", "model.keras", "--data", "data", "--backend", "openvino"),
    ("unet-train", "evaluate", "colours.onnx", "--data", "data"),
    ("unet-info", "model.keras", "cut.keras", "--json"),
    (*_SERVE, "--host", "300.1.1.1"),
    (*_SERVE, "--host", "absent.invalid"),
    (*_SERVE, "--model", "a=colours.onnx", "--model", "a=colours.onnx"),
    (*_SERVE, "--model", "../=colours.onnx"),
    (*_SERVE, "--model", "=colours.onnx"),
    (*_SERVE, "--token", "a b"),
    (*_SERVE, "--token", "a", "--no-token"),
)

_SERVED: tuple[tuple[str, ...], ...] = (
    (*_SERVE, "--model", "colours.onnx"),
    (*_SERVE, "--model", "caf\udce9.onnx", "-q"),
    (*_SERVE, "--model", "colours.onnx", "--host", "0.0.0.0"),
    (*_SERVE, "--model", "colours.onnx", "--host", "::1"),
    (*_SERVE, "--model", "colours.onnx", "--queue", "0", "--timeout", "0.1"),
)
"""These begin to serve, and are told to stop."""

_LONG: tuple[Case, ...] = (
    {"words": [*_TRAIN, "--data", "data"], "stdout": "/dev/full"},
    {"words": [*_TRAIN, "--data", "data"], "stdout": "closed"},
    {"words": [*_TRAIN, "--data", "caf\udce9/data"]},
    {"words": [*_EXPORT, "-o", "../exported"], "stdout": "/dev/full"},
    {"words": [*_EXPORT, "-o", "../exported-\udce9"], "stdout": "closed"},
    {"words": ["unet-train", "evaluate", "model.keras", "--data", "caf\udce9/data", "--json"], "stdout": "/dev/full"},
)
"""These do their work: the processor has more to do than to refuse."""


def make_folder(folder: Path) -> None:
    """Add datasets and Keras models to the folder of ``cases``."""
    from tests.helpers import tiny

    (folder / "data").mkdir()
    tiny.write_dataset(folder / "data")
    (folder / "caf\udce9").mkdir()
    shutil.copytree(folder / "data", folder / "caf\udce9" / "data")
    for name in ("one", "bytes", "hollow"):
        shutil.copytree(folder / "data", folder / name)
    lists = ("trainval.txt", "test.txt")
    for name in lists:
        (folder / "one" / "annotations" / name).write_text("trainval_000 1 1 1\n")
        (folder / "bytes" / "annotations" / name).write_bytes(bytes(range(256)) * 9)
    for path in (folder / "hollow").rglob("*.*"):
        if path.suffix in (".jpg", ".png"):
            path.write_bytes(b"")
    (folder / "mine").mkdir()
    for name in ("report.html", "parity.json", "diagnosis.json", "model.keras", "compare.json"):
        (folder / "mine" / name).write_text("mine")
    shutil.copy(folder / "colours.onnx", folder / "caf\udce9.onnx")
    (folder / "pipe.keras").symlink_to("pipe.onnx")
    shutil.copy(folder / "text.onnx", folder / "text.keras")
    (folder / "empty.keras").touch()
    _write_models(folder, tiny.SOFTMAX_FILE.read_bytes())


def _write_models(folder: Path, whole: bytes) -> None:
    (folder / "model.keras").write_bytes(whole)
    (folder / "cut.keras").write_bytes(whole[: len(whole) // 2])
    entries = {}
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        for name in archive.namelist():
            entries[name] = archive.read(name)
    config = json.loads(entries["config.json"])
    foreign = {"module": "os", "class_name": "system", "config": {"command": "touch gotcha"}, "registered_name": None}
    changes: dict[str, dict[str, bytes]] = {
        "plain": {"unet_edge.json": b""},
        "foreign": {"config.json": json.dumps(foreign).encode()},
        "config": {"config.json": json.dumps(config)[:-40].encode()},
        "weights": {"model.weights.h5": entries["model.weights.h5"][:5000]},
        "zeros": {"config.json": bytes(200_000_000)},
    }
    for name, changed in changes.items():
        (folder / f"{name}.keras").write_bytes(_forged(entries | changed))


def _forged(entries: dict[str, bytes]) -> bytes:
    """A model file whose digest is right; an empty entry is left out."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            if content:
                archive.writestr(name, content)
        archive.comment = bytes(64)
    body = file.getvalue()[:-64]
    return body + hashlib.sha256(body).hexdigest().encode()


def all_cases() -> Iterator[Case]:
    """Every command; each training has a folder of its own."""
    for number, case in enumerate(_cases()):
        words = [word.replace("../trained/{}", f"../trained/{number}") for word in case["words"]]
        yield case | {"words": words}


def _cases() -> Iterator[Case]:
    yield from _LONG
    for served in _SERVED:
        yield {"words": list(served), "stop": "serving http"}
    products = ((_WITH_DATA, DATA), (_WITH_MODEL, MODELS), (_WITH_PLACE, PLACES), (_WITH_FILE, FILES))
    for commands, values in products:
        for command, value in itertools.product(commands, values):
            yield {"words": [*command, value]}
    options = (
        ((*_TRAIN, "--data", "absent"), _OF_TRAINING),
        ((*_EXPORT, "--data", "absent", "-o", "../out"), _OF_EXPORT),
        ((*_SERVE, "--model", "absent.onnx"), _OF_SERVICE),
    )
    for start, names in options:
        for name, value in itertools.product(names, _VALUES):
            yield {"words": [*start, name, value]}
    for words in _MORE:
        yield {"words": list(words)}


def sample() -> Iterator[Case]:
    """A few of each kind, and none that trains."""
    every = list(all_cases())[len(_LONG) :]
    yield from every[: len(_SERVED)]
    yield from every[len(_SERVED) :: 40]
