"""A training small enough to be run under several backends, in this process or in one of its own.

    KERAS_BACKEND=jax python -m tests.helpers.small_training '[{"data": "...", "output": "...", ...}, ...]'

calls ``main`` once for each object, and prints a line of JSON: what the calls returned.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np

from unet_runtime.core.datasets import open_dataset
from unet_runtime.core.spec import InputSpec
from unet_training.build import (
    build_training_model,
    compile_model,
    copy_weights,
    load_pretrained,
    make_objective,
    make_optimizer,
)
from unet_training.data.dataset import load, split_dataset
from unet_training.evaluate import load_model
from unet_training.fit import distribution
from unet_training.fit.checkpoint import CHECKPOINT, Checkpoint
from unet_training.fit.distribution import Distribute
from unet_training.fit.loop import fit
from unet_training.losses import Objective
from unet_training.recipes import PRESETS

ANSWERS = "answers.npy"
"""float32 (3, size, size, classes)."""

RECIPE = replace(PRESETS["demo"], filters=4, depth=1, size=32, batch_size=4, epochs=2)


def main(
    data: str,
    output: str,
    recipe: Mapping[str, Any],
    weights: str = "",
    teacher: str = "",
    distribute: Distribute = "none",
    answer: str = "",
) -> dict[str, Any]:
    """Train a U-Net of one stage on ``data`` by ``RECIPE`` with the changes in ``recipe``.

    What the model file ``answer`` says of some photos is written to ``output`` (``ANSWERS``).

    Returns:
        ``history``; ``logged``, lines; ``replicas``, devices that hold a copy of each weight; ``shard``, the shape of a
        device's part of the probabilities in a training step (under JAX).
    """
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("unet_training")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    shards: list[tuple[int, ...]] = []
    recipe = {name: tuple(value) if isinstance(value, list) else value for name, value in recipe.items()}
    settings = replace(RECIPE, **recipe)
    settings = replace(settings, sizes=settings.sizes or (settings.size,))
    keras.utils.set_random_seed(1)
    others = {name: load_pretrained(Path(path)) for name, path in (("weights", weights), ("teacher", teacher)) if path}
    photos = split_dataset(open_dataset(Path(data)), "official", settings.validation, 1)
    stages = [load(photos.train, InputSpec(size, size)) for size in settings.sizes]
    devices = distribution.choose_devices(distribute)
    distribution.check_batch(min(settings.batch_size, len(stages[-1])), devices)
    validation = load(photos.validation, InputSpec(settings.size, settings.size))
    validation = distribution.divisible(validation, devices)
    averages = keras.callbacks.SwapEMAWeights() if settings.ema else None
    Path(output).mkdir(parents=True)
    if answer:
        answers = load_model(Path(answer)).backend.run(stages[-1].photos[:3])
        np.save(Path(output) / ANSWERS, answers)
    checkpoint = Checkpoint(Path(output) / CHECKPOINT, settings.monitor, {}, averages)
    with (
        mock.patch.object(Objective, "__call__", _watched(Objective.__call__, shards)),
        distribution.data_parallel(devices),
    ):
        model = build_training_model(settings, settings.precision, make_objective(settings, others.get("teacher")))
        if "weights" in others:
            copy_weights(model, others["weights"])
        compile_model(model, make_optimizer(settings, len(stages[-1]) // settings.batch_size))
        fit(model, settings, 1, stages, validation, checkpoint)
    logger.removeHandler(handler)
    return {"history": checkpoint.history, "logged": lines, "replicas": _replicas(model.weights), "shard": shards[-1:]}


def _watched(call: Callable[..., Any], shards: list[tuple[int, ...]]) -> Callable[..., Any]:
    """The loss, telling how its argument ``probabilities`` is laid out over devices once compiled."""

    def watched(self: Objective, photos: Any, truth: Any, probabilities: Any, extra: Any = None) -> Any:
        if keras.backend.backend() == "jax":
            import jax

            shape = probabilities.shape
            jax.debug.inspect_array_sharding(
                probabilities, callback=lambda sharding: shards.append(sharding.shard_shape(shape))
            )
        return call(self, photos, truth, probabilities, extra)

    return watched


def _replicas(weights: Sequence[keras.Variable]) -> list[int]:
    """How many devices hold each weight whole; outside JAX, 1."""
    if keras.backend.backend() != "jax":
        return [1]
    return sorted({len(v.value.sharding.device_set) * v.value.sharding.is_fully_replicated for v in weights})


if __name__ == "__main__":
    print(json.dumps([main(**arguments) for arguments in json.loads(sys.argv[1])]))
