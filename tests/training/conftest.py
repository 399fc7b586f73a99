"""Generated pictures, a model trained on them through the command, and the command itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.one_convolution import one_convolution
from tests.helpers.trained import TINY, Trained, eager_steps, unet_train
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


@pytest.fixture(scope="module")
def small_network() -> Iterator[None]:
    """In place of the U-Net, for tests of what happens around a training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unet, "build", one_convolution)
        yield


@pytest.fixture
def eager() -> Iterator[None]:
    """For tests of what goes into a training and comes out of it, whichever way its steps are computed."""
    with eager_steps():
        yield


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """For trainings by the command whose report nobody looks at: drawing it takes longer than they do."""
    monkeypatch.setattr("unet_training.report.write_report", lambda result, output: None)


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
