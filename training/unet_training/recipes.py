"""Recipes: every hyper-parameter of a training, in one frozen object that travels with the model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from unet_runtime.core.spec import Fit

Monitor = Literal["val_loss", "val_mean_iou"]
Optimizer = Literal["rmsprop", "adamw"]
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
RegionLoss = Literal["none", "dice", "lovasz"]


def _option(default: Any, group: str, explanation: str, *, name: str = "", **limits: Any) -> Any:
    """A field that the command line has an option for; ``cli.options`` makes it.

    Args:
        default: the preset ``unet-small``'s.
        group: title of the options' group in ``--help``.
        explanation: what it is, for ``--help`` too.
        name: of the option, where it is not the field's.
        limits: of a number, which is at least 0, as ``click.FloatRange`` takes them.
    """
    metadata = {"group": group, "explanation": explanation, "option": name, "limits": limits}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Recipe:
    """Every setting of a training but its data and seed. The defaults are those of the preset
    ``unet-small``."""

    name: str = "pets-unet-small"
    """Name of the model it makes."""
    split: str = _option("auto", "Data", "Which photos train and which are kept for the test.")
    """As ``unet_runtime.core.datasets.splits`` has it; ``auto``: the data's own parts, or else a random split."""
    validation: int = 200
    """Photos of trainval that choose the checkpoint (the article's split has none to spare and ignores it)."""
    architecture: str = _option("unet", "Network", "Architecture of the network.")
    filters: int = _option(16, "Network", "Filters of the first stage; each below has more.", name="width")
    depth: int | None = _option(None, "Network", "Stages above the bridge.")
    encoder_weights: str = _option(
        "none", "Network", "Weights that the encoder of lite starts from; a PyTorch or .keras file's."
    )
    """ImageNet's, a PyTorch or ``.keras`` file's, or none (random). A model's spec has the file's name and SHA-256."""
    encoder_rate: float = _option(
        1.0, "Network", "Learning rate of that encoder, as a share of --learning-rate; 0: its kernels stay.", max=1
    )
    size: int = _option(160, "Network", "Input height and width, pixels.")
    sizes: tuple[int, ...] = _option(
        (), "Network", "Progressive training: in equal shares of the epochs, ending with --size."
    )
    fit: Fit = _option("stretch", "Network", "How photos come to --size; crop: parts of them, at their own scale.")  # noqa: RUF009
    """As ``InputSpec.fit``. ``crop`` is for large photos of small things: parts of each photo train, at its own scale,
    and the runtime covers a photo with tiles."""
    crops: int = _option(8, "Network", "Parts of each photo, with --fit crop.")
    activation: Literal["softmax", "sigmoid"] = _option("softmax", "Network", "Activation of the head.")
    norm_momentum: float = 0.99
    """Momentum of BatchNormalization's moving averages, which take about ``5 / (1 - norm_momentum)`` steps to forget
    their initial values. 0.99 is Keras' default; a training of few steps needs less."""
    epochs: int = _option(20, "Training", "Passes over the training photos.")
    batch_size: int = _option(16, "Training", "Photos per step.")
    accumulation: int = _option(1, "Training", "Steps whose gradients are summed into one.")
    augment: bool = _option(True, "Training", "Show photos flipped, scaled, shifted, in other colours.")
    photo_scale: float = _option(
        1.0,
        "Training",
        "Size at which photos are kept for augmentation, as a multiple of --size.",
        min=1,
        max=4,
    )
    """Above 1, enlarged parts of a photo are as sharp as the whole photos that the model meets in use."""
    zoom: float = _option(
        0.6, "Training", "Smallest share of its sides that an augmented photo shows.", min_open=True, max=1
    )
    rotation: float = _option(0.0, "Training", "Largest angle that an augmented photo is turned by, degrees.", max=180)
    cut_out: float = _option(
        0.0, "Training", "Largest share of its sides that is cut out of an augmented photo.", max=1, max_open=True
    )
    negatives: float = _option(
        0.0, "Training", "Share of augmented photos that show a part without an object, all background.", max=1
    )
    """What is no object at all is background too: without such pictures, one object a photo is what a model learns."""
    optimizer: Optimizer = "adamw"
    """``rmsprop``, or ``adamw`` with linear warm-up and cosine decay to zero."""
    learning_rate: float = _option(2e-3, "Training", "Learning rate at its peak.", min_open=True)
    weight_decay: float = 1e-2
    warmup_epochs: float = 1
    ema: float = _option(0.0, "Training", "Momentum of averaged weights; 0: no averaging.", max=1, max_open=True)
    """BatchNormalization's averages take it too where it is larger than ``norm_momentum``: see ``build``."""
    monitor: Monitor = "val_mean_iou"
    """Metric that chooses the checkpoint: ``val_loss`` (lowest) or ``val_mean_iou`` (highest)."""
    precision: Precision = _option("auto", "Training", "Precision while training; the saved model is float32.")  # noqa: RUF009
    weight_bits: int = _option(
        24, "Training", "Significant bits of the saved weights; 11, as float16's, halve the file."
    )
    """24 are float32's own. Fewer cost accuracy, which the metrics in the spec count."""
    class_weights: str = _option("none", "Loss", "Weights of classes: balanced by their pixels, or a JSON file's.")
    """``none``, ``balanced``, or a file: see ``class_weights.class_weights``. A model's spec has the numbers."""
    region_loss: RegionLoss = _option("none", "Loss", "Loss added to the cross-entropy.")  # noqa: RUF009
    hard_pixels: float = _option(
        1.0, "Loss", "Share of pixels, those of the largest loss, that the cross-entropy counts.", min_open=True, max=1
    )
    region_weight: float = _option(1.0, "Loss", "Weight of the region loss, the cross-entropy having 1.")
    border_weight: float = _option(1.0, "Loss", "Weight of pixels of neutral classes (the border).", min_open=True)
    outline_weight: float = _option(0.0, "Loss", "Weight added to pixels between outlines (U-Net's paper: 10).")
    outline_sigma: float = _option(5.0, "Loss", "Pixels over which that weight fades.", min_open=True)
    distillation_weight: float = _option(1.0, "Loss", "Weight of the distance from --teacher's output.")


_UNET_SMALL = Recipe()
"""The article's architecture from scratch, small enough for a device: 1.9 M parameters."""

_EDGE = replace(
    _UNET_SMALL,
    name="pets-edge",
    architecture="lite",
    filters=24,
    encoder_weights="imagenet",
    encoder_rate=0.3,
    epochs=12,
    photo_scale=1.5,
    learning_rate=1e-3,
    region_loss="dice",
)
"""A pretrained encoder made for int8: more accurate than ``unet-small`` in half its time."""

PRESETS = {
    # The article's model and recipe to the letter; Keras' RMSprop at its default learning rate.
    "article": Recipe(
        name="pets-article",
        split="article",
        validation=1000,
        filters=64,
        epochs=15,
        batch_size=8,
        augment=False,
        optimizer="rmsprop",
        learning_rate=1e-3,
        weight_decay=0.0,
        warmup_epochs=0,
        monitor="val_loss",
        precision="float32",
    ),
    "edge": _EDGE,
    # The same network where 10 ms a photo do not matter: outlines at 2.5 times as many pixels.
    "accurate": replace(_EDGE, name="pets-accurate", size=256),
    "unet-small": _UNET_SMALL,
    # Half the time of unet-small, at a little of its accuracy: see models/edge_fast.py.
    "edge-fast": replace(_UNET_SMALL, name="pets-edge-fast", architecture="edge-fast", filters=24),
    # Twenty to a few hundred photos of one's own: what ImageNet taught the encoder is most of what the model knows.
    "few": replace(
        _EDGE,
        name="pets-few",
        encoder_rate=0.1,
        size=128,
        norm_momentum=0.9,
        epochs=30,
        batch_size=4,
        learning_rate=2e-3,
    ),
    # To try it out, and for tests: small enough for two CPU cores and generated pictures.
    "demo": Recipe(
        name="demo",
        validation=32,
        filters=8,
        size=96,
        norm_momentum=0.9,
        epochs=8,
        batch_size=8,
        augment=False,
        learning_rate=3e-3,
        precision="float32",
    ),
}
