"""Models of other people's kind, exported as their users would export them: a table of verdicts.

    python -m benchmarks.foreign_models [--output artifacts/foreign] [--only unet++,enet] [--size 32] [--again]

Each network of ``foreign_architectures.py`` is trained on drawn pictures until its masks are decided (a model that is
unsure of every pixel would fail any comparison of masks, whatever its file), saved, and exported by its description
alone, with remedies where an integer file fails, as the command does. OUTPUT/foreign.json keeps every verdict with the
commit that gave it: a second call goes on with the networks that have none of today's.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
from keras import ops

from benchmarks.foreign_architectures import ARCHITECTURES, Architecture
from unet_export.errors import ExportError
from unet_export.foreign import flatten, outputs
from unet_export.foreign.inputs import preprocess
from unet_export.foreign.load import Description, parse_classes
from unet_export.formats import format_named
from unet_export.gate.gate import FOREIGN_GATES, ParityError, ParityResult
from unet_export.photos import PhotoSource
from unet_export.pipeline import ExportOptions, export_model
from unet_runtime.cli.quiet import engines_quiet
from unet_runtime.cli.shared import setup_logging
from unet_runtime.core import text
from unet_runtime.core.datasets import open_dataset, read_split
from unet_runtime.core.geometry import model_input, model_labels
from unet_runtime.core.photo import open_photo
from unet_runtime.core.spec import InputSpec
from unet_training.data.synthetic import ensure_dataset

FORMATS = ("onnx", "onnx-float16", "onnx-int8", "tflite-int8")

PICTURES, HELD_OUT = 96, 32

STEPS, BATCH = 120, 8

OBJECT = 0
"""Class id of the drawn animals in their dataset."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("artifacts/foreign"))
    parser.add_argument("--only", type=lambda value: value.split(","), help="names, separated by commas")
    parser.add_argument("--size", type=int, default=32, help="side of the input, pixels")
    parser.add_argument("--steps", type=int, default=STEPS, help="of training")
    parser.add_argument("--again", action="store_true", help="export what is done already, too")
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    setup_logging(1 if options.verbose else -1)
    data = options.output / "pictures"
    ensure_dataset(data, train=PICTURES, test=HELD_OUT, size=2 * options.size, seed=1)
    done = options.output / "foreign.json"
    found: dict[str, Any] = json.loads(done.read_text(encoding="utf-8")) if done.exists() else {}
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    for name in options.only or ARCHITECTURES:
        if found.get(name, {}).get("commit") == commit and not options.again:
            continue
        start = time.perf_counter()
        try:
            found[name] = verdicts(name, data, options.output, options)
        except Exception as error:  # one network must not take the others with it; it is tried again next time
            logging.getLogger("unet_export").exception("%s: %s", name, error)
            continue
        found[name] |= {"seconds": round(time.perf_counter() - start, 1), "commit": commit}
        done.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(name, json.dumps(found[name]), flush=True)
    print(table(found))


def verdicts(name: str, data: Path, output: Path, options: Any) -> dict[str, str]:
    """The verdict on each format: ``passed``, ``remedy`` (passed with it), ``mixed``, ``FAILED`` or ``not made``."""
    architecture = ARCHITECTURES[name]
    path = output / "models" / f"{name.replace('+', 'p')}.keras"
    description = described(architecture)
    if architecture.any_size:
        description = replace(description, size=(options.size, options.size))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        train(architecture, data, options.size, options.steps).save(path)
    settings = ExportOptions(FORMATS, FOREIGN_GATES, repair=True, description=description)
    refused: Any = ()
    try:
        with engines_quiet(not options.verbose):
            results = export_model(path, PhotoSource(data), output / "exports" / name, settings)
    except ParityError as error:
        results, refused = error.results, error.refused
    except ExportError as error:
        return dict.fromkeys(FORMATS, f"refused: {error}")
    found = {}
    for result in results:
        form = result.format.replace("-mixed", "-int8")
        found[form] = accepted(result) if result.passed else f"FAILED: {'; '.join(result.failures)}"
    return found | {refusal.format: f"not made: {refusal.reason}" for refusal in refused}


def accepted(result: ParityResult) -> str:
    """The word for an artifact that passed."""
    if result.precision == "mixed":
        return "mixed"
    usual = format_named(result.format).quantization.as_dict()
    changed = [key for key, value in result.quantization.items() if key in usual and value != usual[key]]
    return f"remedy: {', '.join(changed)}" if changed else "passed"


def described(architecture: Architecture) -> Description:
    """What a user would say of it."""
    classes = "pet" if architecture.single else "pet,background,border:neutral"
    return Description(parse_classes(classes), **({"split": "official"} | architecture.description))


def train(architecture: Architecture, data: Path, size: int, steps: int) -> Any:
    """The network, trained on the drawn pictures."""
    keras.utils.set_random_seed(1)
    model = architecture.build(size)
    network, source = trainable(model, architecture)
    shape = network.inputs[0].shape[1:3]
    side = shape[0] or size
    images, labels = pictures(data, side)
    image = keras.Input((side, side, 3), dtype="uint8")
    description = described(architecture)
    channels = description.channels or {1: "grey"}.get(network.inputs[0].shape[-1], "rgb")
    fed = keras.Model(image, preprocess(image, description.pixels, channels, description.preprocessing))
    values = fed.predict(images, verbose=0)
    network.compile(
        keras.optimizers.Adam(3e-3), Loss(network.outputs[0], architecture.single), jit_compile=architecture.compiled
    )
    network.fit(values, labels, batch_size=BATCH, epochs=max(1, steps * BATCH // len(values)), verbose=0)
    if source is not None:
        model.set_weights(source.get_weights())
    return model


def trainable(model: Any, architecture: Architecture) -> tuple[Any, Any | None]:
    """(what can be trained on a CPU, with one output of the network's own layers; where its weights then are)"""
    if flatten.is_channels_first(model):
        image = keras.Input((*model.inputs[0].shape[2:], model.inputs[0].shape[1]))
        copy = keras.Model(image, flatten.flatten_channels_last(model, image))
        return copy, copy
    if any(layer.compute_dtype == "float16" for layer in model.layers):  # a CPU takes minutes for a batch in float16
        copy = type(model).from_config(flatten.as_float32(model.get_config()))
        return copy, copy
    result = model.outputs[0]
    if architecture.output:
        result = model.outputs[model.output_names.index(architecture.output)]
    if "int" in result.dtype:
        result = outputs.without_argmax(result)
    return keras.Model(model.inputs[0], result), None


class Loss:
    """Cross-entropy of a map, a flattened map, or one channel; at the map's size, without its margin."""

    def __init__(self, result: Any, single: bool) -> None:
        self._head, self._single = outputs.read_head(result), single
        self.__name__ = "cross_entropy"

    def __call__(self, truth: Any, predicted: Any) -> Any:
        truth = truth[..., 0] if truth.shape[-1] == 1 else truth  # Keras has done it for a flattened output
        predicted = ops.cast(predicted, "float32")
        if len(predicted.shape) == 3:
            predicted = ops.reshape(predicted, (-1, *truth.shape[1:3], predicted.shape[-1]))
        lost = truth.shape[1] - predicted.shape[1]
        if lost and truth.shape[1] % predicted.shape[1]:
            truth = truth[:, lost // 2 : -lost // 2, lost // 2 : -lost // 2]
        truth = truth[:, :: truth.shape[1] // predicted.shape[1], :: truth.shape[1] // predicted.shape[1]]
        logits = self._head == "logits"
        if self._single:
            target = ops.cast(ops.equal(truth, OBJECT), "float32")[..., None]
            return keras.losses.binary_crossentropy(target, predicted, from_logits=logits)
        if self._head == "sigmoid":
            predicted = predicted / ops.sum(predicted, axis=-1, keepdims=True)
        return keras.losses.sparse_categorical_crossentropy(truth, predicted, from_logits=logits)


def pictures(data: Path, side: int) -> tuple[Any, Any]:
    """uint8 (n, side, side, 3) and class ids (n, side, side, 1) of the training part."""
    spec = InputSpec(side, side)
    images, labels = [], []
    for entry in read_split(open_dataset(data), "official", "trainval"):
        images.append(model_input(open_photo(entry.photo), spec)[0])
        labels.append(model_labels(entry.labels.read(), spec))
    return np.stack(images), np.stack(labels).astype(np.int32)[..., np.newaxis]


def table(found: dict[str, Any]) -> str:
    """One line per network; what was not accepted in words below."""
    rows = [("network", *FORMATS)]
    reasons = []
    whole = 0
    for name, verdict in found.items():
        cells = []
        for form in FORMATS:
            word, _, reason = verdict.get(form, "").partition(": ")
            cells.append(word)
            if reason:
                reasons.append(f"{name}, {form}: {reason}")
        whole += set(cells) <= {"passed", "mixed", "remedy"}
        rows.append((name, *cells))
    commits = sorted({verdict["commit"] for verdict in found.values()})
    return "\n".join([text.table(rows), f"accepted whole: {whole} of {len(found)}, by {', '.join(commits)}", *reasons])


if __name__ == "__main__":
    main()
