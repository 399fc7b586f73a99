"""A small model trained on generated pictures, its dataset in Oxford-IIIT Pet's layout, and one export of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from unet_export.gate.gate import ParityResult
from unet_export.photos import PhotoSource
from unet_export.pipeline import ExportOptions, export_model
from unet_runtime.core.artifact import write_keras
from unet_runtime.core.datasets.oxford_pets import open_trimap, read_split
from unet_runtime.core.geometry import model_input, model_labels
from unet_runtime.core.photo import open_photo
from unet_runtime.core.spec import ClassSpec, InputSpec, ModelSpec, OutputSpec, Provenance
from unet_training.models.unet import build

SIZE = 48
"""Height and width of the model's input, pixels."""

FORMATS = ("saved-model", "onnx", "onnx-int8", "tflite-int8")
"""Of the session's export; test_pipeline.py makes all of them once."""

ONNX, TFLITE = f"tiny-{SIZE}.float32.onnx", f"tiny-{SIZE}.int8.tflite"

TRAIN, TEST = 24, 16
"""Photos of each part: fewer than the counts asked for, so every export uses them all."""

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


@dataclass(frozen=True)
class Export:
    """A finished export and what went into it."""

    folder: Path
    results: list[ParityResult]


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


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder with the official lists."""
    root = tmp_path_factory.mktemp("data")
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
    return root


@pytest.fixture(scope="session")
def images(data: Path) -> npt.NDArray[np.uint8]:
    """The test part as the model is fed: uint8 (n, SIZE, SIZE, 3)."""
    return np.concatenate([model_input(open_photo(e.photo), SPEC.input) for e in read_split(data, "official", "test")])


@pytest.fixture(scope="session")
def model(data: Path) -> Any:
    """A U-Net trained until it is sure of most pixels; its BatchNormalization statistics are far from 0 and 1."""
    keras.utils.set_random_seed(3)
    photos = read_split(data, "official", "trainval")
    x = np.concatenate([model_input(open_photo(entry.photo), SPEC.input) for entry in photos])
    y = np.stack([model_labels(open_trimap(entry.trimap), SPEC.input) for entry in photos])
    network = build(SIZE, SIZE, 3, filters=4, depth=2)
    network.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy", jit_compile=False)
    network.fit(x, y, batch_size=8, epochs=60, verbose=0)
    return network


@pytest.fixture(scope="session")
def write_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(keras model, spec) -> path of a ``.keras`` file with the spec inside."""

    def write(network: Any, spec: ModelSpec = SPEC) -> Path:
        path = tmp_path_factory.mktemp("model") / "model.keras"
        write_keras(network.save, path, spec)
        return path

    return write


@pytest.fixture(scope="session")
def model_file(model: Any, write_model: Callable[..., Path]) -> Path:
    return write_model(model)


@pytest.fixture(scope="session")
def exported(model_file: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """One accepted export. Tests read it; one that changes files takes a copy."""
    folder = tmp_path_factory.mktemp("exported") / "export"
    return Export(folder, export_model(model_file, PhotoSource(data), folder, ExportOptions(FORMATS)))


@pytest.fixture(scope="session")
def spec() -> ModelSpec:
    return SPEC


@pytest.fixture(scope="session")
def other_model(model: Any) -> Any:
    """The same network with its head's weights scrambled: what a mixed-up file would hold."""
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    head = twin.get_layer("logits")
    kernel, bias = head.get_weights()
    head.set_weights([np.roll(kernel, 1, axis=-1), bias])
    return twin
