"""unet-run against rembg: the same weights, photos and engine version, side by side.

    python benchmarks/rembg_comparison.py --venv FOLDER --photos PETS_DIR/images [--count 200] [--runs 11]

rembg goes into a virtual environment of its own (made in FOLDER if it is not there, about 1 GB; the package index is
all that is asked for). Its custom model session takes any ONNX file from its models directory, but feeds all of them
alike: float32 (1, 3, 320, 320), RGB / its maximum, less ImageNet's mean, by its standard deviation; and it takes one
foreground map (1, 1, h, w) back. So the script wraps the bundled model: mean and deviation undone, 320x320 averaged to
160x160 (2x2 pixels), rounded to uint8 and turned to NHWC before it; the odds of foreground against background, as
unet-run computes them, after it. The network between is the same, node by node; rembg pays a few operations more.

What differs is what is measured: starting up, resizing, drawing and writing the cut-out. Each command is a whole
process; the two take turns, the first turn is not counted, the ratio is taken turn by turn. The cut-outs of all
photos are compared, so that both are known to have done the same. Nothing else can be downloaded: the proxy that
rembg's process is given leads nowhere.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.datasets import evenly
from unet_runtime.core.spec import ModelSpec
from unet_runtime.engines.base import FLOAT_ONNX

REPOSITORY = Path(__file__).parents[1]
PHOTO = REPOSITORY / "runtime/unet_runtime/samples/chelsea.jpg"

REMBG = "rembg[cpu,cli]==2.0.86"
SIDE = 320  # what rembg's custom session feeds
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EVEN = 1e-3  # as unet_runtime.core.mask has it

AGREEMENT = 0.98
"""Share of pixels on the same side of half opacity that proves both to have run the same network; the rest is the
other resampling (rembg: LANCZOS) and rembg's stretching of each photo's answers to 0..1."""


def rembg_environment(folder: Path) -> Path:
    """Path of rembg's command, in a virtual environment with our version of the engine."""
    if not (folder / "bin" / "pip").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    engine = f"onnxruntime=={importlib.metadata.version('onnxruntime')}"
    subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", REMBG, engine], check=True)
    return folder / "bin" / "rembg"


def versions(python: Path) -> str:
    script = (
        "import importlib.metadata as m; print(', '.join(f'{n} {m.version(n)}' for n in ('onnxruntime', 'pillow')))"
    )
    return subprocess.run([str(python), "-c", script], check=True, capture_output=True, text=True).stdout.strip()


def wrapped(model_path: Path) -> onnx.ModelProto:
    """Our model as rembg feeds one: float32 (batch, 3, 320, 320) -> foreground (batch, 1, h, w)."""
    spec = read_artifact(model_path).spec
    model = onnx.load(model_path)
    graph, ours = model.graph, spec.input
    if (SIDE % ours.height, SIDE % ours.width) != (0, 0):
        raise SystemExit(f"{model_path}: input {ours.height}x{ours.width}, expected divisors of {SIDE}")
    before = nodes_before([SIDE // ours.height, SIDE // ours.width], graph.input[0].name)
    nodes = [*before, *graph.node, *nodes_after(graph.output[0].name)]
    del graph.node[:], graph.input[:], graph.output[:], model.metadata_props[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in constants(spec).items())
    graph.input.append(helper.make_tensor_value_info("rembg_image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE]))
    size = [spec.output.height, spec.output.width]
    graph.output.append(helper.make_tensor_value_info("rembg_mask", TensorProto.FLOAT, ["batch", 1, *size]))
    onnx.checker.check_model(model, full_check=True)
    return model


def constants(spec: ModelSpec) -> dict[str, Any]:
    return {
        "rembg_scale": np.array(DEVIATION, np.float32).reshape(1, 3, 1, 1) * 255,
        "rembg_offset": np.array(MEAN, np.float32).reshape(1, 3, 1, 1) * 255,
        "rembg_zero": np.float32(0),
        "rembg_most": np.float32(255),
        "rembg_even": np.float32(EVEN),
        "rembg_classes_axis": np.array([3], np.int64),
        "rembg_channel_axis": np.array([1], np.int64),
        "rembg_foreground": np.array(spec.roles("foreground"), np.int64),
        "rembg_background": np.array(spec.roles("background"), np.int64),
    }


def nodes_before(steps: list[int], image: str) -> list[onnx.NodeProto]:
    """float32 (batch, 3, 320, 320) as rembg normalises it -> ``image``, uint8 (batch, h, w, 3)."""
    node = helper.make_node
    return [
        node("Mul", ["rembg_image", "rembg_scale"], ["rembg_scaled"]),
        node("Add", ["rembg_scaled", "rembg_offset"], ["rembg_pixels"]),
        node("AveragePool", ["rembg_pixels"], ["rembg_small"], kernel_shape=steps, strides=steps),
        node("Round", ["rembg_small"], ["rembg_round"]),
        node("Clip", ["rembg_round", "rembg_zero", "rembg_most"], ["rembg_clipped"]),
        node("Transpose", ["rembg_clipped"], ["rembg_nhwc"], perm=[0, 2, 3, 1]),
        node("Cast", ["rembg_nhwc"], [image], to=TensorProto.UINT8),
    ]


def nodes_after(probabilities: str) -> list[onnx.NodeProto]:
    """``probabilities``, float32 (batch, h, w, classes) -> odds of foreground against background (batch, 1, h, w)."""
    node, nodes = helper.make_node, []
    for role in ("foreground", "background"):
        nodes += [
            node("Gather", [probabilities, f"rembg_{role}"], [f"rembg_{role}_classes"], axis=3),
            node("ReduceSum", [f"rembg_{role}_classes", "rembg_classes_axis"], [f"rembg_{role}_sum"], keepdims=0),
            node("Add", [f"rembg_{role}_sum", "rembg_even"], [f"rembg_{role}_share"]),
        ]
    return [
        *nodes,
        node("Add", ["rembg_foreground_share", "rembg_background_share"], ["rembg_both"]),
        node("Div", ["rembg_foreground_share", "rembg_both"], ["rembg_odds"]),
        node("Unsqueeze", ["rembg_odds", "rembg_channel_axis"], ["rembg_mask"]),
    ]


class Contest:
    """Both commands, with the folders that they read and write."""

    def __init__(self, rembg: Path, photos: list[Path], folder: Path) -> None:
        self.folder, self.rembg = folder, rembg
        self.home = folder / "home"
        self.model = self.home / "models" / "u2net_custom" / "wrapped.onnx"
        self.model.parent.mkdir(parents=True)
        onnx.save(wrapped(FLOAT_ONNX), self.model)
        self.photos = folder / "photos"
        self.photos.mkdir()
        for path in photos:
            shutil.copy(path, self.photos)
        self.ours = str(Path(sys.executable).with_name("unet-run"))

    def unet_run(self, source: Path, output: Path) -> None:
        command = [self.ours, "--backend", "onnx", "--model", str(FLOAT_ONNX), "--save", "cutout", "--output-dir"]
        subprocess.run([*command, str(output), str(source)], check=True, stdout=subprocess.DEVNULL)

    def rembg_run(self, source: Path, output: Path) -> None:
        extras = json.dumps({"model_path": str(self.model)})
        kind = "p" if source.is_dir() else "i"
        target = output if source.is_dir() else output / f"{source.stem}.png"
        output.mkdir(exist_ok=True)
        subprocess.run(
            [str(self.rembg), kind, "-m", "u2net_custom", "-x", extras, str(source), str(target)],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._offline(),
        )

    def _offline(self) -> dict[str, str]:
        nowhere = "http://127.0.0.1:9"  # the discard port: a download would fail, not succeed unseen
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), nowhere)
        return os.environ | proxies | {"U2NET_HOME": str(self.home)}

    def seconds(self, run: Callable[[Path, Path], None], source: Path, output: Path) -> float:
        shutil.rmtree(output, ignore_errors=True)  # rembg skips what is there
        start = time.perf_counter()
        run(source, output)
        return time.perf_counter() - start

    def turns(self, source: Path, runs: int) -> tuple[list[float], list[float]]:
        """Seconds of unet-run and of rembg, turn by turn; one more turn before, for the disk cache."""
        pairs = [
            (
                self.seconds(self.unet_run, source, self.folder / "ours"),
                self.seconds(self.rembg_run, source, self.folder / "theirs"),
            )
            for _ in range(runs + 1)
        ]
        return [pair[0] for pair in pairs[1:]], [pair[1] for pair in pairs[1:]]

    def agreement(self) -> tuple[float, int]:
        """Share of pixels that both cut alike, over the last turn's photos, and how many photos that were."""
        same = total = count = 0
        for path in sorted((self.folder / "ours").glob("*.cutout.png")):
            other = self.folder / "theirs" / f"{path.name.removesuffix('.cutout.png')}.png"
            mine, yours = (np.asarray(Image.open(file).getchannel("A")) > 127 for file in (path, other))
            same, total, count = same + int((mine == yours).sum()), total + mine.size, count + 1
        return same / total, count

    def megabytes(self, name: str) -> float:
        return sum(path.stat().st_size for path in (self.folder / name).glob("*.png")) / 1e6


def report(title: str, ours: list[float], theirs: list[float], photos: int) -> None:
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    medians = [statistics.median(values) for values in (ours, theirs)]
    rates = "" if photos == 1 else "  ({:.1f} and {:.1f} photos/s)".format(*(photos / value for value in medians))
    print(f"{title}: unet-run {medians[0]:.2f} s, rembg {medians[1]:.2f} s: {ratio:.1f} times as fast{rates}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, required=True, help="folder of rembg's environment; made if need be")
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos, as PETS_DIR/images")
    parser.add_argument("--count", type=int, default=200, help="photos of the folder's measurement")
    parser.add_argument("--runs", type=int, default=11, help="turns of the cold start")
    parser.add_argument("--folder-runs", type=int, default=3, help="turns of the folder")
    options = parser.parse_args()
    photos = evenly(sorted(options.photos.glob("*.jpg")), options.count)
    rembg = rembg_environment(options.venv.resolve())
    print(f"unet-run: {versions(Path(sys.executable))}; {REMBG}: {versions(rembg.with_name('python'))}")
    with tempfile.TemporaryDirectory() as folder:
        contest = Contest(rembg, photos, Path(folder))
        report("one photo, whole process", *contest.turns(PHOTO, options.runs), photos=1)
        report(f"folder of {len(photos)} photos", *contest.turns(contest.photos, options.folder_runs), len(photos))
        share, count = contest.agreement()
        sizes = contest.megabytes("ours"), contest.megabytes("theirs")
        print(f"cut-outs: {share:.2%} of pixels alike in {count} photos; {sizes[0]:.1f} and {sizes[1]:.1f} MB of PNG")
        downloaded = [path for path in contest.home.rglob("*") if path.is_file() and path != contest.model]
    if count != len(photos) or share < AGREEMENT or downloaded:
        raise SystemExit(f"not comparable: {count} of {len(photos)} photos, {share:.2%} alike, downloaded {downloaded}")


if __name__ == "__main__":
    main()
