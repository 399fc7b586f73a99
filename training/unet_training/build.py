"""A recipe's network: built, compiled, started from other weights, identified by a digest."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.datasets import oxford_pets
from unet_runtime.core.digest import weights_sha256
from unet_runtime.core.spec import ClassSpec, InputSpec
from unet_training.data.outlines import OutlineWeights
from unet_training.errors import RecipeError, TrainingError
from unet_training.keras_backend import accelerated, load_model
from unet_training.losses import Objective, TrainingModel, mean_cross_entropy
from unet_training.metrics import metrics
from unet_training.models import ENCODER_PREFIX, builder
from unet_training.optimizers import PartwiseAdamW
from unet_training.recipes import Precision, Recipe

logger = logging.getLogger(__name__)

PET_CLASSES = oxford_pets.CLASSES


@dataclass(frozen=True)
class Pretrained:
    """A trained model that a training starts from or learns from."""

    model: keras.Model
    name: str
    """As in its spec."""
    classes: tuple[str, ...] = tuple(entry.name for entry in PET_CLASSES)
    """Names by class id."""


def build_model(recipe: Recipe, classes: Sequence[ClassSpec] = PET_CLASSES) -> keras.Model:
    """The recipe's network in float32, as it is saved.

    Raises:
        RecipeError: the architecture has no such size or depth.
    """
    return _build(recipe, recipe.size, len(classes))


def input_spec(recipe: Recipe, size: int) -> InputSpec:
    """Input of the recipe's network where it is trained or used at ``size``.

    Raises:
        RecipeError: the architecture has no such size or depth.
    """
    predicted = _build(recipe, size, len(PET_CLASSES)).output.shape[1]
    return InputSpec(size, size, recipe.fit, margin=(size - predicted) // 2)


def build_training_model(recipe: Recipe, precision: str, objective: Objective) -> TrainingModel:
    """The recipe's network as it is trained: under Keras dtype policy ``precision``, for photos of any size, with the
    same variables by name as ``build_model``'s."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        network = _build(recipe, None, len(objective.class_weights))
        model = TrainingModel(network.input, network.output)
    finally:
        keras.config.set_dtype_policy(before)
    model.objective = objective
    return model


def _build(recipe: Recipe, side: int | None, classes: int) -> keras.Model:
    # Averaged weights are as slow as their momentum: statistics that follow the last steps alone are of other weights.
    norm_momentum = max(recipe.norm_momentum, recipe.ema)
    settings: dict[str, Any] = {"activation": recipe.activation, "norm_momentum": norm_momentum}
    if recipe.depth is not None:
        settings["depth"] = recipe.depth
    try:
        return builder(recipe.architecture)(side, side, classes, filters=recipe.filters, **settings)
    except ValueError as error:
        raise RecipeError(f"architecture {recipe.architecture}: {error}") from error


def make_objective(
    recipe: Recipe,
    teacher: Pretrained | None,
    classes: Sequence[ClassSpec] = PET_CLASSES,
    class_weights: Sequence[float] = (),
) -> Objective:
    """The recipe's training loss; ``class_weights`` as ``class_weights.class_weights`` makes them, empty: all 1.

    Raises:
        TrainingError: the teacher does not predict the whole photo.
    """
    weights = []
    for entry, weight in zip(classes, class_weights or [1.0] * len(classes), strict=True):
        weights.append(weight * (recipe.border_weight if entry.role == "neutral" else 1.0))
    return Objective(
        weights,
        recipe.region_loss,
        recipe.region_weight,
        None if teacher is None else Teacher(teacher),
        recipe.distillation_weight,
        recipe.hard_pixels,
    )


def outline_weights(recipe: Recipe, classes: Sequence[ClassSpec] = PET_CLASSES) -> OutlineWeights | None:
    """Weights of the pixels in the recipe's training; None where they are all the same."""
    if not recipe.outline_weight:
        return None
    foreground = [index for index, entry in enumerate(classes) if entry.role == "foreground"]
    return OutlineWeights(foreground, recipe.outline_weight, recipe.outline_sigma)


def compile_model(
    model: keras.Model, optimizer: keras.optimizers.Optimizer | None = None
) -> list[keras.metrics.Metric]:
    """Set loss and metrics, which are returned; without an optimizer for an evaluation alone."""
    counted = metrics(model.output_shape[-1])
    model.compile(
        optimizer=optimizer or keras.optimizers.SGD(),  # evaluation needs one that nothing uses
        loss=mean_cross_entropy,
        metrics=counted,
        # XLA's CPU convolutions take twice oneDNN's time: https://github.com/openxla/xla/issues/18586
        jit_compile=False if keras.backend.backend() == "tensorflow" and not accelerated() else "auto",
    )
    if optimizer is not None:
        # Else TensorFlow traces the first step twice: once to find the variables that the optimizer makes in it.
        model.optimizer.build(model.trainable_variables)
    return counted


def make_optimizer(recipe: Recipe, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The recipe's optimizer with its averaging and schedule; ``steps_per_epoch`` counts batches."""
    accumulation = recipe.accumulation if recipe.accumulation > 1 else None
    shared: dict[str, Any] = {"gradient_accumulation_steps": accumulation}
    if recipe.ema:
        shared |= {"use_ema": True, "ema_momentum": recipe.ema}
    if recipe.optimizer == "rmsprop":
        return keras.optimizers.RMSprop(recipe.learning_rate, **shared)
    # Keras evaluates a schedule, and averages the weights, at every batch, whether its gradients are summed or applied.
    warmup = int(recipe.warmup_epochs * steps_per_epoch)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, recipe.epochs * steps_per_epoch - warmup),
        warmup_target=recipe.learning_rate,
        warmup_steps=warmup,
    )
    if recipe.encoder_rate != 1.0:
        return PartwiseAdamW(schedule, ENCODER_PREFIX, recipe.encoder_rate, weight_decay=recipe.weight_decay, **shared)
    return keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay, **shared)


def resolve_precision(precision: Precision) -> Precision:
    """``auto``: bfloat16, which needs no loss scaling, on an accelerator or a CPU with matrix units for it, else
    ``float32``, in which other CPUs are many times faster."""
    if precision != "auto":
        return precision
    gains = accelerated()
    with suppress(OSError):  # not Linux: nothing known of the CPU, float32 is right everywhere
        gains |= "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return "mixed_bfloat16" if gains else "float32"


def load_pretrained(path: Path) -> Pretrained:
    """A trained ``.keras`` file to start from or to learn from.

    Raises:
        ModelFileError: damaged, or not what its spec says.
    """
    artifact = read_artifact(path)
    return Pretrained(load_model(artifact), artifact.spec.name, artifact.spec.class_names)


def check_teacher(teacher: Pretrained, classes: Sequence[ClassSpec]) -> None:
    """Refuse a teacher of other classes: its output is compared class by class.

    Raises:
        TrainingError: it has other classes than the training.
    """
    expected = tuple(entry.name for entry in classes)
    if teacher.classes != expected:
        raise TrainingError(
            f"--teacher {teacher.name}: predicts {', '.join(teacher.classes)}, expected this training's classes in "
            f"their order: {', '.join(expected)}"
        )


class Teacher:
    """A frozen network at its own size, whatever the size of the photos: a large one sees more in them there.

    Raises:
        TrainingError: it does not predict the whole photo.
    """

    def __init__(self, source: Pretrained) -> None:
        model = source.model
        if model.output_shape[1:3] != model.input_shape[1:3]:
            raise TrainingError(
                f"--teacher {source.name}: predicts {model.output_shape[1:3]} of a photo of {model.input_shape[1:3]}, "
                "expected all of it"
            )
        model.trainable = False
        self.model = model

    def __call__(self, photos: Any) -> Any:
        """Photos (n, h, w, 3), values 0..255 -> probabilities (n, h, w, classes)."""
        given, own = tuple(photos.shape[1:3]), self.model.input_shape[1:3]
        if given == own:
            return self.model(photos, training=False)
        enlarged = ops.image.resize(ops.cast(photos, "float32"), own, interpolation="bilinear")
        probabilities = self.model(ops.cast(ops.round(enlarged), "uint8"), training=False)
        return ops.image.resize(probabilities, given, interpolation="bilinear")


def copy_weights(model: keras.Model, source: Pretrained, classes: Sequence[ClassSpec] = PET_CLASSES) -> None:
    """Give ``model`` the weights of another training's model of the same architecture and width; those of its head
    only where it predicts the same ``classes``.

    Raises:
        TrainingError: the weights have other names or shapes.
    """
    weights = {variable.path: variable for variable in source.model.weights}
    names = tuple(entry.name for entry in classes)
    anew: set[str] = set()
    if source.classes != names:
        anew = {variable.path for variable in _head(model).weights}
        logger.info(
            f"--weights {source.name}: all but the head, which starts anew: it predicts {', '.join(source.classes)}, "
            f"this training's classes are {', '.join(names)}"
        )
    for variable in model.weights:
        if variable.path in anew:
            continue
        found = weights.get(variable.path)
        if found is None or found.shape != variable.shape or len(weights) != len(model.weights):
            what = "has none" if found is None else f"has {tuple(found.shape)}"
            raise TrainingError(
                f"--weights {source.name}: of another architecture or width: {variable.path} is "
                f"{tuple(variable.shape)} here, the file {what} ({len(weights)} weights, expected {len(model.weights)})"
            )
        variable.assign(keras.ops.copy(found))  # JAX would share the memory, and the first step takes it


def _head(model: keras.Model) -> keras.layers.Layer:
    """The last layer with weights: its channels are the classes."""
    return [layer for layer in model.layers if layer.weights][-1]


def round_weights(model: keras.Model, bits: int) -> None:
    """Round every weight to ``bits`` significant bits, so that a compressed file of them is shorter."""
    for variable in model.weights:
        fraction, exponent = np.frexp(keras.ops.convert_to_numpy(variable))
        variable.assign(np.ldexp(np.rint(fraction * 2**bits) / 2**bits, exponent))


def model_sha256(model: keras.Model) -> str:
    """Digest of a model's weights, as its spec records it."""
    return weights_sha256((variable.path, keras.ops.convert_to_numpy(variable)) for variable in model.weights)
