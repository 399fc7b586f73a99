"""Fit a recipe to a dataset and write one float32 ``model.keras`` with its spec inside."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import keras
import numpy as np

from unet_runtime.artifact import write_keras
from unet_runtime.spec import InputSpec, ModelSpec, OutputSpec, Provenance
from unet_training.build import (
    PET_CLASSES,
    Other,
    accelerated,
    build_model,
    build_trainee,
    compile_model,
    input_spec,
    load_other,
    make_optimizer,
    objective,
    resolve_precision,
    start_from,
    weights_sha256,
)  # fmt: skip
from unet_training.cache import PhotoCache
from unet_training.checkpoint import CHECKPOINT, Checkpoint
from unet_training.dataset import Batches, load, split_dataset
from unet_training.distribution import check_batch, choose_devices, shareable, shared_by
from unet_training.encoder_weights import NONE, EncoderWeights, assign_encoder_weights, read_encoder_weights
from unet_training.errors import TrainingInterruptedError
from unet_training.events import EventFolder
from unet_training.files import replacing, writing
from unet_training.fit import fit
from unet_training.interrupt import BetweenSteps
from unet_training.losses import Trainee
from unet_training.metrics import named
from unet_training.pairs import Labelled
from unet_training.recipes import Recipe

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


def train(
    recipe: Recipe, data: Path, output: Path, *, data_name: str, seed: int, command: str, say: Say,
    cache: PhotoCache | None = None, weights: Path | None = None, teacher: Path | None = None, resume: bool = False,
    distribute: str = "none", terminal: TextIO | None = None, tensorboard: Path | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Result:  # fmt: skip
    """Train, choose the best checkpoint on the validation photos, measure it on the test photos, write it.

    Ctrl-C after the first epoch ends it early: the best checkpoint becomes the model, measured on validation photos.

    Args:
        recipe: every hyper-parameter.
        data: folder in Oxford-IIIT Pet's layout.
        output: folder for ``model.keras``, ``checkpoint.npz`` and ``history.json``.
        data_name: what the spec calls the data.
        seed: of weights, order and augmentation.
        command: what the spec records as the command.
        say: receives one line of progress at a time.
        cache: keeps prepared photos, which the next training need not decode.
        weights: a ``.keras`` file of the same architecture to start from, instead of random weights.
        teacher: a ``.keras`` file to learn from besides the truth (distillation).
        resume: go on from the checkpoint in ``output``, where there is one.
        distribute: ``auto``: all devices share each batch; ``none``: one device trains.
        terminal: where a line of progress can be redrawn in place; None: there is none.
        tensorboard: folder of event files for TensorBoard, if wanted.
        callbacks: of Keras, told of all that happens.

    Raises:
        TrainingError: a size or depth that the architecture has not, a loss that is no number, no memory left,
            batches that the devices cannot share, or other models or a checkpoint that do not fit.
        DatasetError, SourceError, ModelFileError: the data, or ``weights`` or ``teacher``, cannot be used.
        OutputError: ``output`` or ``tensorboard`` cannot be written.
        BackendError: ``tensorboard`` is given, and TensorBoard is not installed; or the package with ImageNet's weights
            is not.
        TrainingInterruptedError: Ctrl-C once more, before the best checkpoint became a model.
        KeyboardInterrupt: Ctrl-C before the first epoch's end.
    """
    keras.utils.set_random_seed(seed)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    events = None if tensorboard is None else EventFolder(tensorboard)
    recipe = replace(recipe, precision=resolve_precision(recipe.precision), sizes=recipe.sizes or (recipe.size,))
    others = {name: load_other(path) for name, path in (("weights", weights), ("teacher", teacher)) if path}
    encoder = None
    if recipe.encoder_weights != NONE and weights is None:
        encoder = read_encoder_weights(recipe.encoder_weights, recipe.architecture)
    recipe = replace(recipe, encoder_weights=NONE if encoder is None else f"{encoder.name} {encoder.sha256}")
    devices = choose_devices(distribute, say)
    photos = _photos(recipe, data, seed, devices, cache, say)
    with shared_by(devices):
        model = _trainee(recipe, others, encoder, photos, say)
        checkpoint = _checkpoint(output, recipe, others, photos, seed)
        _begin(checkpoint, model, recipe.epochs, resume, say)
        interrupted = fit(
            model, recipe, seed, photos.stages, photos.validation, checkpoint, say, terminal, events, callbacks
        )
    try:
        final, test, measured = _best_model(recipe, checkpoint, photos, interrupted, say)
        measured["epoch"] = checkpoint.epoch
        made_from = f"{data_name}, {recipe.split} split, {len(photos.stages[-1])} photos"
        provenance = _provenance(final, recipe, others, measured, data=made_from, command=command, seed=seed)
        spec = _model_spec(recipe, photos.fed, data_name, provenance)
        return _write(final, spec, output, checkpoint.history, test)
    except KeyboardInterrupt as error:
        raise TrainingInterruptedError(f"interrupted again, no model.keras written: {checkpoint.kept()}") from error


@dataclass(frozen=True)
class _Photos:
    """Decoded; those of the test are not, before they are needed."""

    fed: InputSpec
    """Of the model that is kept."""

    stages: list[Labelled]
    """The training's at each of the recipe's sizes."""
    validation: Labelled
    read_test: Callable[[], Labelled]


def _photos(
    recipe: Recipe, data: Path, seed: int, devices: Sequence[str], cache: PhotoCache | None, say: Say
) -> _Photos:
    fed = {size: input_spec(recipe, size) for size in recipe.sizes}
    split = split_dataset(data, recipe.split, recipe.validation, seed)
    check_batch(min(recipe.batch_size, len(split.train)), devices)  # before minutes of reading
    sizes = ", ".join(f"{size}x{size}" for size in recipe.sizes)
    say(f"preparing {len(split.train) + len(split.validation)} photos at {sizes}")
    read = partial(load, cache=cache)
    last = fed[recipe.size]
    stages, validation = [read(split.train, fed[size]) for size in recipe.sizes], read(split.validation, last)
    _say_problems(stages[-1].problems + validation.problems, say)
    return _Photos(last, stages, shareable(validation, devices, say), partial(read, split.test, last))


def _names_sha256(*parts: Labelled) -> str:
    """Of the photos' names in their order."""
    return hashlib.sha256(json.dumps([part.names for part in parts]).encode()).hexdigest()


def _made_of(recipe: Recipe, others: dict[str, Other]) -> dict[str, Any]:
    """The recipe and the other models, by name and digest."""
    return asdict(recipe) | {name: f"{other.name} {other.sha256}" for name, other in others.items()}


def _trainee(
    recipe: Recipe, others: dict[str, Other], encoder: EncoderWeights | None, photos: _Photos, say: Say
) -> Trainee:
    """The network to train, compiled, its weights where it starts."""
    model = build_trainee(recipe, recipe.precision, objective(recipe, others.get("teacher")))
    if "weights" in others:
        start_from(model, others["weights"])
    elif encoder is not None:
        count = assign_encoder_weights(model, encoder)
        say(f"the encoder's {count} variables start with the weights of {encoder.name}")
    train = len(photos.stages[-1])
    compile_model(model, make_optimizer(recipe, max(1, train // recipe.batch_size)))
    say(
        f"{recipe.name}: {recipe.architecture}, {model.count_params():,} parameters, {recipe.precision}, "
        f"{keras.backend.backend()} on the {'GPU' if accelerated() else 'CPU'}; "
        f"{train} photos train, {len(photos.validation)} choose the checkpoint"
    )
    return model


def _checkpoint(output: Path, recipe: Recipe, others: dict[str, Other], photos: _Photos, seed: int) -> Checkpoint:
    names = _names_sha256(photos.stages[-1], photos.validation)
    return Checkpoint(
        output / CHECKPOINT, recipe.monitor, _made_of(recipe, others) | {"seed": seed, "photos": names},
        keras.callbacks.SwapEMAWeights() if recipe.ema else None, _defaults(),
    )  # fmt: skip


def _defaults() -> dict[str, Any]:
    """Of the recipe's fields that have one."""
    found = {}
    for entry in fields(Recipe):
        if entry.default is not MISSING:
            found[entry.name] = entry.default
    return found


def _begin(checkpoint: Checkpoint, model: keras.Model, epochs: int, resume: bool, say: Say) -> None:
    """At the first epoch, or at the checkpoint's."""
    if not resume:
        if checkpoint.path.exists():
            say(
                f"{checkpoint.path} is of an earlier training: after the first epoch this one's takes its place "
                "(to go on with it instead, stop and add --resume)"
            )
    elif checkpoint.resume(model):
        say(f"going on after epoch {checkpoint.epochs} of {epochs}; the best so far is epoch {checkpoint.epoch}")
    else:
        say(f"nothing to resume: {checkpoint.path} is not there; training begins")


def _best_model(
    recipe: Recipe, checkpoint: Checkpoint, photos: _Photos, interrupted: bool, say: Say
) -> tuple[keras.Model, Labelled, dict[str, Any]]:
    """The best checkpoint in float32 (a mixed-precision graph would export casts), the photos that measured it
    and their figures: the test photos, or after Ctrl-C the validation photos, which need no more decoding."""
    model = build_model(recipe)
    checkpoint.restore(model)
    if not interrupted:
        with suppress(KeyboardInterrupt):
            test = photos.read_test()
            _say_problems(test.problems, say)
            return model, test, _figures(model, test, "test", recipe)
    say(f"interrupted: keeping the best epoch so far ({checkpoint.epoch}), measured on the validation photos only")
    return model, photos.validation, _figures(model, photos.validation, "validation", recipe)


def _figures(model: keras.Model, photos: Labelled, split: str, recipe: Recipe) -> dict[str, Any]:
    measured = build_model(recipe)  # a compiled model would save its compilation
    measured.set_weights(model.get_weights())
    compile_model(measured)
    with BetweenSteps() as steps:
        values = measured.evaluate(Batches(photos, recipe.batch_size), verbose=0, return_dict=True, callbacks=[steps])
    return {"split": split, "photos": len(photos)} | named(values, [entry.name for entry in PET_CLASSES])


def _provenance(
    model: keras.Model, recipe: Recipe, others: dict[str, Other], measured: dict[str, Any], **told: Any
) -> Provenance:
    return Provenance(
        split=recipe.split,
        weights_sha256=weights_sha256(model),
        tools=tool_versions(),
        metrics=measured,
        recipe=_made_of(recipe, others),
        **told,
    )


def _model_spec(recipe: Recipe, fed: InputSpec, data_name: str, provenance: Provenance) -> ModelSpec:
    answer = fed.height - 2 * fed.margin
    return ModelSpec(
        name=recipe.name,
        architecture=recipe.architecture,
        license=DATA_LICENSE if data_name != "synthetic" else "Apache-2.0",
        input=fed,
        output=OutputSpec(answer, answer, activation=recipe.activation),
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
