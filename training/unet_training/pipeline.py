"""The whole way of a training: fit a recipe to a dataset and write one float32 ``model.keras`` with its spec inside."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import keras
import numpy as np

from unet_runtime.core.artifact import write_keras
from unet_runtime.core.datasets import Dataset, open_dataset
from unet_runtime.core.files import write_text
from unet_runtime.core.spec import InputSpec, ModelSpec, OutputSpec, Provenance
from unet_training import build
from unet_training.data.cache import PhotoCache
from unet_training.data.dataset import Batches, load, split_dataset
from unet_training.data.pairs import Labelled
from unet_training.encoder_weights import NONE, EncoderWeights, assign_encoder_weights, read_encoder_weights
from unet_training.errors import RecipeError, TrainingInterruptedError
from unet_training.files import writing
from unet_training.fit.checkpoint import CHECKPOINT, Checkpoint
from unet_training.fit.distribution import Distribute, check_batch, choose_devices, data_parallel, divisible
from unet_training.fit.events import EventFolder
from unet_training.fit.interrupt import InterruptBetweenSteps
from unet_training.fit.loop import fit
from unet_training.keras_backend import accelerated
from unet_training.losses import TrainingModel
from unet_training.metrics import as_recorded
from unet_training.recipes import Recipe

logger = logging.getLogger(__name__)

MODEL = "model.keras"
HISTORY = "history.json"
"""Names of files in a training's folder."""

DATA_LICENSE = "Apache-2.0 (code); weights trained on Oxford-IIIT Pet, CC BY-SA 4.0, for research purposes"

_LISTED_PROBLEMS = 10


@dataclass(frozen=True)
class Result:
    """What a training made."""

    model: Path
    spec: ModelSpec
    history: dict[str, list[float]] = field(repr=False)
    """Keras' history: one value per epoch for each name."""
    test: Labelled
    """The photos that the model was measured on."""

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the training early: then validation photos measured the model."""
        return bool(self.spec.provenance.metrics["split"] != "test")


def train(
    recipe: Recipe,
    data: Path,
    output: Path,
    *,
    data_name: str = "Oxford-IIIT Pet",
    seed: int = 1,
    command: str = "",
    cache: PhotoCache | None = None,
    weights: Path | None = None,
    teacher: Path | None = None,
    resume: bool = False,
    distribute: Distribute = "none",
    terminal: TextIO | None = None,
    tensorboard: Path | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Result:
    """Train, choose the best checkpoint on the validation photos, measure it on the test photos, write it.

    Ctrl-C after the first epoch ends it early: the best checkpoint becomes the model, measured on validation photos.

    >>> from unet_training import PRESETS, train
    >>> result = train(PRESETS["edge"], Path("data/oxford-iiit-pet"), Path("artifacts"))  # doctest: +SKIP

    Args:
        recipe: every hyper-parameter.
        data: folder in Oxford-IIIT Pet's layout.
        output: folder for ``model.keras``, ``checkpoint.npz`` and ``history.json``.
        data_name: what the spec calls the data.
        seed: of weights, order and augmentation.
        command: what the spec records as the command.
        cache: keeps prepared photos, which the next training need not decode.
        weights: a ``.keras`` file of the same architecture to start from, instead of random weights.
        teacher: a ``.keras`` file to learn from besides the truth (distillation).
        resume: go on from the checkpoint in ``output``, where there is one.
        distribute: ``auto``: all devices share each batch; ``none``: one device trains.
        terminal: where a line of progress can be redrawn in place; None: there is none.
        tensorboard: folder of event files for TensorBoard, if wanted.
        callbacks: Keras' callbacks, called while it trains.

    Raises:
        TrainingError: the architecture has no such size or depth, a loss is no finite number, no memory is left, the
            devices cannot share the batches, or other models, the encoder's weights or a checkpoint do not fit.
        DatasetError, SourceError, ModelFileError: the data, or ``weights`` or ``teacher``, cannot be used.
        OutputError: ``output`` or ``tensorboard`` cannot be written.
        MissingDependencyError: ``tensorboard`` is given, and TensorBoard is not installed; or the recipe asks for
            ImageNet's weights, and their package is not.
        TrainingInterruptedError: Ctrl-C once more, before the best checkpoint became a model.
        KeyboardInterrupt: Ctrl-C before the first epoch's end.
    """
    keras.utils.set_random_seed(seed)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    events = None if tensorboard is None else EventFolder(tensorboard)
    recipe = replace(recipe, precision=build.resolve_precision(recipe.precision), sizes=recipe.sizes or (recipe.size,))
    pretrained: dict[str, build.Pretrained] = {}
    for use, path in (("weights", weights), ("teacher", teacher)):
        if path is not None:
            pretrained[use] = build.load_pretrained(path)
    encoder = _read_encoder_weights(recipe, weights)
    if encoder is not None:
        recipe = replace(recipe, encoder_weights=f"{encoder.name} {encoder.sha256}")
    settings = _settings(recipe, pretrained)
    devices = choose_devices(distribute)
    photos = _read_photos(recipe, open_dataset(data), seed, devices, cache)
    with data_parallel(devices):
        model = _initial_model(recipe, pretrained, encoder, photos)
        checkpoint = _checkpoint(output, recipe, settings | {"seed": seed}, photos)
        _start_or_resume(checkpoint, model, recipe.epochs, resume)
        interrupted = fit(
            model, recipe, seed, photos.stages, photos.validation, checkpoint, terminal, events, callbacks
        )
    try:
        final, test, measured = _best_model(recipe, checkpoint, photos, interrupted)
        provenance = Provenance(
            data=f"{data_name}, {recipe.split} split, {len(photos.stages[-1])} photos",
            split=recipe.split,
            command=command,
            seed=seed,
            weights_sha256=build.model_sha256(final),
            tools=tool_versions(),
            metrics=measured | {"epoch": checkpoint.epoch},
            recipe=settings,
        )
        spec = _model_spec(recipe, photos.input, data_name, provenance)
        with writing(output / MODEL):
            write_keras(final.save, output / MODEL, spec)
        write_text(output / HISTORY, json.dumps(checkpoint.history, indent=1))
    except KeyboardInterrupt as error:
        hint = checkpoint.recovery_hint()
        raise TrainingInterruptedError(f"interrupted again, no {MODEL} written: {hint}") from error
    return Result(output / MODEL, spec, checkpoint.history, test)


def _read_encoder_weights(recipe: Recipe, weights: Path | None) -> EncoderWeights | None:
    if recipe.encoder_weights == NONE:
        return None
    if weights is not None:
        raise RecipeError(
            f"--weights {weights.name} and --encoder-weights {recipe.encoder_weights}: both set the encoder's weights, "
            "expected one of them"
        )
    return read_encoder_weights(recipe.encoder_weights, recipe.architecture)


def _settings(recipe: Recipe, models: Mapping[str, build.Pretrained]) -> dict[str, Any]:
    """The recipe and the pretrained models, by name and digest."""
    settings = asdict(recipe)
    for use, pretrained in models.items():
        settings[use] = f"{pretrained.name} {build.model_sha256(pretrained.model)}"
    return settings


@dataclass(frozen=True)
class _Photos:
    """Decoded photos; those of the test are read when they are needed."""

    input: InputSpec
    """Input of the model that is kept."""
    stages: list[Labelled]
    """The training photos at each of the recipe's sizes."""
    validation: Labelled
    read_test: Callable[[], Labelled]


def _read_photos(recipe: Recipe, data: Dataset, seed: int, devices: Sequence[str], cache: PhotoCache | None) -> _Photos:
    inputs = [build.input_spec(recipe, size) for size in recipe.sizes]
    split = split_dataset(data, recipe.split, recipe.validation, seed)
    check_batch(min(recipe.batch_size, len(split.train)), devices)  # before minutes of reading
    sizes = ", ".join(f"{size}x{size}" for size in recipe.sizes)
    logger.info(f"preparing {len(split.train) + len(split.validation)} photos at {sizes}")
    stages = [load(split.train, spec, cache) for spec in inputs]
    validation = load(split.validation, inputs[-1], cache)
    _log_problems(stages[-1].problems + validation.problems)
    return _Photos(inputs[-1], stages, divisible(validation, devices), partial(load, split.test, inputs[-1], cache))


def _initial_model(
    recipe: Recipe, pretrained: Mapping[str, build.Pretrained], encoder: EncoderWeights | None, photos: _Photos
) -> TrainingModel:
    """The network to train, compiled, with the weights that it starts from."""
    model = build.build_training_model(
        recipe, recipe.precision, build.make_objective(recipe, pretrained.get("teacher"))
    )
    if "weights" in pretrained:
        build.copy_weights(model, pretrained["weights"])
    if encoder is not None:
        count = assign_encoder_weights(model, encoder)
        logger.info(f"the encoder's {count} variables start from the weights of {encoder.name}")
    count = len(photos.stages[-1])
    build.compile_model(model, build.make_optimizer(recipe, max(1, count // recipe.batch_size)))
    logger.info(
        f"{recipe.name}: {recipe.architecture}, {model.count_params():,} parameters, {recipe.precision}, "
        f"{keras.backend.backend()} on the {'GPU' if accelerated() else 'CPU'}; "
        f"{count} photos train, {len(photos.validation)} choose the checkpoint"
    )
    return model


def _checkpoint(output: Path, recipe: Recipe, identity: dict[str, Any], photos: _Photos) -> Checkpoint:
    names = json.dumps([photos.stages[-1].names, photos.validation.names])
    digest = hashlib.sha256(names.encode()).hexdigest()
    averages = keras.callbacks.SwapEMAWeights() if recipe.ema else None
    return Checkpoint(output / CHECKPOINT, recipe.monitor, identity | {"photos": digest}, averages, _recipe_defaults())


def _recipe_defaults() -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    for entry in fields(Recipe):
        if entry.default is not MISSING:
            defaults[entry.name] = entry.default
    return defaults


def _start_or_resume(checkpoint: Checkpoint, model: keras.Model, epochs: int, resume: bool) -> None:
    if not resume:
        if checkpoint.path.exists():
            logger.warning(
                f"{checkpoint.path} is of an earlier training: after the first epoch this one's takes its place "
                "(to go on with it instead, stop and add --resume)"
            )
    elif checkpoint.resume(model):
        done = checkpoint.epochs
        logger.info(f"going on after epoch {done} of {epochs}; the best so far is epoch {checkpoint.epoch}")
    else:
        logger.info(f"nothing to resume: {checkpoint.path} is not there; training begins")


def _best_model(
    recipe: Recipe, checkpoint: Checkpoint, photos: _Photos, interrupted: bool
) -> tuple[keras.Model, Labelled, dict[str, Any]]:
    """The best checkpoint in float32 (a mixed-precision graph would export casts), the photos that measured it and
    their metrics: the test photos, or after Ctrl-C the validation photos, which need no more decoding."""
    model = build.build_model(recipe)
    checkpoint.restore(model)
    if not interrupted:
        with suppress(KeyboardInterrupt):
            test = photos.read_test()
            _log_problems(test.problems)
            return model, test, _measure(model, test, "test", recipe)
    logger.warning(
        f"interrupted: keeping the best epoch so far ({checkpoint.epoch}), measured on the validation photos only"
    )
    return model, photos.validation, _measure(model, photos.validation, "validation", recipe)


def _measure(model: keras.Model, photos: Labelled, split: str, recipe: Recipe) -> dict[str, Any]:
    measured = build.build_model(recipe)  # a compiled model would save its compilation
    measured.set_weights(model.get_weights())
    build.compile_model(measured)
    with InterruptBetweenSteps() as steps:
        values = measured.evaluate(Batches(photos, recipe.batch_size), verbose=0, return_dict=True, callbacks=[steps])
    return {"split": split, "photos": len(photos)} | as_recorded(values, [entry.name for entry in build.PET_CLASSES])


def _model_spec(recipe: Recipe, source: InputSpec, data_name: str, provenance: Provenance) -> ModelSpec:
    predicted = source.height - 2 * source.margin
    return ModelSpec(
        name=recipe.name,
        architecture=recipe.architecture,
        license=DATA_LICENSE if data_name != "synthetic" else "Apache-2.0",
        input=source,
        output=OutputSpec(predicted, predicted, activation=recipe.activation),
        classes=build.PET_CLASSES,
        provenance=provenance,
    )


def tool_versions() -> dict[str, str]:
    """Versions of what computed a training, as the spec records them."""
    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        # Its module is loaded already, and this package imports Keras alone.
        "backend": f"{backend} {getattr(sys.modules.get(backend), '__version__', '')}".rstrip(),
        "numpy": np.__version__,
    }


def _log_problems(problems: Sequence[str]) -> None:
    if problems:
        shown = problems[:_LISTED_PROBLEMS]
        logger.warning("\n  ".join([f"left out {len(problems)} photos that cannot be used:", *shown]))
