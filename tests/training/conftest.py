"""Generated pictures, a model trained on them through the command, and the command itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest

from tests.helpers.trained import TINY, Trained, unet_train
from unet_training.data import synthetic
from unet_training.models import unet


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What training logs while the test runs, one message per entry."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("unet_training")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 generated pictures for training, 8 for the test, about 48 pixels wide."""
    root = tmp_path_factory.mktemp("pictures") / "drawn"
    synthetic.ensure_dataset(root, train=24, test=8, size=48, seed=1)
    return root


def _one_convolution(
    height: int | None,
    width: int | None,
    classes: int,
    *,
    filters: int,
    activation: str,
    norm_momentum: float,
    depth: int = 1,
) -> keras.Model:
    """The U-Net's boundary with next to nothing between: what takes time in a tiny training is the graph."""
    image = keras.Input((height, width, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255, name="rescale")(image)
    x = keras.layers.Conv2D(filters, 3, padding="same", name="conv")(x)
    x = keras.layers.BatchNormalization(momentum=norm_momentum, name="norm")(x)
    return keras.Model(image, keras.layers.Conv2D(classes, 1, activation=activation, name="head", dtype="float32")(x))


@pytest.fixture(scope="module")
def small_network() -> Iterator[None]:
    """In place of the U-Net, for tests of what happens around a training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unet, "build", _one_convolution)
        yield


@pytest.fixture(scope="session")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Two epochs of a tiny model in mixed precision, trained by the command."""
    output = tmp_path_factory.mktemp("trained") / "output"
    ended = unet_train(
        "--data",
        pictures,
        "--output",
        output,
        "--preset",
        "unet-small",
        "--epochs",
        2,
        "--precision",
        "mixed_bfloat16",
        *TINY,
    )
    return Trained(output, ended)
