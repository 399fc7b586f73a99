"""Fit a recipe to a dataset and write one float32 ``model.keras`` with its spec inside."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unet_runtime.artifact import write_keras
from unet_runtime.spec import ClassSpec, InputSpec, ModelSpec, OutputSpec, Provenance
from unet_training.augment import Augmenter
from unet_training.cache import PhotoCache
from unet_training.checkpoint import BestCheckpoint
from unet_training.dataset import Batches, load, split_dataset
from unet_training.errors import TrainingError, TrainingInterruptedError
from unet_training.files import replacing, writing
from unet_training.interrupt import BetweenSteps
from unet_training.metrics import metrics, named
from unet_training.models import ARCHITECTURES
from unet_training.pairs import Labelled
from unet_training.recipes import Recipe

PET_CLASSES = (
    ClassSpec("pet", (230, 60, 90), "foreground"),
    ClassSpec("background", (40, 60, 120), "background"),
    ClassSpec("border", (250, 200, 60), "neutral"),
)

DATA_LICENSE = "Apache-2.0 (code); weights trained on Oxford-IIIT Pet, CC BY-SA 4.0, for research purposes"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """What a training made."""

    model: Path
    spec: ModelSpec
    history: dict[str, list[float]]
    """Keras' history: one figure an epoch for each name."""
    test: Labelled
    interrupted: bool


def build_model(recipe: Recipe, precision: str = "float32") -> keras.Model:
    """The recipe's network, computing under Keras dtype policy ``precision``."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        build = ARCHITECTURES[recipe.architecture]
        size, classes = recipe.size, len(PET_CLASSES)
        return build(size, size, classes, filters=recipe.filters, norm_momentum=recipe.norm_momentum)
    finally:
        keras.config.set_dtype_policy(before)


def resolve_precision(precision: str) -> str:
    """``auto`` -> ``mixed_bfloat16`` on an accelerator or a CPU with bfloat16 matrix units, else ``float32``."""
    if precision != "auto":
        return precision
    accelerated = _accelerated()
    with suppress(OSError):  # not Linux: nothing known of the CPU, float32 is right everywhere
        accelerated |= "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return "mixed_bfloat16" if accelerated else "float32"


def _accelerated() -> bool:
    """Asked of a tensor: keras.distribution knows no torch, and raises in JAX where there is no GPU."""
    return "cpu" not in str(keras.ops.ones((1,)).device).lower()


def make_optimizer(recipe: Recipe, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    if recipe.optimizer == "rmsprop":
        return keras.optimizers.RMSprop(recipe.learning_rate)
    warmup = int(recipe.warmup_epochs * steps_per_epoch)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, recipe.epochs * steps_per_epoch - warmup),
        warmup_target=recipe.learning_rate,
        warmup_steps=warmup,
    )
    return keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay)


def train(
    recipe: Recipe, data: Path, output: Path, *, data_name: str, seed: int, command: str, say: Say,
    cache: PhotoCache | None = None,
) -> Result:  # fmt: skip
    """Train, choose the best checkpoint on the validation photos, measure it on the test photos, write it.

    Ctrl-C after the first epoch ends the training early: the best checkpoint becomes the model, measured
    on the validation photos.

    Args:
        recipe: every hyper-parameter.
        data: folder in Oxford-IIIT Pet's layout.
        output: folder for ``model.keras``, ``best.npz`` and ``history.json``.
        data_name: what the spec calls the data.
        seed: of weights, order and augmentation.
        command: what the spec records as the command.
        say: receives one line of progress at a time.
        cache: keeps prepared photos, which the next training need not decode.

    Raises:
        TrainingError: a loss that is no number, or no memory left.
        DatasetError, SourceError: the data cannot be used.
        OutputError: ``output`` cannot be written.
        TrainingInterruptedError: Ctrl-C once more, before the best checkpoint became a model.
        KeyboardInterrupt: Ctrl-C before the first epoch's end.
    """
    keras.utils.set_random_seed(seed)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    recipe = replace(recipe, precision=resolve_precision(recipe.precision))
    photos = split_dataset(data, recipe.split, recipe.validation, seed)
    read = partial(load, spec=InputSpec(recipe.size, recipe.size), cache=cache)
    say(f"preparing {len(photos.train) + len(photos.validation)} photos at {recipe.size}x{recipe.size}")
    training, validation = read(photos.train), read(photos.validation)
    _say_problems(training.problems + validation.problems, say)

    model = build_model(recipe, recipe.precision)
    say(
        f"{recipe.name}: {recipe.architecture}, {model.count_params():,} parameters, {recipe.precision}, "
        f"{keras.backend.backend()} on the {'GPU' if _accelerated() else 'CPU'}; "
        f"{len(training)} photos train, {len(validation)} choose the checkpoint"
    )
    batches = Batches(training, recipe.batch_size, Augmenter(seed) if recipe.augment else None, seed)
    best = BestCheckpoint(output / "best.npz", recipe.monitor)
    history, interrupted = _fit(model, recipe, batches, Batches(validation, recipe.batch_size), best)
    try:
        final, test, measured = _best_model(recipe, best, partial(read, photos.test), validation, interrupted, say)
        provenance = Provenance(
            data=f"{data_name}, {recipe.split} split, {len(training)} photos",
            split=recipe.split,
            command=command,
            seed=seed,
            weights_sha256=weights_sha256(final),
            tools=tool_versions(),
            metrics=measured | {"epoch": best.epoch},
            recipe=asdict(recipe),
        )
        return _write(final, _model_spec(recipe, data_name, provenance), output, history, test)
    except KeyboardInterrupt as error:
        raise TrainingInterruptedError(f"interrupted again before model.keras was written: {best.kept()}") from error


def _fit(
    model: keras.Model, recipe: Recipe, training: Batches, validation: Batches, best: BestCheckpoint
) -> tuple[dict[str, list[float]], bool]:
    """History and whether Ctrl-C ended it; the best weights lie in ``best.path``."""
    compile_model(model, make_optimizer(recipe, len(training)))
    keeper = keras.callbacks.History()
    interrupted = False
    try:
        with BetweenSteps() as steps:
            model.fit(
                training, validation_data=validation, epochs=recipe.epochs, callbacks=[best, keeper, steps],
                verbose=1 if sys.stdout.isatty() else 2,
            )  # fmt: skip
    except KeyboardInterrupt:
        if best.best is None:
            raise
        interrupted = True
    except Exception as error:
        if not _out_of_memory(error):
            raise
        raise TrainingError(
            f"no memory left for batches of {recipe.batch_size} photos at {recipe.size}x{recipe.size} with "
            f"{recipe.filters} filters: lower --batch-size, --size or --filters ({best.kept()})"
        ) from error
    return {name: [float(v) for v in values] for name, values in keeper.history.items()}, interrupted


def _out_of_memory(error: Exception) -> bool:
    """Each backend has a class of its own for it, and wraps Python's: known by its name or its words."""
    text = f"{type(error).__name__} {error}".lower()
    names = ("memoryerror", "resourceexhausted", "resource_exhausted", "out of memory", "outofmemory")
    return any(name in text for name in names)


def _best_model(
    recipe: Recipe, best: BestCheckpoint, read_test: Callable[[], Labelled], validation: Labelled,
    interrupted: bool, say: Say,
) -> tuple[keras.Model, Labelled, dict[str, Any]]:  # fmt: skip
    """The best checkpoint in float32 (a mixed-precision graph would export casts), the photos that measured it
    and their figures: the test photos, or after Ctrl-C the validation photos, which need no more decoding."""
    model = build_model(recipe)
    best.restore(model)
    compile_model(model)
    if not interrupted:
        with suppress(KeyboardInterrupt):
            test = read_test()
            _say_problems(test.problems, say)
            return model, test, _figures(model, test, "test", recipe)
    say(f"interrupted: keeping the best epoch so far ({best.epoch}), measured on the validation photos only")
    return model, validation, _figures(model, validation, "validation", recipe)


def _figures(model: keras.Model, photos: Labelled, split: str, recipe: Recipe) -> dict[str, Any]:
    with BetweenSteps() as steps:
        values = model.evaluate(Batches(photos, recipe.batch_size), verbose=0, return_dict=True, callbacks=[steps])
    return {"split": split, "photos": len(photos)} | named(values, [entry.name for entry in PET_CLASSES])


def _model_spec(recipe: Recipe, data_name: str, provenance: Provenance) -> ModelSpec:
    return ModelSpec(
        name=recipe.name,
        architecture=recipe.architecture,
        license=DATA_LICENSE if data_name != "synthetic" else "Apache-2.0",
        input=InputSpec(recipe.size, recipe.size),
        output=OutputSpec(recipe.size, recipe.size),
        classes=PET_CLASSES,
        provenance=provenance,
    )


def _write(
    model: keras.Model, spec: ModelSpec, output: Path, history: dict[str, list[float]], test: Labelled
) -> Result:
    path = output / "model.keras"
    with writing(path):
        write_keras(model.save, path, spec)
    with replacing(output / "history.json") as temporary:
        temporary.write_text(json.dumps(history, indent=1), encoding="utf-8")
    return Result(path, spec, history, test, interrupted=spec.provenance.metrics["split"] != "test")


def compile_model(model: keras.Model, optimizer: keras.optimizers.Optimizer | None = None) -> None:
    """The loss and the metrics of every training and every evaluation."""
    model.compile(
        optimizer=optimizer or keras.optimizers.SGD(),  # evaluation needs one that nothing uses
        loss="sparse_categorical_crossentropy",
        metrics=metrics(len(PET_CLASSES), per_class=optimizer is None),
        # XLA's CPU convolutions take twice oneDNN's time; elsewhere Keras' own choice is right.
        jit_compile=False if keras.backend.backend() == "tensorflow" and not _accelerated() else "auto",
    )


def weights_sha256(model: keras.Model) -> str:
    """SHA-256 of all weights' names, shapes and float32 bytes, in the model's order."""
    digest = hashlib.sha256()
    for variable in model.weights:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(variable), np.float32)
        digest.update(f"{variable.path} {value.shape}".encode() + value.tobytes())
    return digest.hexdigest()


def tool_versions() -> dict[str, str]:
    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        # Its module is loaded already, and this package imports Keras alone.
        "backend": f"{backend} {getattr(sys.modules.get(backend), '__version__', '')}".rstrip(),
        "numpy": np.__version__,
    }


def _say_problems(problems: list[str], say: Say) -> None:
    if problems:
        say(f"left out {len(problems)} photos that cannot be used:")
        for problem in problems[:10]:
            say(f"  {problem}")
