"""The two steps of ``gpu.py``, each in a process of its own: the providers, and the article's training on JAX.

Both write what they know into ``gpu.json`` and ``gpu.md`` after each row, and end by themselves at the deadline.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import numpy as np

GATE_FAILED = 4
PHOTOS = 128
BATCHES = (1, 16)
DEVICES = ("cuda", "tensorrt")

TOLERANCES = {"float32": (1e-5, 0.9999), "float16": (5e-3, 0.999)}
"""Largest difference of a probability and smallest share of pixels of the same class, as the export's gate has them,
against the float32 file on the CPU."""

GOALS = {"ms at 512x512, float16, CUDA": 2.5, "seconds an epoch": 10.0, "validation loss": 0.2801}

ARTICLE_LOSS = (0.7482, 0.4964, 0.4039, 0.3582, 0.3335, 0.3078, 0.2772, 0.2651, 0.2487, 0.2335, 0.2220)
ARTICLE_VALIDATION = (0.7945, 0.5646, 0.3900, 0.3574, 0.3607, 0.3916, 0.3226, 0.3046, 0.2996, 0.3020, 0.2801)
"""Losses that the article prints, epoch by epoch: see docs/results.md."""


class Results:
    """What is known so far, in a folder: JSON for programs, tables for people."""

    def __init__(self, folder: Path) -> None:
        self._json, self._markdown = folder / "gpu.json", folder / "gpu.md"
        self.known: dict[str, Any] = json.loads(self._json.read_text()) if self._json.exists() else {}

    def add(self, key: str, row: dict[str, Any]) -> None:
        """Append a row and write both files, each whole or not at all."""
        self.known.setdefault(key, []).append(row)
        self.write()

    def write(self) -> None:
        for path, text in ((self._json, json.dumps(self.known, indent=1)), (self._markdown, tables(self.known))):
            new = path.with_suffix(".new")
            new.write_text(text, encoding="utf-8")
            os.replace(new, path)


@dataclass(frozen=True)
class Run:
    """One call of this file."""

    content: Path
    results: Results
    deadline: float
    rehearsal: bool

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.time()


# --- providers -------------------------------------------------------------------------------------


def providers(run: Run) -> bool:
    """Prove each device on each model; whether all are proven."""
    from unet_runtime.core.artifact import read_artifact

    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # TensorRT has no option against TF32; NVIDIA's libraries read this late
    run.results.known["machine"] = machine()
    run.results.known["rehearsal"] = run.rehearsal
    run.results.known["providers"] = []
    run.results.write()
    photos = test_photos(run.content / "data", 8 if run.rehearsal else PHOTOS)
    references: dict[int, Any] = {}
    proven = True
    for device in ("cpu",) if run.rehearsal else DEVICES:
        for path in sorted((run.content / "models").glob("*.onnx"), key=size_and_precision):
            artifact = read_artifact(path)
            size = artifact.spec.input.height
            row: dict[str, Any] = {"device": device, "model": path.name, "precision": artifact.spec.precision}
            row["size"] = size
            if run.left < 5:
                row["problem"] = "no time left"
            else:
                images = prepared(photos, artifact.spec)
                if size not in references:  # float32 comes first
                    references[size] = on_cpu(artifact, images)
                row |= attempt(partial(measure, run, artifact, device, images, references[size]))
            row["proven"] = "problem" not in row
            proven = proven and row["proven"]
            run.results.add("providers", row)
            print(row_text(row), flush=True)
    return proven


def measure(run: Run, artifact: Any, device: str, images: Any, reference: Any) -> dict[str, Any]:
    """Load a model on a device: what it runs on, how far it is from the CPU, whether it is bound, how fast it is."""
    from unet_runtime.engines import load
    from unet_runtime.engines.onnxruntime_gpu import GpuBackend

    start = time.perf_counter()
    backend = load("onnx", artifact, device=device)
    row: dict[str, Any] = {"load_s": time.perf_counter() - start, "used": backend.device, "engine": backend.engine}
    row["note"] = backend.note
    found = in_batches(backend.run, images)
    row["max_abs"] = float(np.abs(found - reference).max())
    row["same_class"] = float((found.argmax(-1) == reference.argmax(-1)).mean())
    row["photos"] = len(images)
    row["io_binding"] = isinstance(backend, GpuBackend)
    plain = unbound(backend)
    row["binding_max_abs"] = float(np.abs(backend.run(images[:4]) - plain(images[:4])).max())
    seconds = 0.2 if run.rehearsal else 1.0
    for batch in BATCHES:
        chosen = np.resize(images, (batch, *images.shape[1:]))
        row[f"ms_{batch}"] = timed(partial(backend.run, chosen), seconds) / batch
        if device == "tensorrt":  # its engine is of one photo
            continue
        row[f"ms_{batch}_unbound"] = timed(partial(plain, chosen), seconds) / batch
    row |= judged(row, artifact.spec.precision, device)
    return row


def judged(row: dict[str, Any], precision: str, device: str) -> dict[str, str]:
    """``problem``, where a row does not prove what it should."""
    largest, agreement = TOLERANCES[precision]
    if row["used"] != device:
        return {"problem": f"asked for {device}, runs on {row['used']}"}
    if not row["max_abs"] <= largest or not row["same_class"] >= agreement:
        return {"problem": f"max|dp| {row['max_abs']:.2g} (tolerance {largest:g}), same class {row['same_class']:.4%}"}
    if device != "cpu" and not row["io_binding"]:
        return {"problem": "no IO binding"}
    if not row["binding_max_abs"] <= largest:
        return {"problem": f"bound and unbound differ by {row['binding_max_abs']:.2g}"}
    return {}


def unbound(backend: Any) -> Callable[[Any], Any]:
    """The same session without buffers on the GPU, photo by photo where the backend does so, too."""
    session = backend._session  # what is compared with the runtime's way
    name, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    step = 1 if getattr(backend, "_one_by_one", False) else None

    def run(images: Any) -> Any:
        parts = [images] if step is None else [images[i : i + 1] for i in range(len(images))]
        return np.concatenate([session.run([output], {name: part})[0] for part in parts])

    return run


def on_cpu(artifact: Any, images: Any) -> Any:
    """Probabilities of ONNX Runtime's CPU provider, on all of this machine's cores."""
    from unet_runtime.engines import load

    return in_batches(load("onnx", artifact, device="cpu").run, images)


def in_batches(run: Callable[[Any], Any], images: Any) -> Any:
    """``run`` of 16 images at a time."""
    return np.concatenate([run(images[start : start + 16]) for start in range(0, len(images), 16)])


def timed(call: Callable[[], object], seconds: float) -> float:
    """Median of a call's milliseconds over some seconds, after three calls that do not count."""
    for _ in range(3):
        call()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while not taken or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e3


def test_photos(data: Path, count: int) -> list[Any]:
    """Photos of the test part, evenly chosen."""
    from unet_runtime.core.datasets import evenly, open_dataset, read_split
    from unet_runtime.core.photo import open_photo

    return [open_photo(sample.photo) for sample in evenly(read_split(open_dataset(data), "official", "test"), count)]


def prepared(photos: list[Any], spec: Any) -> Any:
    """uint8 (n, size, size, 3), as the model sees them."""
    from unet_runtime.core.geometry import model_input

    return np.concatenate([model_input(photo, spec.input) for photo in photos])


def size_and_precision(path: Path) -> tuple[int, str]:
    """``NAME-160.float32.onnx`` -> (160, "float32"), negated so that float32 comes first."""
    size, precision, _ = path.name.rpartition("-")[2].split(".")
    return int(size), "" if precision == "float32" else precision


# --- training --------------------------------------------------------------------------------------


class WithoutTensorFlow(MetaPathFinder):
    """Finder of modules to which TensorFlow is not installed, as on the machine that a parcel is for."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"{name} is not installed", name=name)


def training(run: Run) -> bool:
    """Train the article's preset on JAX; whether it was faster and better than its goals."""
    os.environ["KERAS_BACKEND"] = "jax"
    if run.rehearsal:
        sys.meta_path.insert(0, WithoutTensorFlow())
    import keras

    from unet_training.pipeline import tool_versions, train
    from unet_training.recipes import PRESETS

    recipe = PRESETS["article"]
    if run.rehearsal:
        recipe = replace(recipe, filters=2, depth=1, size=32, epochs=2, batch_size=8, split="official")
    run.results.known["training"] = []
    run.results.known["recipe"] = f"article, {recipe.filters} filters, {recipe.epochs} epochs"
    run.results.known["tools"] = tool_versions()
    run.results.known["device"] = str(keras.ops.ones((1,)).device)
    run.results.write()
    work = run.content / "training"
    train(recipe, run.content / "data", work, callbacks=[curve(run)], overwrite=True)
    rows = run.results.known["training"]
    if run.rehearsal:
        return len(rows) == recipe.epochs
    reached = min(row["val_loss"] for row in rows) <= GOALS["validation loss"]
    return reached and statistics.median(row["seconds"] for row in rows) <= GOALS["seconds an epoch"]


def curve(run: Run) -> Any:
    """A callback of Keras that writes each epoch beside the article's, and stops where the next would be too late."""
    import keras

    class Curve(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._start = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seconds = time.perf_counter() - self._start
            row: dict[str, Any] = {"epoch": epoch + 1, "seconds": seconds}
            for name, value in (logs or {}).items():
                row[name] = float(value)
            if epoch < len(ARTICLE_LOSS):
                row |= {"article_loss": ARTICLE_LOSS[epoch], "article_val_loss": ARTICLE_VALIDATION[epoch]}
            run.results.add("training", row)
            print(
                f"epoch {epoch + 1}: {seconds:.1f} s, validation loss {row.get('val_loss', float('nan')):.4f}",
                flush=True,
            )
            if run.left < 1.5 * seconds + 20:  # the best epoch is measured and written besides
                run.results.known["stopped"] = f"after epoch {epoch + 1}: no time for another"
                self.model.stop_training = True

    return Curve()


# --- tables ----------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """GPUs as the driver names them, processor count, Python, versions."""
    import onnxruntime

    from unet_runtime.engines import nvidia

    gpus = []
    for index in range(nvidia.count() or 0):
        found = nvidia.gpu(index)
        gpus.append("" if found is None else f"{found.name} ({found.capability})")
    return {
        "gpus": gpus,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "tensorrt": nvidia.tensorrt_version(),
    }


def attempt(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``call`` returns, or its error as a problem: the next row is tried all the same."""
    try:
        return call()
    except Exception as error:  # engines raise whatever they like
        return {"problem": " ".join(f"{type(error).__name__}: {error}".split())[:500]}


def row_text(row: dict[str, Any]) -> str:
    """A row of the providers in a line."""
    if "problem" in row:
        return f"{row['device']} {row['model']}: NOT PROVEN: {row['problem']}"
    return f"{row['device']} {row['model']}: max|dp| {row['max_abs']:.2g}, {row['ms_1']:.2f} ms"


def tables(known: dict[str, Any]) -> str:
    """Both results as Markdown."""
    return "\n".join([*provider_lines(known), "", *training_lines(known)]) + "\n"


def provider_lines(known: dict[str, Any]) -> Iterator[str]:
    yield f"Machine: {known.get('machine', 'not known')}{', a rehearsal' if known.get('rehearsal') else ''}"
    yield ""
    yield "| device | model | used | max abs dp | same class | ms, 1 photo | of 16 | unbound, 1 | of 16 | proven |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    goals = [""]
    for row in known.get("providers", []):
        cells = [row["device"], row["model"], row.get("used", "")]
        for name, form in (("max_abs", ".2g"), ("same_class", ".4%"), ("ms_1", ".2f"), ("ms_16", ".2f")):
            cells.append(format(row[name], form) if name in row else "")
        for name in ("ms_1_unbound", "ms_16_unbound"):
            cells.append(format(row[name], ".2f") if name in row else "")
        cells.append(f"no: {row['problem']}" if "problem" in row else "yes")
        yield f"| {' | '.join(cells)} |"
        if (row["device"], row.get("size"), row.get("precision")) == ("cuda", 512, "float16") and "ms_1" in row:
            goal = GOALS["ms at 512x512, float16, CUDA"]
            goals.append(f"Goal, CUDA at 512x512 in float16: {goal} ms: {row['ms_1']:.2f}")
    yield from goals


def training_lines(known: dict[str, Any]) -> Iterator[str]:
    yield f"Training: {known.get('recipe', 'not begun')}, {known.get('tools', '')} on {known.get('device', '')}"
    if "stopped" in known:
        yield f"Stopped {known['stopped']}."
    yield ""
    yield "| epoch | article, training loss | here | article, validation loss | here | mean IoU | seconds |"
    yield "|---|---|---|---|---|---|---|"
    for row in known.get("training", []):
        cells = [str(row["epoch"])]
        for name in ("article_loss", "loss", "article_val_loss", "val_loss", "val_mean_iou"):
            cells.append(f"{row[name]:.4f}" if name in row else "")
        yield f"| {' | '.join([*cells, format(row['seconds'], '.1f')])} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("providers", "training"))
    parser.add_argument("content", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--deadline", type=float, required=True, help="seconds since 1970")
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    run = Run(options.content, Results(options.results), options.deadline, options.rehearse)
    proven = {"providers": providers, "training": training}[options.step](run)
    run.results.known[f"{options.step}_proven"] = proven
    run.results.write()
    return 0 if proven else GATE_FAILED


if __name__ == "__main__":
    sys.exit(main())
