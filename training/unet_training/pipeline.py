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
import PIL

from unet_runtime.core.artifact import read_artifact, write_keras
from unet_runtime.core.datasets import AUTO, RECORD, Dataset, automatic_split, open_dataset
from unet_runtime.core.datasets.classes import as_content
from unet_runtime.core.errors import OutputError, UnetRuntimeError
from unet_runtime.core.files import write_text
from unet_runtime.core.spec import ClassSpec, InputSpec, ModelSpec, OutputSpec, Provenance
from unet_runtime.io.places import Places
from unet_training import build, processes
from unet_training.class_weights import NONE as EQUAL
from unet_training.class_weights import class_weights, pixel_counts
from unet_training.data.cache import PhotoCache
from unet_training.data.crops import Crops
from unet_training.data.dataset import Batches, load, split_dataset
from unet_training.data.pairs import Labelled
from unet_training.encoder_weights import NONE, EncoderWeights, assign_encoder_weights, read_encoder_weights
from unet_training.errors import RecipeError, TrainingInterruptedError
from unet_training.files import COMMAND, writing
from unet_training.fit.checkpoint import CHECKPOINT, PREVIOUS, Checkpoint
from unet_training.fit.distribution import Distribute, check_batch, choose_devices, data_parallel, divisible
from unet_training.fit.events import EventFolder
from unet_training.fit.interrupt import InterruptBetweenSteps
from unet_training.fit.loop import fit
from unet_training.identity import Identity, identify
from unet_training.keras_backend import accelerated
from unet_training.losses import TrainingModel
from unet_training.metrics import MeanIoU, as_recorded
from unet_training.recipes import Recipe

logger = logging.getLogger(__name__)

MODEL = "model.keras"
HISTORY = "history.json"
"""Names of files in a training's folder."""

_LISTED_PROBLEMS = 10

_FEW_PHOTOS, _FEW_MEASURED = 100, 20
"""Fewer photos that train, or that choose or measure, get a warning of what cannot be known."""


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
    data: Path | Dataset,
    output: Path,
    *,
    data_name: str = "",
    name: str = "",
    license: str = "",
    data_license: str = "",
    seed: int = 1,
    command: str = "",
    cache: PhotoCache | None = None,
    weights: Path | None = None,
    teacher: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    distribute: Distribute = "none",
    terminal: TextIO | None = None,
    tensorboard: Path | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Result:
    """Train, choose the best checkpoint on the validation photos, measure it on the test photos, write it.

    Of several processes that train together (``processes.connect``) each does so, and the first one writes.

    Ctrl-C after the first epoch ends it early: the best checkpoint becomes the model, measured on validation photos.

    >>> from unet_training import PRESETS, train
    >>> result = train(PRESETS["edge"], Path("data/oxford-iiit-pet"), Path("artifacts"))  # doctest: +SKIP

    Args:
        recipe: every hyper-parameter.
        data: a dataset, or its folder.
        output: folder for ``model.keras``, ``checkpoint.npz`` and ``history.json``.
        data_name: what the spec calls the data; empty: what it is known as, or its folder's name.
        name, license, data_license: of the model and of its data, as the spec names them; empty: see ``identity``.
        seed: of weights, order and augmentation.
        command: what the spec records as the command.
        cache: keeps prepared photos, which the next training need not decode.
        weights: a ``.keras`` file of the same architecture to start from, instead of random weights; all but its head
            where it has other classes.
        teacher: a ``.keras`` file to learn from besides the truth (distillation).
        resume: go on from the checkpoint in ``output``, where there is one; with more epochs, prolong the training.
        overwrite: replace a model that is in ``output``.
        distribute: ``auto``: all devices share each batch; ``none``: one device trains.
        terminal: where a line of progress can be redrawn in place; None: there is none.
        tensorboard: folder of event files for TensorBoard, if wanted.
        callbacks: Keras' callbacks, called while it trains.

    Raises:
        TrainingError: the architecture has no such size or depth, a loss is no finite number, no memory is left, the
            devices cannot share the batches, or other models, the encoder's weights or a checkpoint do not fit.
        DatasetError, SourceError, ModelFileError: the data, or ``weights`` or ``teacher``, cannot be used.
        OutputError: ``output`` or ``tensorboard`` cannot be written, or ``output`` holds a model already.
        MissingDependencyError: ``tensorboard`` is given, and TensorBoard is not installed; or the recipe asks for
            ImageNet's weights, and their package is not.
        TrainingInterruptedError: Ctrl-C once more, before the best checkpoint became a model.
        KeyboardInterrupt: Ctrl-C before the first epoch's end.
    """
    if processes.is_first():
        check_output(output, resume=resume, overwrite=overwrite, read=tuple(filter(None, (weights, teacher))))
    keras.utils.set_random_seed(seed)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    events = None if tensorboard is None else EventFolder(tensorboard)
    recipe = replace(recipe, precision=build.resolve_precision(recipe.precision), sizes=recipe.sizes or (recipe.size,))
    pretrained = _load_pretrained(weights, teacher)
    encoder = _read_encoder_weights(recipe, weights)
    if encoder is not None:
        recipe = replace(recipe, encoder_weights=f"{encoder.name} {encoder.sha256}")
    dataset = data if isinstance(data, Dataset) else open_dataset(data)
    identity = identify(dataset, recipe, name=name, license=license, data_license=data_license, data_name=data_name)
    split = automatic_split(dataset) if recipe.split == AUTO else recipe.split
    recipe = replace(recipe, name=identity.name, split=split)
    classes = dataset.classes
    if recipe.negatives and all(entry.role != "background" for entry in classes):
        raise RecipeError(
            f"--negatives {recipe.negatives:g}: shows parts of photos that are all background, and no class is: "
            f"{', '.join(dataset.class_names)}. Give one the role background in classes.yaml"
        )
    if "teacher" in pretrained:
        build.check_teacher(pretrained["teacher"], classes)
    devices = choose_devices(distribute)
    photos = _read_photos(recipe, dataset, seed, devices, cache)
    weights_of_classes = _class_weights(recipe, photos)
    settings = _settings(recipe, dataset, pretrained, dict(zip(dataset.class_names, weights_of_classes, strict=True)))
    with data_parallel(devices):
        checkpoint = _checkpoint(output, recipe, settings | {"seed": seed}, photos)
        goes_on = _goes_on(checkpoint, recipe.epochs, resume)
        processes.agree("training", checkpoint.progress())  # before variables are set, which all of them do together
        model = _initial_model(recipe, pretrained, encoder, photos, weights_of_classes)
        if goes_on:
            checkpoint.resume(model)
        interrupted = fit(
            model, recipe, seed, photos.stages, photos.validation, checkpoint, terminal, events, callbacks, classes
        )
    processes.leave()
    try:
        final, test, measured = _best_model(recipe, checkpoint, photos, interrupted)
        metrics = measured | {"epoch": checkpoint.epoch}
        provenance = Provenance(command=command, seed=seed, metrics=metrics, recipe=settings)
        spec = _model_spec(recipe, photos, identity, final, provenance)
        if processes.is_first():
            with writing(output / MODEL):
                write_keras(final.save, output / MODEL, spec)
            write_text(output / HISTORY, json.dumps(checkpoint.history, indent=1))
    except KeyboardInterrupt as error:
        hint = checkpoint.recovery_hint()
        raise TrainingInterruptedError(f"interrupted again, no {MODEL} written: {hint}") from error
    return Result(output / MODEL, spec, checkpoint.history, test)


def _load_pretrained(weights: Path | None, teacher: Path | None) -> dict[str, build.Pretrained]:
    pretrained = {}
    for use, path in (("weights", weights), ("teacher", teacher)):
        if path is not None:
            pretrained[use] = build.load_pretrained(path)
    return pretrained


def _read_encoder_weights(recipe: Recipe, weights: Path | None) -> EncoderWeights | None:
    if recipe.encoder_weights == NONE:
        return None
    if weights is not None:
        raise RecipeError(
            f"--weights {weights.name} and --encoder-weights {recipe.encoder_weights}: both set the encoder's weights, "
            "expected one of them"
        )
    return read_encoder_weights(recipe.encoder_weights, recipe.architecture)


def check_output(output: Path, *, resume: bool, overwrite: bool, read: Sequence[Path] = ()) -> None:
    """Refuse a folder that holds the model of another training, which hours may have made, or files of others.

    Args:
        output: a training's folder.
        resume: a checkpoint in it is gone on with.
        overwrite: replace all but what is read.
        read: files that the training reads.

    Raises:
        OutputError: something must stay.
    """
    model = output / MODEL
    goes_on = resume and (output / CHECKPOINT).exists()
    if overwrite or goes_on or not model.exists():
        # A history has names of metrics alone and no stamp: it is ours where its checkpoint is.
        names = (MODEL,) if goes_on else (MODEL, HISTORY, CHECKPOINT, PREVIOUS)
        Places(read, overwrite=overwrite, command=COMMAND).check_files(output, names)
        return
    what = "no readable model"
    with suppress(UnetRuntimeError):
        spec = read_artifact(model).spec
        metrics = spec.provenance.metrics
        what = f"{spec.name}, mean IoU {metrics.get('mean_iou', 'unknown')} on {metrics.get('split', 'no')} photos"
    raise OutputError(
        f"{model}: is there already ({what}), and a new training would replace it: name another --output, go on with "
        "that training by --resume, or insist with --overwrite"
    )


def _unit(recipe: Recipe) -> str:
    return "photos" if recipe.fit != "crop" else "parts of photos"


def _class_weights(recipe: Recipe, photos: _Photos) -> tuple[float, ...]:
    names = [entry.name for entry in photos.classes]
    if recipe.class_weights == EQUAL:
        return (1.0,) * len(names)
    weights = class_weights(recipe.class_weights, names, pixel_counts(photos.stages[-1].truths, len(names)))
    shown = (f"{name} {weight:g}" for name, weight in zip(names, weights, strict=True))
    logger.info("weights of the classes: %s", ", ".join(shown))
    return weights


def _settings(
    recipe: Recipe, dataset: Dataset, models: Mapping[str, build.Pretrained], class_weights: Mapping[str, float]
) -> dict[str, Any]:
    """The recipe, what was said about the labels, and the pretrained models, by name and digest."""
    settings = asdict(recipe)
    if dataset.options.classes or dataset.options.ignore:
        settings[RECORD] = as_content(dataset.options)
    if recipe.class_weights != EQUAL:
        settings["class_weights"] = dict(class_weights)
    for use, pretrained in models.items():
        settings[use] = f"{pretrained.name} {build.model_sha256(pretrained.model)}"
    return settings


@dataclass(frozen=True)
class _Photos:
    """Decoded photos; those of the test are read when they are needed."""

    classes: tuple[ClassSpec, ...]
    """Classes of the data, by class id."""
    input: InputSpec
    """Input of the model that is kept."""
    stages: list[Labelled]
    """The training photos at each of the recipe's sizes."""
    validation: Labelled
    choosing: list[str]
    """Names of the photos that choose the checkpoint, also of those that the devices could not share."""
    read_test: Callable[[], Labelled]


def _read_photos(recipe: Recipe, data: Dataset, seed: int, devices: Sequence[str], cache: PhotoCache | None) -> _Photos:
    inputs = [build.input_spec(recipe, size) for size in recipe.sizes]
    for line in data.problem_lines():
        logger.warning(line)
    split = split_dataset(data, recipe.split, recipe.validation, seed)
    check_batch(min(recipe.batch_size, len(split.train)), devices)  # before minutes of reading
    _warn_of_few(len(split.train), len(split.validation), len(split.test))
    kept = [_kept_photos(recipe, spec) for spec in inputs]
    sizes = ", ".join(f"{spec.width}x{spec.height}" for spec in kept)
    logger.info(f"preparing {len(split.train) + len(split.validation)} photos at {sizes}")
    crops = Crops(recipe.crops, seed, is_focused=True) if recipe.fit == "crop" else None
    anywhere = crops and replace(crops, is_focused=False)
    stages = [load(split.train, spec, cache, crops) for spec in kept]
    validation = load(split.validation, inputs[-1], cache, anywhere)
    _log_problems(stages[-1].problems + validation.problems)
    read_test = partial(load, split.test, inputs[-1], cache, anywhere)
    return _Photos(data.classes, inputs[-1], stages, divisible(validation, devices), validation.names, read_test)


def _kept_photos(recipe: Recipe, spec: InputSpec) -> InputSpec:
    """How training photos for inputs of ``spec`` are prepared: larger by ``photo_scale``.

    Those that are not augmented are not larger, nor are crops, which have the photos' own scale.
    """
    if not recipe.augment or recipe.fit == "crop":
        return spec
    height, width, margin = (round(pixels * recipe.photo_scale) for pixels in (spec.height, spec.width, spec.margin))
    return replace(spec, height=height, width=width, margin=margin)


def _warn_of_few(train: int, validation: int, test: int) -> None:
    """Say what so few photos cannot tell."""
    if train < _FEW_PHOTOS:
        logger.warning(
            f"{train} photos train: enough for photos much like them, nothing is known of others; start from weights "
            "that know more (--preset few, --weights)"
        )
    for count, what in ((validation, "choose the best epoch"), (test, "measure the model")):
        if count < _FEW_MEASURED:
            logger.warning(f"{count} photos {what}: its metrics hang on each of them, and other photos may differ much")


def _initial_model(
    recipe: Recipe,
    pretrained: Mapping[str, build.Pretrained],
    encoder: EncoderWeights | None,
    photos: _Photos,
    class_weights: Sequence[float],
) -> TrainingModel:
    """The network to train, compiled, with the weights that it starts from."""
    objective = build.make_objective(recipe, pretrained.get("teacher"), photos.classes, class_weights)
    model = build.build_training_model(recipe, recipe.precision, objective)
    if "weights" in pretrained:
        build.copy_weights(model, pretrained["weights"], photos.classes)
    if encoder is not None:
        count = assign_encoder_weights(model, encoder)
        logger.info(f"the encoder's {count} variables start from the weights of {encoder.name}")
    count = len(photos.stages[-1])
    build.compile_model(model, build.make_optimizer(recipe, max(1, count // recipe.batch_size)))
    logger.info(
        f"{recipe.name}: {recipe.architecture}, {model.count_params():,} parameters, {recipe.precision}, "
        f"{keras.backend.backend()} on the {'GPU' if accelerated() else 'CPU'}; "
        f"{count} {_unit(recipe)} train, {len(photos.validation)} choose the checkpoint"
    )
    return model


def _checkpoint(output: Path, recipe: Recipe, identity: dict[str, Any], photos: _Photos) -> Checkpoint:
    names = json.dumps([photos.stages[-1].names, photos.choosing])
    digest = hashlib.sha256(names.encode()).hexdigest()
    averages = keras.callbacks.SwapEMAWeights() if recipe.ema else None
    identity = identity | {"photos": digest, "classes": [entry.name for entry in photos.classes]}
    path = output / CHECKPOINT
    return Checkpoint(path, recipe.monitor, identity, averages, _recipe_defaults(), writes=processes.is_first())


def _recipe_defaults() -> dict[str, Any]:
    defaults: dict[str, Any] = {"classes": [entry.name for entry in build.PET_CLASSES]}
    for entry in fields(Recipe):
        if entry.default is not MISSING:
            defaults[entry.name] = entry.default
    return defaults


def _goes_on(checkpoint: Checkpoint, epochs: int, resume: bool) -> bool:
    """Whether there is a training to go on with; then the checkpoint has been read."""
    if not resume:
        if checkpoint.path.exists():
            logger.warning(
                f"{checkpoint.path} is of an earlier training: after the first epoch this one's takes its place "
                "(to go on with it instead, stop and add --resume)"
            )
        return False
    if checkpoint.read():
        done = checkpoint.epochs
        if done > epochs:
            raise RecipeError(
                f"{checkpoint.path} has {done} epochs, --epochs is {epochs}: expected {done} to keep its best, more to "
                "prolong the training"
            )
        logger.info(f"going on after epoch {done} of {epochs}; the best so far is epoch {checkpoint.epoch}")
        return True
    logger.info(f"nothing to resume: {checkpoint.path} is not there; training begins")
    return False


def _best_model(
    recipe: Recipe, checkpoint: Checkpoint, photos: _Photos, interrupted: bool
) -> tuple[keras.Model, Labelled, dict[str, Any]]:
    """The best checkpoint in float32 (a mixed-precision graph would export casts), the photos that measured it and
    their metrics: the test photos, or after Ctrl-C the validation photos, which need no more decoding."""
    model = build.build_model(recipe, photos.classes)
    checkpoint.restore(model)
    build.round_weights(model, recipe.weight_bits)
    if not interrupted:
        with suppress(KeyboardInterrupt):
            test = photos.read_test()
            _log_problems(test.problems)
            return model, test, _measure(model, test, "test", recipe, photos.classes)
    logger.warning(
        f"interrupted: keeping the best epoch so far ({checkpoint.epoch}), measured on the validation photos only"
    )
    measured = _measure(model, photos.validation, "validation", recipe, photos.classes)
    return model, photos.validation, measured


def _measure(
    model: keras.Model, photos: Labelled, split: str, recipe: Recipe, classes: Sequence[ClassSpec]
) -> dict[str, Any]:
    measured = build.build_model(recipe, classes)  # a compiled model would save its compilation
    measured.set_weights(model.get_weights())
    counted = build.compile_model(measured)
    with InterruptBetweenSteps() as steps:
        values = measured.evaluate(Batches(photos, recipe.batch_size), verbose=0, return_dict=True, callbacks=[steps])
    (mean_iou,) = (metric for metric in counted if isinstance(metric, MeanIoU))
    names = [entry.name for entry in classes]
    # Not "loss", which is the mean over batches: ignored pixels leave some with fewer.
    recorded = as_recorded(values["cross_entropy"], mean_iou.matrix, names)
    for name in recorded.get("absent", ()):
        logger.warning("no %s photo has a pixel of %s, nor was it predicted: nothing is known of it", split, name)
    return {"split": split, "photos": len(photos)} | recorded


def _model_spec(
    recipe: Recipe, photos: _Photos, identity: Identity, model: keras.Model, provenance: Provenance
) -> ModelSpec:
    """Spec of the trained ``model``, whose ``provenance`` lacks data, weights and tools."""
    source = photos.input
    predicted = source.height - 2 * source.margin
    return ModelSpec(
        name=identity.name,
        architecture=recipe.architecture,
        license=identity.license,
        input=source,
        output=OutputSpec(predicted, predicted, activation=recipe.activation),
        classes=photos.classes,
        provenance=replace(
            provenance,
            data=f"{identity.data}, {recipe.split} split, {len(photos.stages[-1])} {_unit(recipe)}",
            split=recipe.split,
            weights_sha256=build.model_sha256(model),
            tools=tool_versions(),
        ),
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
        # From 13 on it resizes otherwise than before: by one level in up to 16 % of a photo's values.
        "pillow": PIL.__version__,
    }


def _log_problems(problems: Sequence[str]) -> None:
    if problems:
        shown = problems[:_LISTED_PROBLEMS]
        logger.warning("\n  ".join([f"left out {len(problems)} photos that cannot be used:", *shown]))
