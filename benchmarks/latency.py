"""Milliseconds per photo, side by side in one run: Keras, SavedModel, the runtime's engines, the whole Segmenter.

    python benchmarks/latency.py [--model MODEL.keras] [--rounds 15]

The engines take turns, round after round, so a drift of the machine's speed hits all; medians of the
rounds. The same uint8 input everywhere, batch 1, each engine's own choice of threads.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import bundled
from turns import take_turns

from unet_export.foreign.load import load_model
from unet_export.formats.saved_model import SIGNATURE_NAME, export_saved_model
from unet_export.source_model import INPUT_NAME
from unet_runtime import Segmenter
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.geometry import model_input
from unet_runtime.core.photo import open_photo

REPOSITORY = Path(__file__).parents[1]
PHOTO = REPOSITORY / "runtime/unet_runtime/samples/chelsea.jpg"
CALLS = 5


def calls_by_name(model: Path, folder: Path) -> dict[str, Callable[[], object]]:
    """What is timed, by name; each call handles one photo."""
    artifact = read_artifact(model)
    keras = load_model(artifact.path)[0]
    export_saved_model(keras, artifact.spec, folder / "saved_model")
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder / "saved_model"))
    photo = open_photo(PHOTO)
    batch = model_input(photo, artifact.spec.input)
    tensor = tf.constant(batch)
    segmenters = {name: Segmenter(backend=name) for name in ("onnx", "tflite", "openvino")}
    return {
        "Keras predict": lambda: keras.predict(batch, verbose=0),
        "SavedModel": lambda: loaded.signatures[SIGNATURE_NAME](**{INPUT_NAME: tensor})["probabilities"].numpy(),
        "ONNX Runtime float32": lambda: segmenters["onnx"].backend.run(batch),
        "LiteRT int8": lambda: segmenters["tflite"].backend.run(batch),
        "OpenVINO float32": lambda: segmenters["openvino"].backend.run(batch),
        "Segmenter (ONNX Runtime), mask at 451x300": lambda: segmenters["onnx"](photo).mask,
        "Segmenter (LiteRT int8), mask at 451x300": lambda: segmenters["tflite"](photo).mask,
    }


def repeat(call: Callable[[], object]) -> None:
    """A few calls in a row."""
    for _ in range(CALLS):
        call()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=bundled.KERAS)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        calls = calls_by_name(options.model, Path(folder))
        repeated = {name: partial(repeat, call) for name, call in calls.items()}
        seconds = take_turns(repeated, options.rounds)
    base = statistics.median(seconds["ONNX Runtime float32"])
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(f"{name:44} {median / CALLS * 1000:7.1f} ms   {median / base:5.2f} x ONNX Runtime")


if __name__ == "__main__":
    main()
