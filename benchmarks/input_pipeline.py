"""Does the input starve the model? Share of the training's time spent waiting for the next batch.

    python benchmarks/input_pipeline.py --data $PETS_DIR [--rounds 5] [--steps 12] [--json FILE]

Two fits of the same network take turns, block after block: one on real photos with augmentation, as a training has
them, one on a single batch that lies in memory. Of every step it is known how long the loop waited until its batch
was there, because the batch is taken from Keras' own iterator before the step, not within it. The rest of the
difference between the two fits is what preparing batches takes away from the model on shared cores. Medians of the
blocks; the first ones warm up, and the first step of each, in which Keras' iterator starts, is reported apart. Then the
pipeline alone, as fast as it goes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from unet_runtime.core.datasets import evenly
from unet_runtime.core.spec import InputSpec
from unet_training.build import build_training_model, compile_model, make_objective, make_optimizer, resolve_precision
from unet_training.data.augment import Augmenter
from unet_training.data.dataset import TrainingBatches, load, split_dataset
from unet_training.data.pairs import Labelled
from unet_training.recipes import PRESETS, Recipe

SEED = 1
GOAL = 3.0
"""Per cent of a step."""


class Constant(keras.utils.PyDataset):
    """A data set of one batch, repeated."""

    def __init__(self, batch: tuple[np.ndarray, np.ndarray], steps: int) -> None:
        super().__init__()
        self._batch, self._steps = batch, steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self._batch


class Watch(keras.callbacks.Callback):
    """Seconds of each step of a fit, and how many of them were spent waiting for its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[float] = []
        self.waits: list[float] = []
        self._end = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.steps, self.waits, self._end = [], [], time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        float(logs["loss"])  # an accelerator's step ends when its result is there
        now = time.perf_counter()
        self.steps.append(now - self._end)
        self._end = now


def watch_waiting(model: keras.Model, watch: Watch) -> None:
    """Take each batch out of Keras' iterator under the eyes of ``watch``, then give it to the compiled step."""
    model.make_train_function()
    step = model.train_function

    def timed(*arguments: Any) -> Any:
        *state, iterator = arguments  # JAX hands the model's state on
        begin = time.perf_counter()
        batch = next(iterator)
        watch.waits.append(time.perf_counter() - begin)
        return step(*state, iter([batch]))

    model.train_function = timed


def network(recipe: Recipe) -> keras.Model:
    model = build_training_model(recipe, recipe.precision, make_objective(recipe, None))
    compile_model(model, make_optimizer(recipe, 200))
    return model


def fits(recipe: Recipe, data: Labelled) -> dict[str, Callable[[], Watch]]:
    """What takes turns; each call fits one block of steps."""
    watch, model = Watch(), network(recipe)
    watch_waiting(model, watch)
    real = TrainingBatches(data, recipe.batch_size, SEED, Augmenter(SEED))
    constant = Constant(real[0], len(real))

    def fit(batches: keras.utils.PyDataset) -> Callable[[], Watch]:
        def block() -> Watch:
            model.fit(batches, epochs=1, verbose=0, shuffle=False, callbacks=[watch])
            return watch

        return block

    return {"photos, augmented": fit(real), "a batch in memory": fit(constant)}


def alone(data: Labelled, batch_size: int, augment: Augmenter | None, seconds: float) -> float:
    """Photos a second of the pipeline with no model."""
    batches = TrainingBatches(data, batch_size, SEED, augment)

    def forever() -> Iterator[int]:
        while True:
            yield from (len(batches[index][0]) for index in range(len(batches)))
            batches.on_epoch_end()

    endless = forever()
    next(endless)
    begin, photos = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        photos += next(endless)
    return photos / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("PETS_DIR"), help="default: PETS_DIR")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12, help="of a block")
    parser.add_argument("--size", type=int, default=PRESETS["unet-small"].size)
    parser.add_argument("--filters", type=int, default=PRESETS["unet-small"].filters)
    parser.add_argument("--batch-size", type=int, default=PRESETS["unet-small"].batch_size)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data or PETS_DIR: Oxford-IIIT Pet's folder")
    result = measure(options)
    print(f"{'':22}{'ms a step':>10}{'waiting, ms':>13}{'share':>9}{'first, ms':>11}{'photos/s':>10}")
    for name, row in result["fits"].items():
        print(
            f"{name:22}{row['step_ms']:10.1f}{row['wait_ms']:13.2f}{row['share']:9.2%}{row['first_wait_ms']:11.1f}{row['photos_per_second']:10.1f}"
        )
    print(f"a step on photos takes {result['ratio']:.3f} times one on a batch in memory ({options.rounds} pairs)")
    for name, rate in result["alone"].items():
        print(f"{name}: {rate:.0f} photos/s, {rate / result['model_photos_per_second']:.1f} times what the model takes")
    verdict = "reached" if result["fits"]["photos, augmented"]["share"] < GOAL / 100 else "MISSED"
    print(f"goal, less than {GOAL} % waiting: {verdict}; {result['device']}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    recipe = replace(
        PRESETS["unet-small"],
        size=options.size,
        filters=options.filters,
        batch_size=options.batch_size,
        precision=resolve_precision("auto"),
    )
    photos = evenly(
        split_dataset(options.data, recipe.split, recipe.validation, SEED).train, options.steps * recipe.batch_size
    )
    data = load(photos, InputSpec(recipe.size, recipe.size))
    blocks = fits(recipe, data)
    rounds: list[dict[str, dict[str, float]]] = []
    for _ in range(options.rounds + 1):
        turn = {}
        for name, block in blocks.items():
            watch = block()
            total, wait = sum(watch.steps[1:]), sum(watch.waits[1:])
            count = len(watch.steps) - 1
            turn[name] = {
                "step_ms": total / count * 1e3,
                "wait_ms": wait / count * 1e3,
                "share": wait / total,
                "first_wait_ms": watch.waits[0] * 1e3,
            }
        rounds.append(turn)
    medians = {
        name: {key: statistics.median(turn[name][key] for turn in rounds[1:]) for key in rounds[0][name]}
        for name in blocks
    }
    for row in medians.values():
        row["photos_per_second"] = recipe.batch_size / row["step_ms"] * 1e3
    real, constant = blocks
    return {
        "device": f"{keras.backend.backend()} on {keras.ops.ones((1,)).device}, {recipe.precision}, "
        f"{recipe.filters} filters, {recipe.size}x{recipe.size}, batches of {recipe.batch_size}",
        "fits": medians,
        "ratio": statistics.median(turn[real]["step_ms"] / turn[constant]["step_ms"] for turn in rounds[1:]),
        "model_photos_per_second": medians[constant]["photos_per_second"],
        "alone": {
            "pipeline alone": alone(data, recipe.batch_size, Augmenter(SEED), 5),
            "without augmentation": alone(data, recipe.batch_size, None, 2),
        },
        "rounds": rounds,
    }


if __name__ == "__main__":
    main()
