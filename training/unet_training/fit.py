"""The epochs of a training: one ``fit`` for each size, and what can end it early."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

import keras
from keras import ops

from unet_training.augment import Augmenter
from unet_training.build import PET_CLASSES, outline_weights
from unet_training.checkpoint import Checkpoint
from unet_training.dataset import Batches, TrainingBatches
from unet_training.errors import TrainingError
from unet_training.events import EventFolder, TensorBoard, examples
from unet_training.interrupt import BetweenSteps
from unet_training.pairs import Labelled
from unet_training.progress import Progress
from unet_training.recipes import Recipe


def fit(
    model: keras.Model, recipe: Recipe, seed: int, stages: Sequence[Labelled], validation: Labelled,
    checkpoint: Checkpoint, say: Callable[[str], None], terminal: TextIO | None = None,
    events: EventFolder | None = None, callbacks: Sequence[keras.callbacks.Callback] = (),
) -> bool:  # fmt: skip
    """Train a compiled model to the last epoch, from where ``checkpoint`` is.

    Args:
        model: as ``build_trainee`` makes it.
        recipe, seed: of the training.
        stages: the training photos at each of ``recipe.sizes``.
        validation: the photos that choose the checkpoint.
        checkpoint: holds history and best weights afterwards.
        say, terminal: as ``Progress``.
        events: where TensorBoard's files go, if anywhere.
        callbacks: more of them.

    Returns:
        True where Ctrl-C ended it, after at least one epoch.

    Raises:
        TrainingError: a loss that is no number, or no memory left.
        OutputError: the checkpoint or an event file cannot be written.
        KeyboardInterrupt: Ctrl-C before the first epoch's end.
    """
    augment = Augmenter(seed) if recipe.augment else None
    progress = Progress(_sizes(recipe), len(stages[-1]), len(validation), recipe.batch_size, checkpoint, say, terminal)
    shown: list[keras.callbacks.Callback] = [progress]
    if events is not None:
        colors = [entry.color for entry in PET_CLASSES]
        shown.append(TensorBoard(events, examples(validation), colors, lambda: progress.photos_per_second))
    try:
        with progress, BetweenSteps() as steps:
            for stage, (first, last) in zip(stages, _epochs(recipe), strict=True):
                if last < checkpoint.epochs:
                    continue
                # Keras takes batches of one shape in a fit, and ends it by putting averaged weights in the place of
                # the last ones: there the next size begins. It does so too where a checkpoint leaves no epoch to do.
                first = max(first, checkpoint.epochs)
                # That leaves weight and average in one buffer under JAX, whose step takes each buffer once.
                for variable in model.trainable_variables:
                    variable.assign(ops.copy(variable))
                # TensorFlow's step for a second size would be one for any, and Keras enlarges bilinearly to known ones.
                model.make_train_function(force=True)
                model.fit(
                    TrainingBatches(stage, recipe.batch_size, seed, augment, first, outline_weights(recipe)),
                    validation_data=Batches(validation, recipe.batch_size), initial_epoch=first, epochs=last,
                    callbacks=[*checkpoint.callbacks(), *shown, *callbacks, steps], shuffle=False, verbose=0,
                )  # fmt: skip
    except KeyboardInterrupt:
        if not checkpoint.epoch:
            raise
        return True
    except Exception as error:
        if not _out_of_memory(error):
            raise
        raise TrainingError(
            f"no memory left for batches of {recipe.batch_size} photos at {recipe.size}x{recipe.size} with "
            f"{recipe.filters} filters: lower --batch-size (--accumulation makes up for it), --size or --width "
            f"({checkpoint.kept()})"
        ) from error
    return False


def _epochs(recipe: Recipe) -> Iterator[tuple[int, int]]:
    """First epoch, from 0, and the one after the last, of each size: equal shares."""
    count = len(recipe.sizes)
    for number in range(count):
        yield recipe.epochs * number // count, recipe.epochs * (number + 1) // count


def _sizes(recipe: Recipe) -> list[int]:
    """Of each epoch."""
    ranges = zip(recipe.sizes, _epochs(recipe), strict=True)
    return [size for size, (first, last) in ranges for _ in range(first, last)]


def _out_of_memory(error: Exception) -> bool:
    """Each backend has a class of its own for it, and wraps Python's: known by its name or its words."""
    text = f"{type(error).__name__} {error}".lower()
    names = ("memoryerror", "resourceexhausted", "resource_exhausted", "out of memory", "outofmemory")
    return any(name in text for name in names)
