"""The tiny trained model, a dataset of generated pictures in Oxford-IIIT Pet's layout, and one export of the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from tests.helpers import tiny
from tests.helpers.exported import FORMATS, Export
from tests.helpers.tiny import SPEC
from unet_export.foreign.load import load_model
from unet_export.formats import onnx_convert
from unet_export.photos import PhotoSource
from unet_export.pipeline import ExportOptions, export_model
from unet_runtime.core.artifact import write_keras
from unet_runtime.core.datasets import open_dataset, read_split
from unet_runtime.core.geometry import model_input
from unet_runtime.core.photo import open_photo
from unet_runtime.core.spec import ModelSpec


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder with the official lists."""
    root = tmp_path_factory.mktemp("data")
    tiny.write_dataset(root)
    return root


@pytest.fixture(scope="session")
def images(data: Path) -> npt.NDArray[np.uint8]:
    """The test part as the model is fed: uint8 (n, SIZE, SIZE, 3)."""
    return np.concatenate(
        [model_input(open_photo(e.photo), SPEC.input) for e in read_split(open_dataset(data), "official", "test")]
    )


@pytest.fixture(scope="session")
def model() -> Any:
    """A U-Net that is sure of most pixels; its BatchNormalization statistics are far from 0 and 1."""
    return load_model(tiny.SOFTMAX_FILE)[0]


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
def small_file(write_model: Callable[..., Path]) -> Path:
    """Two layers, exported in a second: for tests of what an export leaves, whatever it is of. Its int8 is not good."""
    image = keras.Input((tiny.SIZE, tiny.SIZE, 3), dtype="uint8", name="image")
    scaled = keras.layers.Rescaling(1 / 255, name="rescale")(image)
    keras.utils.set_random_seed(1)
    return write_model(keras.Model(image, keras.layers.Conv2D(3, 1, activation="softmax", name="logits")(scaled)))


@pytest.fixture
def mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ONNX exporter takes another model's weights."""
    build = onnx_convert.build_onnx

    def build_another(model: Any, name: str, **options: bool) -> Any:
        another = keras.models.clone_model(model)
        another.set_weights([np.roll(weights, 1, axis=-1) for weights in model.get_weights()])
        return build(another, name, **options)

    monkeypatch.setattr(onnx_convert, "build_onnx", build_another)


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
