"""Steps a second of this trainer against a plain ``keras.Model.fit`` on the article's loader, side by side.

    python benchmarks/plain_fit.py --data $PETS_DIR [--rounds 5] [--steps 6] [--cases 16x160x8 4x160x8] [--json FILE]
    python benchmarks/plain_fit.py --data $PETS_DIR --as-run

A case is FILTERSxSIZExBATCH. Both train the same network on the same photos with the same optimizer, without
augmentation. The plain one is what the article has: a ``keras.utils.Sequence`` that opens the batch's files anew each
time, ``compile(optimizer="rmsprop", loss="sparse_categorical_crossentropy")`` and Keras' defaults, XLA among them.
Between the two stand fits that change one thing at a time, to show where the difference comes from; where this
trainer would choose half precision, the last but one is its float32. All take turns, block after block; of each block
the first step is left out, and the first block of each, in which it is compiled.

``--as-run``: only the first and the last, in processes of their own that take turns, each as its user runs it.
unet-train turns TensorFlow's oneDNN kernels on, which by default are off on CPUs without AVX-512, and that holds for a
whole process.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from unet_runtime.core.datasets import Sample, evenly
from unet_runtime.core.spec import InputSpec
from unet_training.build import build_training_model, compile_model, make_objective, make_optimizer, resolve_precision
from unet_training.data.dataset import TrainingBatches, load, split_dataset
from unet_training.models import builder
from unet_training.recipes import PRESETS, Recipe

SEED = 1
GOAL = 1.5
CLASSES = 3
PLAIN, OURS = "plain fit, article's loader", "this trainer"


class ArticleSequence(keras.utils.PyDataset):
    """The loader of the Keras example that the article follows: photos float32 in 0..255, masks from 0."""

    def __init__(self, photos: Sequence[Sample], size: int, batch_size: int) -> None:
        super().__init__()
        self._photos, self._size, self._batch_size = photos, (size, size), batch_size

    def __len__(self) -> int:
        return math.ceil(len(self._photos) / self._batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self._photos[index * self._batch_size : (index + 1) * self._batch_size]
        x = np.zeros((len(chosen), *self._size, 3), "float32")
        y = np.zeros((len(chosen), *self._size, 1), "uint8")
        for row, item in enumerate(chosen):
            x[row] = keras.utils.img_to_array(keras.utils.load_img(item.photo, target_size=self._size))
            mask = keras.utils.load_img(item.labels.path, target_size=self._size, color_mode="grayscale")
            y[row] = keras.utils.img_to_array(mask) - 1
        return x, y


class StepTimes(keras.callbacks.Callback):
    """Seconds between the ends of a fit's steps."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.ends = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        float(logs["loss"])  # an accelerator's step ends when its result is there
        self.ends.append(time.perf_counter())

    def mean(self) -> float:
        """Without the first, in which Keras' iterator starts."""
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)


def plain(recipe: Recipe, jit_compile: bool | str = "auto") -> keras.Model:
    model = builder(recipe.architecture)(recipe.size, recipe.size, CLASSES, filters=recipe.filters)
    model.compile(optimizer="rmsprop", loss="sparse_categorical_crossentropy", jit_compile=jit_compile)
    return model


def ours(recipe: Recipe) -> keras.Model:
    model = build_training_model(recipe, recipe.precision, make_objective(recipe, None))
    compile_model(model, make_optimizer(recipe, 200))
    return model


def without_metrics(recipe: Recipe) -> keras.Model:
    model = ours(recipe)
    model.compile(optimizer=model.optimizer, loss=model.loss, jit_compile=model.jit_compile)
    return model


def contestants(recipe: Recipe, photos: list[Sample], only: str) -> dict[str, Callable[[], float]]:
    """What is timed, by name; each call fits one block and gives the mean seconds of a step. ``only``: one of them."""
    files = ArticleSequence(photos, recipe.size, recipe.batch_size)
    memory = TrainingBatches(load(photos, InputSpec(recipe.size, recipe.size)), recipe.batch_size, SEED)

    def fit(model: keras.Model, batches: keras.utils.PyDataset, **options: Any) -> Callable[[], float]:
        times = StepTimes()

        def block() -> float:
            model.fit(batches, verbose=0, callbacks=[times], **options)
            return times.mean()

        return block

    chosen = replace(recipe, precision=resolve_precision("auto"))
    if only:
        return {only: fit(plain(recipe), files) if only == PLAIN else fit(ours(chosen), memory, shuffle=False)}
    blocks = {
        PLAIN: fit(plain(recipe), files),
        "the same without XLA": fit(plain(recipe, jit_compile=False), files),
        "the same, photos in memory": fit(plain(recipe), memory, shuffle=False),
        "both": fit(plain(recipe, jit_compile=False), memory, shuffle=False),
        "this trainer without metrics": fit(without_metrics(chosen), memory, shuffle=False),
    }
    if chosen != recipe:
        blocks["this trainer in float32"] = fit(ours(recipe), memory, shuffle=False)
    return blocks | {OURS: fit(ours(chosen), memory, shuffle=False)}


def blocks_of(case: str, options: argparse.Namespace) -> list[dict[str, float]]:
    """Seconds of a step by name, block after block; the first, in which all is compiled, left out."""
    filters, size, batch_size = map(int, case.split("x"))
    recipe = replace(PRESETS["article"], filters=filters, size=size, batch_size=batch_size)
    photos = evenly(
        split_dataset(options.data, recipe.split, recipe.validation, SEED).train, options.steps * batch_size
    )
    keras.utils.set_random_seed(SEED)
    blocks = contestants(recipe, photos, options.only)
    rounds = 1 if options.only else options.rounds
    return [{name: block() for name, block in blocks.items()} for _ in range(rounds + 1)][1:]


def blocks_as_run(case: str, options: argparse.Namespace) -> list[dict[str, float]]:
    """The same of plain fit and trainer, each block in a process with its user's environment."""
    command = [sys.executable, __file__, "--data", str(options.data), "--steps", str(options.steps), "--cases", case]
    users = {PLAIN: os.environ, OURS: {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1"}}
    turns = []
    for _ in range(options.rounds):
        turn: dict[str, float] = {}
        for name, environment in users.items():
            said = subprocess.run(
                [*command, "--only", name], env=environment, stdout=subprocess.PIPE, check=True
            ).stdout
            turn |= json.loads(said.splitlines()[-1])
        turns.append(turn)
    return turns


def measure(case: str, options: argparse.Namespace) -> dict[str, Any]:
    filters, size, batch_size = map(int, case.split("x"))
    timed = blocks_as_run(case, options) if options.as_run else blocks_of(case, options)
    return {
        "case": f"{filters} filters, {size}x{size}, batches of {batch_size}",
        "ms": {name: statistics.median(turn[name] for turn in timed) * 1e3 for name in timed[0]},
        "speedup": {name: statistics.median(turn[PLAIN] / turn[name] for turn in timed) for name in timed[0]},
        "rounds": timed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("PETS_DIR"), help="default: PETS_DIR")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="of a block")
    parser.add_argument("--cases", nargs="+", default=["16x160x8", "4x160x8"], help="FILTERSxSIZExBATCH")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--as-run", action="store_true", help="two processes in turns, each as its user runs it")
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data or PETS_DIR: Oxford-IIIT Pet's folder")
    if options.only:
        print(json.dumps(blocks_of(options.cases[0], options)[0]))
        return
    results = []
    for case in options.cases:
        result = measure(case, options)
        results.append(result)
        print(f"{result['case']}: {keras.backend.backend()} on {keras.ops.ones((1,)).device}")
        for name, value in result["ms"].items():
            print(f"  {name:32}{value:9.1f} ms a step   {result['speedup'][name]:5.2f} x as fast as the plain fit")
        print(f"  goal, {GOAL} times: {'reached' if result['speedup'][OURS] >= GOAL else 'MISSED'}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
