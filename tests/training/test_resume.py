"""A training that is killed, and gone on with."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.helpers.trained import EAGER, eager_steps, read_until, start_training, unet_train
from unet_runtime.core.artifact import read_artifact
from unet_training.errors import RecipeError, TrainingError
from unet_training.fit import loop
from unet_training.fit.checkpoint import CHECKPOINT, PREVIOUS, Checkpoint
from unet_training.pipeline import Result, train
from unet_training.recipes import PRESETS, Recipe

# All that a checkpoint must carry: a schedule, averages, accumulated gradients, two sizes, augmentation of larger
# photos.
EVERYTHING = replace(
    PRESETS["unet-small"],
    filters=2,
    depth=1,
    size=32,
    sizes=(16, 32),
    batch_size=4,
    epochs=4,
    ema=0.8,
    accumulation=2,
    region_loss="dice",
    photo_scale=1.5,
    precision="float32",
)


def _train(pictures: Path, output: Path, recipe: Recipe = EVERYTHING, seed: int = 1, resume: bool = False) -> Result:
    return train(recipe, pictures, output, data_name="synthetic", seed=seed, command="test", resume=resume)


@pytest.fixture(scope="module")
def unbroken(small_network: None, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    with eager_steps():
        return _train(pictures, tmp_path_factory.mktemp("unbroken"))


class _Killed(BaseException):
    """As sudden as SIGKILL for what the training can do about it in this process."""


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_resumed_training_equals_an_unbroken_one(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbroken: Result, epoch: int
) -> None:
    """Killed within the first size, where the second begins, and within that."""

    def kill(self: Checkpoint, batch: int, logs: object = None) -> None:
        if self.epochs == epoch and batch == 1:
            raise _Killed

    with monkeypatch.context() as context:
        context.setattr(Checkpoint, "on_train_batch_end", kill)
        with pytest.raises(_Killed):
            _train(pictures, tmp_path)
    assert not (tmp_path / "model.keras").exists()
    resumed = _train(pictures, tmp_path, resume=True)
    for name, figures in unbroken.history.items():
        np.testing.assert_allclose(resumed.history[name], figures, rtol=1e-5, atol=1e-6, err_msg=name)
    weights = [keras.models.load_model(result.model).get_weights() for result in (unbroken, resumed)]
    for expected, found in zip(*weights, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("eager")
def test_a_finished_training_has_nothing_left_to_train(
    unbroken: Result, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_artifact(unbroken.model).spec

    def refuse(self: Checkpoint, batch: int, logs: object = None) -> None:
        raise AssertionError("a step was trained")

    monkeypatch.setattr(Checkpoint, "on_train_batch_end", refuse)
    again = _train(pictures, unbroken.model.parent, resume=True)
    assert read_artifact(again.model).spec == before


@pytest.mark.usefixtures("eager")
def test_a_finished_training_is_prolonged(unbroken: Result, pictures: Path, tmp_path: Path) -> None:
    """The epochs that were trained stay; the rate of those that follow is that of the longer training, down to 0."""
    shutil.copy(unbroken.model.parent / CHECKPOINT, tmp_path / CHECKPOINT)
    rates: list[float] = []

    class Rates(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            rates.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))

    longer = replace(EVERYTHING, epochs=8, name="longer")
    prolonged = train(
        longer, pictures, tmp_path, data_name="synthetic", command="test", resume=True, callbacks=[Rates()]
    )
    for name, values in unbroken.history.items():
        assert prolonged.history[name][:4] == values
        assert len(prolonged.history[name]) == 8
    assert len(rates) == 4
    assert 0.002 > rates[0] > rates[1] > rates[2] > rates[3]
    assert rates[3] == pytest.approx(0, abs=1e-6)
    assert prolonged.spec.provenance.recipe["epochs"] == 8
    with pytest.raises(RecipeError, match=r"checkpoint\.npz has 8 epochs, --epochs is 4: expected 8 to keep its best"):
        _train(pictures, tmp_path, resume=True)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"learning_rate": 1e-4}, r"learning_rate 0.002 there, 0.0001 here"),
        ({"batch_size": 2}, r"batch_size 4 there, 2 here"),
        ({"seed": 2}, r"seed 1 there, 2 here"),
    ],
)
def test_another_training_is_not_gone_on_with(
    unbroken: Result, pictures: Path, changed: dict[str, float], words: str
) -> None:
    seed = int(changed.pop("seed", 1))
    with pytest.raises(TrainingError, match=rf"checkpoint\.npz is of another training \(.*{words}.*--output"):
        _train(pictures, unbroken.model.parent, replace(EVERYTHING, **changed), seed, resume=True)  # type: ignore[arg-type]


@pytest.mark.usefixtures("eager")
def test_a_checkpoint_older_than_a_setting_is_gone_on_with(unbroken: Result, pictures: Path, tmp_path: Path) -> None:
    """It holds no value of that setting: the default was in force."""
    with np.load(unbroken.model.parent / CHECKPOINT) as stored:
        arrays = dict(stored)
    state = json.loads(str(arrays["about"]))
    del state["identity"]["encoder_weights"], state["identity"]["encoder_rate"]
    arrays["about"] = np.array(json.dumps(state))
    np.savez(tmp_path / CHECKPOINT, **arrays)
    assert _train(pictures, tmp_path, resume=True).history == unbroken.history
    with pytest.raises(TrainingError, match=r"another training \(encoder_rate 1\.0 there, 0\.5 here\)"):
        _train(pictures, tmp_path, replace(EVERYTHING, encoder_rate=0.5), resume=True)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a zip", None])
def test_a_damaged_checkpoint_is_named(unbroken: Result, pictures: Path, tmp_path: Path, damage: bytes | None) -> None:
    whole = (unbroken.model.parent / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    with pytest.raises(TrainingError, match=r"checkpoint\.npz: damaged .*delete it, or train without --resume"):
        _train(pictures, tmp_path, resume=True)


@pytest.mark.usefixtures("eager")
def test_one_wrong_byte_is_found_and_the_epoch_before_is_kept(unbroken: Result, pictures: Path, tmp_path: Path) -> None:
    for name in (CHECKPOINT, PREVIOUS):
        shutil.copy(unbroken.model.parent / name, tmp_path / name)
    damaged = bytearray((tmp_path / CHECKPOINT).read_bytes())
    damaged[len(damaged) // 3] ^= 1
    (tmp_path / CHECKPOINT).write_bytes(damaged)
    with pytest.raises(
        TrainingError, match=r"damaged \(its SHA-256 .*before is .*checkpoint\.previous\.npz: rename it"
    ):
        _train(pictures, tmp_path, resume=True)
    (tmp_path / PREVIOUS).replace(tmp_path / CHECKPOINT)
    assert _train(pictures, tmp_path, resume=True).history["loss"] == pytest.approx(unbroken.history["loss"], rel=1e-4)


@pytest.mark.usefixtures("eager")
def test_a_checkpoint_of_an_earlier_version_has_no_digest(unbroken: Result, pictures: Path, tmp_path: Path) -> None:
    with np.load(unbroken.model.parent / CHECKPOINT) as stored:
        np.savez(tmp_path / CHECKPOINT, allow_pickle=False, **dict(stored))
    assert len(_train(pictures, tmp_path, resume=True).history["loss"]) == EVERYTHING.epochs


def test_the_sizes_share_the_epochs() -> None:
    assert list(loop._epoch_ranges(replace(EVERYTHING, sizes=(16, 32, 48), epochs=11))) == [(0, 3), (3, 7), (7, 11)]


OPTIONS = (
    *("--preset", "demo", "--width", "2", "--depth", "1", "--size", "32", "--batch-size", "4", "--epochs", "5"),
    *("--ema", "0.9", "--seed", "3", "--precision", "float32", "--no-cache", "--resume"),
)
"""Options of ``unet-train``."""


def _kill_after(words: str, *arguments: object) -> None:
    """Run ``unet-train`` in a process of its own, and kill it when it has said ``words``, or a little later."""
    with start_training(*arguments, code=EAGER) as process:
        read_until(words, process)
        time.sleep(random.uniform(0, 0.05))  # anywhere in what follows
        process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.mark.usefixtures("eager", "no_report")
def test_a_process_killed_at_a_random_moment_trains_the_same_curve(
    small_network: None, pictures: Path, tmp_path: Path
) -> None:
    """One kill; tests/robustness/test_kills.py has a hundred."""
    arguments = ("--data", pictures, *OPTIONS, "--output")
    assert unet_train(*arguments, tmp_path / "unbroken").code == 0
    epoch = random.randrange(1, 4)
    print("killed after epoch", epoch)  # what pytest shows of a failure
    output = tmp_path / "killed"
    _kill_after(f"epoch {epoch}/5 ", *arguments, output)
    assert unet_train(*arguments, output).code == 0
    expected, found = (json.loads((folder / "history.json").read_text()) for folder in (tmp_path / "unbroken", output))
    assert len(found["loss"]) == 5
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
