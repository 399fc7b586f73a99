"""Two tiny trained networks, committed under tests/data, and the generated pictures that they were trained on.

    python -m tests.helpers.tiny

trains both again and replaces the files. Tests read the files: what a training makes of the same seed depends on the
CPU's rounding, and so would every tolerance.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import numpy.typing as npt
from keras import ops
from PIL import Image

from unet_runtime.core.artifact import write_keras
from unet_runtime.core.geometry import model_input, model_labels
from unet_runtime.core.spec import ClassSpec, InputSpec, ModelSpec, OutputSpec, Provenance
from unet_training.models.unet import build

DATA = Path(__file__).parent.parent / "data"
SOFTMAX_FILE, SIGMOID_FILE = DATA / "tiny.keras", DATA / "tiny-sigmoid.keras"

SIZE = 48
"""Height and width of the models' input, pixels."""

TRAIN, TEST = 24, 16
"""Photos of each part of the dataset: fewer than the counts asked for, so every export uses them all."""

SPEC = ModelSpec(
    name="tiny",
    architecture="unet",
    license="Apache-2.0",
    input=InputSpec(SIZE, SIZE),
    output=OutputSpec(SIZE, SIZE),
    classes=(
        ClassSpec("pet", (230, 60, 90), "foreground"),
        ClassSpec("background", (40, 60, 120), "background"),
        ClassSpec("border", (250, 200, 60), "neutral"),
    ),
    provenance=Provenance(data="ellipses", split="official", weights_sha256="0" * 64, tools={"keras": "before"}),
)

SIGMOID_SPEC = replace(SPEC, name="sigmoid", output=OutputSpec(SIZE, SIZE, activation="sigmoid"))

_PICTURES = 256
"""That the networks are trained on."""

_EPOCHS = 40


def draw(rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """A photo of a bright ellipse on dark noise, 80x60, and its trimap: 1 inside, 3 on the rim, 2 outside."""
    y, x = np.mgrid[0:60, 0:80]
    cx, cy = rng.uniform(25, 55), rng.uniform(20, 40)
    distance = np.hypot((x - cx) / rng.uniform(14, 24), (y - cy) / rng.uniform(10, 18))
    trimap = np.where(distance < 0.75, 1, np.where(distance < 1.25, 3, 2)).astype(np.uint8)
    colour = rng.uniform((170, 110, 30), (250, 180, 110))
    ground = rng.uniform((10, 40, 40), (60, 110, 120))
    photo = np.where((distance < 1)[..., np.newaxis], colour, ground) + rng.normal(0, 12, (60, 80, 3))
    return Image.fromarray(photo.clip(0, 255).astype(np.uint8)), Image.fromarray(trimap)


def write_dataset(root: Path) -> None:
    """``TRAIN`` and ``TEST`` pictures in Oxford-IIIT Pet's layout, with the official lists."""
    (root / "images").mkdir()
    (root / "annotations" / "trimaps").mkdir(parents=True)
    rng = np.random.default_rng(7)
    for part, count in (("trainval", TRAIN), ("test", TEST)):
        names = [f"{part}_{index:03}" for index in range(count)]
        for name in names:
            photo, trimap = draw(rng)
            photo.save(root / "images" / f"{name}.jpg", quality=95)
            trimap.save(root / "annotations" / "trimaps" / f"{name}.png")
        (root / "annotations" / f"{part}.txt").write_text("".join(f"{name} 1 1 1\n" for name in names))


def share_loss(truth: Any, probabilities: Any) -> Any:
    """Cross-entropy of each class's share of the sum of the probabilities, (n, h, w)."""
    clipped = ops.clip(probabilities, 1e-7, 1.0)
    share = clipped / ops.sum(clipped, axis=-1, keepdims=True)
    return -ops.sum(ops.one_hot(ops.cast(truth, "int32"), 3) * ops.log(share), axis=-1)


def pictures(count: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Photos (n, SIZE, SIZE, 3) and class ids (n, SIZE, SIZE)."""
    rng = np.random.default_rng(seed)
    photos, labels = [], []
    for _ in range(count):
        photo, trimap = draw(rng)
        photos.append(model_input(photo, SPEC.input)[0])
        labels.append(model_labels(np.asarray(trimap) - 1, SPEC.input))
    return np.stack(photos), np.stack(labels)


def train(activation: str) -> Any:
    """A U-Net that is sure of most pixels; its BatchNormalization statistics are far from 0 and 1."""
    keras.utils.set_random_seed(3)
    network = build(SIZE, SIZE, 3, filters=4, depth=2, activation=activation)
    loss = share_loss if activation == "sigmoid" else "sparse_categorical_crossentropy"
    photos, labels = pictures(_PICTURES, seed=1)
    schedule = keras.optimizers.schedules.CosineDecay(5e-3, _EPOCHS * _PICTURES // 16)
    network.compile(keras.optimizers.Adam(schedule), loss, jit_compile=False)
    network.fit(photos, labels, batch_size=16, epochs=_EPOCHS, verbose=2)
    trained = keras.models.clone_model(network)  # without the optimizer's state
    trained.set_weights(network.get_weights())
    return trained


def main() -> None:
    """Write both files."""
    for path, spec in ((SOFTMAX_FILE, SPEC), (SIGMOID_FILE, SIGMOID_SPEC)):
        write_keras(train(spec.output.activation).save, path, spec)


if __name__ == "__main__":
    main()
