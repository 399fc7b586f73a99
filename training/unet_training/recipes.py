"""Recipes: every hyper-parameter of a training, in one frozen object that travels with the model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """A training, but for its data and seed."""

    name: str
    """Name of the model it makes."""
    architecture: str
    """Of ``models.ARCHITECTURES``."""
    filters: int
    """Filters of the first stage."""
    size: int
    """Height and width of the input, pixels."""
    split: str
    """``official``, ``article`` or ``random:SEED``, as ``unet_runtime.labelled.read_split``."""
    validation: int
    """Photos of trainval that choose the checkpoint (not of the article's split, which has none to spare)."""
    batch_size: int
    epochs: int
    optimizer: str
    """``rmsprop``, or ``adamw`` with linear warm-up and cosine decay to zero."""
    learning_rate: float
    """Peak, after warm-up."""
    weight_decay: float
    warmup_epochs: float
    augment: bool
    monitor: str
    """What chooses the checkpoint: ``val_loss`` (lowest) or ``val_mean_iou`` (highest)."""
    precision: str
    """Keras dtype policy while training; the saved model is float32 always."""
    depth: int | None = None
    """Stages above the bridge; None: the architecture's own number."""
    norm_momentum: float = 0.99
    """Of BatchNormalization's moving averages, which take about ``5 / (1 - norm_momentum)`` steps to forget
    their initial values. 0.99 is Keras' default; a training of few steps needs less."""
    activation: str = "softmax"
    """Of the head: ``softmax``, or the article's ``sigmoid``."""
    region_loss: str = "none"
    """Added to the cross-entropy: ``dice`` or ``lovasz``, or ``none``."""
    region_weight: float = 1.0
    """Of the region loss, the cross-entropy having 1."""
    border_weight: float = 1.0
    """Of a border pixel in the cross-entropy, the other classes' having 1."""
    outline_weight: float = 0.0
    """Added to a pixel's weight in the cross-entropy on the outlines of objects, as in the U-Net's paper, where it is
    10; 0: nothing is."""
    outline_sigma: float = 5.0
    """Pixels over which that fades; the paper's."""
    encoder_weights: str = "none"
    """What a pretrained encoder starts with: ``imagenet``, a file, or ``none``; in what a model says of its training,
    the name and the file's SHA-256."""
    encoder_rate: float = 1.0
    """Of the learning rate: a pretrained encoder's."""
    distillation_weight: float = 1.0
    """Of the distance from the teacher's probabilities, where there is a teacher."""
    ema: float = 0.0
    """Momentum of the weights' moving average, which is what is validated and kept; 0: the weights themselves."""
    accumulation: int = 1
    """Steps whose gradients are summed before the weights move: as a batch that many times as large."""
    sizes: tuple[int, ...] = ()
    """Progressive training: pixels of the input in equal shares of the epochs, the last being ``size``;
    empty: ``size`` throughout."""


PRESETS = {
    # The article's model and recipe to the letter; Keras' RMSprop at its default learning rate.
    "article": Recipe(
        name="pets-article", architecture="unet", filters=64, size=160, split="article", validation=1000,
        batch_size=8, epochs=15, optimizer="rmsprop", learning_rate=1e-3, weight_decay=0.0, warmup_epochs=0,
        augment=False, monitor="val_loss", precision="float32",
    ),
    # The same architecture for a device: 1.9 M parameters, trained for accuracy.
    "edge": Recipe(
        name="pets-edge", architecture="unet", filters=16, size=160, split="official", validation=200,
        batch_size=16, epochs=20, optimizer="adamw", learning_rate=2e-3, weight_decay=1e-2, warmup_epochs=1,
        augment=True, monitor="val_mean_iou", precision="auto",
    ),
    # For half the time a photo, at a little of the accuracy: see models/edge_fast.py.
    "edge-fast": Recipe(
        name="pets-edge-fast", architecture="edge-fast", filters=24, size=160, split="official", validation=200,
        batch_size=16, epochs=20, optimizer="adamw", learning_rate=2e-3, weight_decay=1e-2, warmup_epochs=1,
        augment=True, monitor="val_mean_iou", precision="auto",
    ),
    # For trying the way and for tests: small enough for two CPU cores and generated pictures.
    "demo": Recipe(
        name="demo", architecture="unet", filters=8, size=96, split="official", validation=32,
        batch_size=8, epochs=16, optimizer="adamw", learning_rate=3e-3, weight_decay=1e-2, warmup_epochs=1,
        augment=False, monitor="val_mean_iou", precision="float32", norm_momentum=0.9,
    ),
}  # fmt: skip
