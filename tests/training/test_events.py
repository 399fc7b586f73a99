"""TensorBoard's files: read back, they hold the history and pictures."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.helpers.trained import TINY, unet_train
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.errors import OutputError
from unet_training.fit.events import TRAIN, VALIDATION, EventFolder


def _read(folder: Path, run: str) -> EventAccumulator:
    return EventAccumulator(str(folder / run)).Reload()


def _scalars(folder: Path, run: str, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in _read(folder, run).Scalars(name)]


@pytest.mark.usefixtures("small_network", "eager", "no_report")
def test_tensorboard_finds_the_history_and_pictures(pictures: Path, tmp_path: Path) -> None:
    logs, output = tmp_path / "logs", tmp_path / "output"
    arguments = ("--data", pictures, "--output", output, "--epochs", 2, "--ema", 0.5, "--tensorboard", logs, *TINY)
    ended = unet_train(*arguments)
    assert ended.code == 0, ended.err
    history = json.loads((output / "history.json").read_text())
    for name in ("loss", "cross_entropy", "mean_iou", "pixel_accuracy"):
        for run, mark in ((TRAIN, ""), (VALIDATION, "val_")):
            expected = list(enumerate(history[mark + name], 1))
            assert _scalars(logs, run, name) == [(step, pytest.approx(value)) for step, value in expected]
    rates = [value for _, value in _scalars(logs, TRAIN, "learning_rate")]
    assert rates[0] > rates[1] >= 0
    assert all(value > 0 for _, value in _scalars(logs, TRAIN, "photos_per_second"))

    read = _read(logs, VALIDATION)
    tags = read.Tags()["images"]
    assert len(tags) == 4
    for tag in tags:
        shown = read.Images(tag)
        assert [event.step for event in shown] == [1, 2]
        with Image.open(io.BytesIO(shown[0].encoded_image_string)) as image:
            pixels = np.asarray(image)
        assert pixels.shape == (32, 96, 3)
        colors = {tuple(color) for color in pixels[:, 32:].reshape(-1, 3).tolist()}
        assert colors <= {(230, 60, 90), (40, 60, 120), (250, 200, 60)}
    assert "tensorboard" not in read_artifact(output / "model.keras").spec.provenance.command


def test_a_training_that_goes_on_takes_the_place_of_later_figures(tmp_path: Path) -> None:
    first = EventFolder(tmp_path)
    for step in (1, 2, 3):
        first.add(TRAIN, step, {"loss": 10.0 * step})
    second = EventFolder(tmp_path)
    second.add(TRAIN, 3, {"loss": 31.0})
    assert len(list((tmp_path / TRAIN).iterdir())) == 2
    assert _scalars(tmp_path, TRAIN, "loss") == [(1, 10.0), (2, 20.0), (3, 31.0)]


def test_without_tensorboard_the_training_does_not_begin(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)  # as where it is not installed
    ended = unet_train("--data", pictures, "--output", tmp_path, "--tensorboard", tmp_path / "logs", *TINY)
    assert ended.code == 3
    assert 'pip install "tensorboard' in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_logs_that_cannot_be_made_is_told_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/logs: cannot be written"):
        EventFolder(tmp_path / "file" / "logs")
