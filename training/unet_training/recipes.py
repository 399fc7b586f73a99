"""Recipes: every hyper-parameter of a training, in one frozen object that travels with the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from unet_runtime.core.spec import Activation

Monitor = Literal["val_loss", "val_mean_iou"]
Optimizer = Literal["rmsprop", "adamw"]
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
RegionLoss = Literal["none", "dice", "lovasz"]


@dataclass(frozen=True)
class Recipe:
    """Every setting of a training but its data and seed."""

    name: str
    """Name of the model it makes."""
    architecture: str
    """Name in ``models.ARCHITECTURES``."""
    filters: int
    """Filters of the first stage."""
    size: int
    """Height and width of the input, pixels."""
    split: str
    """``official``, ``article`` or ``random:SEED``, as ``unet_runtime.core.datasets.oxford_pets.read_split``."""
    validation: int
    """Photos of trainval that choose the checkpoint (the article's split has none to spare and ignores it)."""
    batch_size: int
    epochs: int
    optimizer: Optimizer
    """``rmsprop``, or ``adamw`` with linear warm-up and cosine decay to zero."""
    learning_rate: float
    """Peak, after warm-up."""
    weight_decay: float
    warmup_epochs: float
    augment: bool
    monitor: Monitor
    """Metric that chooses the checkpoint: ``val_loss`` (lowest) or ``val_mean_iou`` (highest)."""
    precision: Precision
    """Keras dtype policy while training; the saved model is float32 always."""
    depth: int | None = None
    """Stages above the bridge; None: the architecture's own number."""
    norm_momentum: float = 0.99
    """Momentum of BatchNormalization's moving averages, which take about ``5 / (1 - norm_momentum)`` steps to forget
    their initial values. 0.99 is Keras' default; a training of few steps needs less."""
    activation: Activation = "softmax"
    """Activation of the head: ``softmax``, or the article's ``sigmoid``."""
    region_loss: RegionLoss = "none"
    """Loss added to the cross-entropy: ``dice``, ``lovasz`` or ``none``."""
    region_weight: float = 1.0
    """Weight of the region loss, the cross-entropy having 1."""
    border_weight: float = 1.0
    """Weight of a border pixel in the cross-entropy, the other classes' having 1."""
    outline_weight: float = 0.0
    """Weight added to pixels on the outlines of objects in the cross-entropy, 10 in the U-Net's paper; 0: none."""
    outline_sigma: float = 5.0
    """Pixels over which that weight fades; the paper's."""
    encoder_weights: str = "none"
    """Weights that the encoder starts from: ``imagenet``, a file, or ``none`` (random). A model's spec names them with
    the file's SHA-256."""
    encoder_rate: float = 1.0
    """Learning rate of that encoder, as a share of ``learning_rate``."""
    distillation_weight: float = 1.0
    """Weight of the divergence from the teacher's probabilities, where there is a teacher."""
    ema: float = 0.0
    """Momentum of the weights' moving average, which is validated and kept; 0: the weights themselves are."""
    accumulation: int = 1
    """Steps whose gradients are summed before the weights move: as a batch that many times as large."""
    sizes: tuple[int, ...] = ()
    """Progressive training: pixels of the input in equal shares of the epochs, the last being ``size``;
    empty: ``size`` throughout."""


_ARTICLE = Recipe(
    name="pets-article",
    architecture="unet",
    filters=64,
    size=160,
    split="article",
    validation=1000,
    batch_size=8,
    epochs=15,
    optimizer="rmsprop",
    learning_rate=1e-3,
    weight_decay=0.0,
    warmup_epochs=0,
    augment=False,
    monitor="val_loss",
    precision="float32",
)
"""The article's model and recipe to the letter; Keras' RMSprop at its default learning rate."""

_EDGE = Recipe(
    name="pets-edge",
    architecture="unet",
    filters=16,
    size=160,
    split="official",
    validation=200,
    batch_size=16,
    epochs=20,
    optimizer="adamw",
    learning_rate=2e-3,
    weight_decay=1e-2,
    warmup_epochs=1,
    augment=True,
    monitor="val_mean_iou",
    precision="auto",
)
"""The same architecture for a device: 1.9 M parameters, trained for accuracy."""

PRESETS = {
    "article": _ARTICLE,
    "edge": _EDGE,
    # Half the time per photo, at a little of the accuracy: see models/edge_fast.py.
    "edge-fast": replace(_EDGE, name="pets-edge-fast", architecture="edge-fast", filters=24),
    # To try it out, and for tests: small enough for two CPU cores and generated pictures.
    "demo": replace(
        _EDGE,
        name="demo",
        filters=8,
        size=96,
        validation=32,
        batch_size=8,
        epochs=16,
        learning_rate=3e-3,
        augment=False,
        precision="float32",
        norm_momentum=0.9,
    ),
}
