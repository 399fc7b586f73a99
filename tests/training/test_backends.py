"""JAX beside TensorFlow: the command trains, what it made is exported and measured, both compute the same, and
under JAX two devices train what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

from tests.helpers import small_training
from tests.helpers.colours import colour_spec
from tests.helpers.paths import REPOSITORY
from tests.helpers.trained import eager_steps
from unet_export.photos import PhotoSource
from unet_export.pipeline import ExportOptions, export_model
from unet_runtime.core.artifact import read_artifact, write_keras
from unet_training.build import PET_CLASSES
from unet_training.evaluate import evaluate, load_model
from unet_training.models import unet

EPOCHS = 8

SIZES = [16, 32] if os.environ.get("SLOW_TESTS") else [32]
"""Each is compiled anew, in each of the trainings."""

# All that a recipe can ask for. The region loss is counted over the whole batch: a device's part has another one.
RECIPE = {
    "augment": True,
    "ema": 0.8,
    "accumulation": 2,
    "region_loss": "dice",
    "border_weight": 2.0,
    "rotation": 10.0,
    "cut_out": 0.3,
    "hard_pixels": 0.5,
    "sizes": SIZES,
    "validation": 5,
}


def _under_jax(*command: object, devices: int = 1) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # of XLA, which takes longer than these trainings
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    done = subprocess.run(
        [*map(str, command)], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


# --- the command, then the rest of the way under TensorFlow -----------------------------------------


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that unet-train wrote under JAX."""
    folder = tmp_path_factory.mktemp("jax") / "output"
    ended = _under_jax(
        Path(sys.executable).with_name("unet-train"),
        "--data",
        "synthetic",
        "--synthetic-count",
        40,
        "--output",
        folder,
        "--no-cache",
        "--epochs",
        EPOCHS,
        "--learning-rate",
        0.005,
        "--width",
        4,
        "--depth",
        1,
        "--size",
        32,
        "--batch-size",
        4,
    )
    assert "jax on the CPU" in ended.stderr
    own = "warning: trained on drawn animals"
    few = " photos "  # of what so few photos cannot tell
    warnings = [line for line in ended.stderr.splitlines() if "arning" in line and own not in line and few not in line]
    assert warnings == []  # of JAX, or of TensorFlow, which Keras loads all the same
    return folder


def test_a_model_trained_under_jax_says_so_and_has_learnt(output: Path) -> None:
    assert read_artifact(output / "model.keras").spec.provenance.tools["backend"].startswith("jax ")
    losses = json.loads((output / "history.json").read_text())["loss"]
    assert len(losses) == EPOCHS
    assert losses[-1] < losses[0]


def test_it_is_exported_and_measured_under_tensorflow(output: Path, tmp_path: Path) -> None:
    data, model = output / "synthetic", output / "model.keras"
    # Raises where the gate fails. What int8 loses depends on what was learnt: see tests/e2e/test_family.py.
    results = export_model(model, PhotoSource(data), tmp_path / "export", ExportOptions(("saved-model", "onnx")))
    onnx = next(result.path for result in results if result.path.suffix == ".onnx")
    trained, exported = (evaluate(load_model(path), data) for path in (model, onnx))
    assert trained.engine.endswith("(tensorflow)")
    assert exported.engine.startswith("ONNX Runtime")
    assert exported.overall.mean_iou == pytest.approx(trained.overall.mean_iou, abs=1e-4)
    # The command measured the same photos under JAX.
    under_jax = read_artifact(model).spec.provenance.metrics
    assert trained.overall.pixel_accuracy == pytest.approx(under_jax["pixel_accuracy"], abs=1e-4)


# --- one small training, three times ----------------------------------------------------------------


class Trainings(NamedTuple):
    """What ``small_training.main`` returned."""

    tensorflow: dict[str, Any]
    jax: dict[str, Any]
    two_devices: dict[str, Any]
    """Under JAX too."""
    output: Path
    """Holds a folder for each."""


def _write_random_model(path: Path, seed: int) -> Path:
    keras.utils.set_random_seed(seed)
    model = unet.build(32, 32, len(PET_CLASSES), filters=4, depth=1)
    write_keras(model.save, path, replace(colour_spec(32), classes=PET_CLASSES))
    return path


@pytest.fixture(scope="module")
def trainings(pictures: Path, output: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    """From the same weights, with the same teacher."""
    folder = tmp_path_factory.mktemp("trainings")
    shared = {
        "data": str(pictures),
        "recipe": RECIPE,
        "weights": str(_write_random_model(folder / "start.keras", 1)),
        "teacher": str(_write_random_model(folder / "teacher.keras", 2)),
    }
    answer = {"answer": str(output / "model.keras")}
    with eager_steps():
        here = small_training.main(output=str(folder / "tensorflow"), **shared, **answer)  # type: ignore[arg-type]
    there = [
        shared | answer | {"output": str(folder / "jax")},
        shared | {"output": str(folder / "two"), "distribute": "auto"},
    ]
    said = _under_jax(sys.executable, "-m", "tests.helpers.small_training", json.dumps(there), devices=2)
    return Trainings(here, *json.loads(said.stdout), folder)


def test_the_same_weights_give_the_same_answer(trainings: Trainings) -> None:
    here, there = (np.load(trainings.output / name / small_training.ANSWERS) for name in ("tensorflow", "jax"))
    assert here.shape == (3, 32, 32, 3)
    assert here.std() > 0.01  # pixels differ
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-5)


def _close(values: list[float], name: str) -> Any:
    """A loss is smooth; metrics count pixels, some of which lie between two classes (1 of 5,120: 2e-4)."""
    return pytest.approx(values, rel=1e-3) if name.endswith(("loss", "entropy")) else pytest.approx(values, abs=5e-3)


def test_both_train_the_same(trainings: Trainings) -> None:
    here, there = trainings.tensorflow["history"], trainings.jax["history"]
    assert here.keys() == there.keys()
    for name, values in here.items():
        assert there[name] == _close(values, name), name


def test_two_devices_train_what_one_does(trainings: Trainings) -> None:
    one, two = trainings.jax, trainings.two_devices
    assert (one["replicas"], one["shard"]) == ([1], [[4, 32, 32, 3]])
    assert (two["replicas"], two["shard"]) == ([2], [[2, 32, 32, 3]])
    assert two["logged"][:2] == [
        "each batch is shared by 2 devices: cpu:0, cpu:1",
        "1 of 5 photos that choose the checkpoint are left out: 2 devices share them",
    ]
    for name in ("loss", "cross_entropy", "pixel_accuracy", "mean_iou"):
        assert two["history"][name] == _close(one["history"][name], name), name
