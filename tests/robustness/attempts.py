"""Opens damaged files, one for each seed, and prints how each ended, as lines of JSON.

    python -m tests.robustness.attempts photos 17 18

runs seed 17 alone: everything follows from the seed. ``--keep FOLDER`` writes the file there. What is at fault says so
in its outcome; a process that ends names the seed by the line it printed last.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tests.robustness import samples
from tests.robustness.json_damage import damaged_json
from tests.robustness.limits import limit_memory
from tests.robustness.mutations import mutated
from unet_runtime import ModelSpec, UnetRuntimeError
from unet_runtime.core.artifact import append_to_onnx

SECONDS = 10.0
"""Processor time of one attempt; more is a hang."""

MAX_PIXELS = 2_000_000
"""A header may say anything up to the limit, and the limit is what keeps that cheap."""

Attempt = Callable[[random.Random], str]

FAULT = "FAULT "
"""How an outcome begins that must not be."""

_REFUSED_MORE = re.compile("too many pixels|camera's raw file|separate planes|not an image|expected a photo")
"""Reasons to refuse a photo that Pillow reads."""


class Attempts:
    """What is done with a seed, by the name of a task; ``path`` is the file that was damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder
        self.closing: list[Callable[[], None]] = []

    def write(self, name: str, content: bytes) -> Path:
        self.path = self.folder / name
        self.path.write_bytes(content)
        return self.path

    def photos(self) -> Attempt:
        from tests.robustness.oracle import Oracle
        from unet_runtime.core.decoders import left_out
        from unet_runtime.core.photo import open_photo

        oracle = Oracle(MAX_PIXELS)
        self.closing.append(oracle.close)
        formats = [name for name, suffix in samples.PHOTO_SUFFIXES.items() if not any(left_out(suffix))]
        with suppress(ImportError):  # they write such files, too
            import pillow_heif

            pillow_heif.register_heif_opener()
            import pillow_jxl  # noqa: F401
        files = {name: [samples.photos(name, size) for size in samples.SIZES] for name in formats}

        def attempt(rng: random.Random) -> str:
            name = rng.choice(formats)
            whole, others = files[name]
            way = rng.randrange(len(whole))
            path = self.write("photo" + samples.PHOTO_SUFFIXES[name], mutated(whole[way], rng.choice(others), rng))
            refusal, found = "", None
            try:
                found = np.asarray(open_photo(path, MAX_PIXELS))
            except UnetRuntimeError as error:
                refusal = str(error) or f"{FAULT}refused without a word"
            return f"{name}: {_beside(oracle(path), found, refusal)}"

        return attempt

    def videos(self) -> Attempt:
        from tests.helpers.colours import colour_spec, write_colour_model
        from unet_runtime import Segmenter
        from unet_runtime.io.video.reader import Reader
        from unet_runtime.io.video.segment import segment_video

        segmenter = Segmenter(
            write_colour_model(self.folder / "colours.onnx", colour_spec()), backend="onnx", threads=1
        )

        def attempt(rng: random.Random) -> str:
            suffix = rng.choice(list(samples.VIDEOS))
            content = mutated(samples.video(suffix, (64, 48)), samples.video(suffix, (96, 32)), rng)
            path = self.write("video" + suffix, content)
            target = self.folder / "out.mp4"
            count, size, refusal = 0, (0, 0), ""
            try:
                if rng.random() < 0.25:
                    count = segment_video(segmenter, path, {"overlay": target})
                    size = (0, 0)
                else:
                    reader = Reader(path)
                    for frame in reader:
                        count, size = count + 1, frame.shape[1::-1]
                    if not count:
                        raise reader.no_frame()
                    reader.check_complete([])
            except UnetRuntimeError as error:
                refusal = str(error) or f"{FAULT}refused without a word"
            return f"{suffix}: {_beside_ffprobe(path, count, size, refusal)}"

        return attempt

    def specs(self) -> Attempt:
        text = samples.spec().to_json()

        def attempt(rng: random.Random) -> str:
            damaged = damaged_json(text, rng)
            self.write("spec.json", damaged)
            try:
                found = ModelSpec.from_json(damaged)
            except UnetRuntimeError as error:
                return "refused" if str(error) else f"{FAULT}refused without a word"
            if ModelSpec.from_json(found.to_json()) != found:
                return f"{FAULT}does not come back as it went"
            lost = _lost(json.loads(damaged), json.loads(found.to_json()), "spec")
            return f"{FAULT}{lost}" if lost else "read, and written the same"

        return attempt

    def models(self) -> Attempt:
        """Their digests are those of the undamaged files: no engine may see one."""
        from unet_runtime import Segmenter
        from unet_runtime.core.artifact import read_artifact

        kinds = ("onnx", "tflite", "keras")

        def attempt(rng: random.Random) -> str:
            kind = rng.choice(kinds)
            whole = samples.model(kind)
            content = mutated(whole, samples.model(rng.choice(kinds)), rng)
            if content == whole:
                return f"{kind}: not changed"
            path = self.write(f"model.{kind}", content)
            try:
                read_artifact(path) if kind == "keras" else Segmenter(path)
            except UnetRuntimeError as error:
                return f"{kind}: " + ("refused" if str(error) else f"{FAULT}refused without a word")
            return f"{kind}: {FAULT}accepted"

        return attempt

    def folders(self) -> Attempt:
        """A SavedModel of which one file is damaged, renamed, gone or new."""
        from unet_runtime.core.artifact import read_saved_model_spec, write_saved_model_spec

        folder = self.folder / "saved_model"
        names = (
            "saved_model.pb",
            "variables/variables.index",
            "assets.extra/unet_edge.json",
            "assets.extra/SHA256SUMS",
        )
        for name in names[:2]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(samples.model("onnx"))
        write_saved_model_spec(folder, samples.spec())
        whole = {name: (folder / name).read_bytes() for name in names}

        def attempt(rng: random.Random) -> str:
            name = rng.choice(names)
            content = mutated(whole[name], samples.model("keras"), rng)
            (folder / name).write_bytes(content)
            try:
                spec = read_saved_model_spec(folder)
            except UnetRuntimeError as error:
                return "refused" if str(error) else f"{FAULT}refused without a word"
            finally:
                (folder / name).write_bytes(whole[name])
            same = spec == samples.spec() and (content == whole[name] or name.endswith("SUMS"))
            return "not changed" if same else f"{FAULT}accepted {name}"

        return attempt

    def onnx(self) -> Attempt:
        return self._forged("onnx", "onnx")

    def openvino(self) -> Attempt:
        return self._forged("onnx", "openvino")

    def tflite(self) -> Attempt:
        return self._forged("tflite", "tflite")

    def keras(self) -> Attempt:
        """The spec and the digest alone: Keras itself is another program."""
        from unet_runtime.core.artifact import read_artifact

        def attempt(rng: random.Random) -> str:
            self._forge("keras", rng)
            read_artifact(self.path)
            return "read"

        return attempt

    def _forged(self, kind: str, engine: str) -> Attempt:
        """Someone made these on purpose, or another program did: their digest is right, and the engine reads them."""
        from unet_runtime import Segmenter

        photo = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)

        def attempt(rng: random.Random) -> str:
            self._forge(kind, rng)
            result = Segmenter(self.path, backend=engine, threads=1)(photo)
            is_mask = result.mask.shape == (48, 64) and result.mask.max() < len(result.spec.classes)
            return "a mask" if is_mask else f"{FAULT}no mask"

        return attempt

    def _forge(self, kind: str, rng: random.Random) -> None:
        whole = samples.model(kind)
        if kind == "onnx" and rng.random() < 0.3:  # a spec that means another model
            self.write("model.onnx", append_to_onnx(samples.graph(), self._other_spec(rng)))
            return
        body = mutated(whole[:-64], whole, rng)
        self.write(f"model.{kind}", body + hashlib.sha256(body).hexdigest().encode())

    @staticmethod
    def _other_spec(rng: random.Random) -> ModelSpec:
        while True:
            with suppress(UnetRuntimeError):
                return ModelSpec.from_json(damaged_json(samples.spec().to_json(), rng))


def _beside(expected: Any, found: Any, refusal: str) -> str:
    """Our picture, or our refusal, beside Pillow's."""
    if found is None and isinstance(expected, str):
        return "refused, as by Pillow" if not refusal.startswith(FAULT) else refusal
    if found is None:
        return "refused by us alone" if _REFUSED_MORE.search(refusal) else f"{FAULT}refused: {refusal}"
    if isinstance(expected, str):
        return f"{FAULT}a picture, where Pillow says {expected}"
    pictures, tolerance = expected
    if all(picture.shape != found.shape for picture in pictures):
        return f"{FAULT}{found.shape}, where Pillow has {[picture.shape for picture in pictures]}"
    off = [int(np.abs(picture.astype(np.int16) - found).max()) for picture in pictures if picture.shape == found.shape]
    return "the same picture" if min(off) <= tolerance else f"{FAULT}levels off Pillow's: {off}"


def _beside_ffprobe(path: Path, count: int, size: tuple[int, int], refusal: str) -> str:
    """Our frames, or our refusal, beside ffprobe's."""
    if refusal:
        return refusal if refusal.startswith(FAULT) else "clear error"
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "frame=width,height", "-of", "json"]
    done = subprocess.run([*command, f"file:{path}"], capture_output=True, text=True, timeout=180)
    with suppress(ValueError, KeyError):
        sizes = []
        for frame in json.loads(done.stdout)["frames"]:
            sizes.append((int(frame["width"]), int(frame["height"])))
        if count < len(sizes) - 2:
            return f"{FAULT}{count} frames without a word, ffprobe reads {len(sizes)}"
        if size != (0, 0) and sizes and size not in sizes and size[::-1] not in sizes:
            return f"{FAULT}{size}, ffprobe says {sorted(set(sizes))}"
        if sizes:
            return "as many frames"
    return "frames, where ffprobe reads none"


def _lost(given: Any, kept: Any, where: str) -> str:
    """The place of a value that was read as another one; empty where there is none."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            if key not in kept:
                return f"{where}.{key} is gone"
            if lost := _lost(value, kept[key], f"{where}.{key}"):
                return lost
        return ""
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for index, (value, other) in enumerate(zip(given, kept, strict=True)):
            if lost := _lost(value, other, f"{where}[{index}]"):
                return lost
        return ""
    is_same = given == kept and type(given) is type(kept)
    return "" if is_same or where == "spec.schema" else f"{where} was {given!r}, is {kept!r}"


def main() -> None:
    task, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("ignore")  # Pillow's notes on odd EXIF
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[5]) if sys.argv[4:5] == ["--keep"] else Path(temporary)
        attempts = Attempts(folder)
        attempt = getattr(attempts, task)()
        limit_memory()
        for seed in range(first, last):
            print(json.dumps([seed, "begun"]), flush=True)
            print(json.dumps([seed, _outcome(attempt, random.Random(f"{task} {seed}"))]), flush=True)
        for close in attempts.closing:
            close()


def _outcome(attempt: Attempt, rng: random.Random) -> str:
    start = time.process_time()
    try:
        outcome = attempt(rng)
    except UnetRuntimeError as error:
        outcome = "refused" if str(error) else f"{FAULT}refused without a word"
    except BaseException as error:
        if os.environ.get("UNET_EDGE_TRACEBACK"):
            raise
        outcome = f"{FAULT}{type(error).__name__}: {error}"
    seconds = time.process_time() - start
    return f"{FAULT}took {seconds:.0f} s" if seconds > SECONDS else outcome


if __name__ == "__main__":
    main()
