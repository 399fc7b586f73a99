"""The epochs of a training: one ``fit`` for each input size, and what can end it early."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TextIO

import keras
from keras import ops

from unet_runtime.core.spec import ClassSpec
from unet_runtime.core.text import one_line
from unet_training import processes
from unet_training.build import PET_CLASSES, outline_weights
from unet_training.data.augment import Augmenter
from unet_training.data.dataset import Batches, TrainingBatches
from unet_training.data.pairs import Labelled
from unet_training.errors import TrainingError
from unet_training.fit.checkpoint import Checkpoint
from unet_training.fit.events import EventFolder, TensorBoard
from unet_training.fit.interrupt import InterruptBetweenSteps
from unet_training.fit.progress import Progress
from unet_training.recipes import Recipe

_COLLECTIVE_ERROR = "JaxRuntimeError"
"""What an exchange between processes raises under JAX, among others."""

logger = logging.getLogger(__name__)

_OUT_OF_MEMORY = ("memoryerror", "resourceexhausted", "resource_exhausted", "out of memory", "outofmemory")


def fit(
    model: keras.Model,
    recipe: Recipe,
    seed: int,
    stages: Sequence[Labelled],
    validation: Labelled,
    checkpoint: Checkpoint,
    terminal: TextIO | None = None,
    events: EventFolder | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    classes: Sequence[ClassSpec] = PET_CLASSES,
) -> bool:
    """Train a compiled model to the last epoch, from where ``checkpoint`` is; True where Ctrl-C ended it earlier.

    Args:
        model: as ``build_training_model`` makes it.
        recipe, terminal, callbacks: as ``pipeline.train``.
        seed: of order and augmentation.
        stages: the training photos at each of ``recipe.sizes``.
        validation: the photos that choose the checkpoint.
        checkpoint: holds history and best weights afterwards.
        events: where TensorBoard's files go, if anywhere.
        classes: of the data, by class id.

    Raises:
        TrainingError: a loss is no finite number, or no memory is left.
        OutputError: the checkpoint or an event file cannot be written.
        KeyboardInterrupt: Ctrl-C before the first epoch's end.
    """
    sizes = _size_per_epoch(recipe)
    progress = Progress(sizes, len(stages[-1]), len(validation), recipe.batch_size, checkpoint, terminal)
    shown: list[keras.callbacks.Callback] = [progress]
    if events is not None:
        shown.append(TensorBoard(events, validation, progress, classes))
    try:
        with closing(progress), InterruptBetweenSteps() as steps:
            if checkpoint.epochs < recipe.epochs:
                progress.write_header()
            every = [*checkpoint.callbacks(), *shown, *callbacks, steps]
            measured = Batches(validation, recipe.batch_size, processes.share)
            for size, stage, (first, end) in zip(recipe.sizes, stages, _epoch_ranges(recipe), strict=True):
                if end < checkpoint.epochs:
                    continue
                if len(recipe.sizes) > 1:
                    logger.info(f"epochs {first + 1} to {end}: photos of {size}x{size}")
                first = max(first, checkpoint.epochs)
                batches = _batches(recipe, seed, classes, stage, size, first)
                _fit_one_size(model, batches, measured, first, end, every)
    except KeyboardInterrupt:
        if not checkpoint.epoch:
            raise
        return True
    except Exception as error:
        explained = _explained(error, recipe, checkpoint)
        if explained is None:
            raise
        raise explained from error
    return False


def _batches(
    recipe: Recipe, seed: int, classes: Sequence[ClassSpec], photos: Labelled, size: int, first: int
) -> TrainingBatches:
    """Batches of pictures of ``size`` x ``size``, from epoch ``first`` on."""
    augment = None
    if recipe.augment:
        background = [index for index, entry in enumerate(classes) if entry.role == "background"]
        augment = Augmenter(seed, recipe.zoom, recipe.rotation, recipe.cut_out, recipe.negatives, background, size)
    weigh = outline_weights(recipe, classes)
    return TrainingBatches(photos, recipe.batch_size, seed, augment, first, weigh, processes.share)


def _fit_one_size(
    model: keras.Model,
    batches: TrainingBatches,
    validation: Batches,
    first: int,
    end: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Train epochs ``first`` to ``end - 1``, whose pictures have one size.

    Keras takes batches of one shape in a fit, and ends it by putting averaged weights in the place of the last ones:
    there the next size begins. It does so too where a checkpoint leaves no epoch to do.
    """
    _separate_buffers(model)
    # A step of its own for each size: given a second one, TensorFlow would trace the step for any size,
    # and Keras' bilinear upsampling needs a known one there.
    model.train_function = None  # fit makes a new one
    model.fit(
        batches,
        validation_data=validation,
        initial_epoch=first,
        epochs=end,
        callbacks=list(callbacks),
        shuffle=False,
        verbose=0,
    )


def _separate_buffers(model: keras.Model) -> None:
    """Under JAX the end of a fit leaves weight and average in one buffer, and a step takes each buffer once."""
    for variable in model.trainable_variables:
        variable.assign(ops.copy(variable))


def _epoch_ranges(recipe: Recipe) -> Iterator[tuple[int, int]]:
    """First epoch, from 0, and the one after the last, of each size: equal shares."""
    count = len(recipe.sizes)
    for number in range(count):
        yield recipe.epochs * number // count, recipe.epochs * (number + 1) // count


def _size_per_epoch(recipe: Recipe) -> list[int]:
    """Height and width of the training photos in each epoch, pixels."""
    sizes: list[int] = []
    for size, (first, end) in zip(recipe.sizes, _epoch_ranges(recipe), strict=True):
        sizes += [size] * (end - first)
    return sizes


def _explained(error: Exception, recipe: Recipe, checkpoint: Checkpoint) -> TrainingError | None:
    """What an error of Keras' means for the training; None: nobody expected it."""
    if _out_of_memory(error):
        return _no_memory(recipe, checkpoint)
    if processes.count() > 1 and type(error).__name__ == _COLLECTIVE_ERROR:
        return TrainingError(
            f"the processes of --hosts no longer reach each other, one may have ended ({one_line(error)}): start all "
            f"of them again with --resume ({checkpoint.recovery_hint()})"
        )
    return None


def _no_memory(recipe: Recipe, checkpoint: Checkpoint) -> TrainingError:
    return TrainingError(
        f"no memory left for batches of {recipe.batch_size} photos at {recipe.size}x{recipe.size} with "
        f"{recipe.filters} filters: lower --batch-size (--accumulation makes up for it), --size or --width "
        f"({checkpoint.recovery_hint()})"
    )


def _out_of_memory(error: Exception) -> bool:
    """Each backend has a class of its own for it, and wraps Python's: known by its name or its words."""
    text = f"{type(error).__name__} {error}".lower()
    return any(word in text for word in _OUT_OF_MEMORY)
