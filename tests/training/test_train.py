"""What a training leaves behind, and what it says when it cannot go on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.helpers.full_disk import disk_full_after
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.errors import OutputError
from unet_training import pipeline
from unet_training.build import make_optimizer, model_sha256
from unet_training.data.dataset import TrainingBatches
from unet_training.errors import TrainingError, TrainingInterruptedError
from unet_training.fit.checkpoint import CHECKPOINT, Checkpoint
from unet_training.models import unet
from unet_training.pipeline import Result, tool_versions, train
from unet_training.recipes import PRESETS

pytestmark = pytest.mark.usefixtures("small_network")

TINY = replace(PRESETS["demo"], filters=2, size=32, batch_size=4, epochs=2)

GOOD = {"loss": 1.0, "val_loss": 1.0, "val_mean_iou": 0.5}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.compile(optimizer="sgd", loss="mse")
    model.optimizer.build(model.trainable_variables)
    best = Checkpoint(tmp_path / CHECKPOINT, "val_mean_iou", {"recipe": "a"})
    best.set_model(model)
    return best


def _fill(best: Checkpoint, value: float) -> None:
    best.model.set_weights([np.full_like(weights, value) for weights in best.model.get_weights()])


def _kept(best: Checkpoint) -> float:
    best.restore(best.model)
    return float(best.model.get_weights()[0][0, 0])


@pytest.mark.parametrize(
    ("monitor", "figures", "epoch"),
    [
        ("val_mean_iou", (0.5, 0.7, 0.6), 2),
        ("val_loss", (0.5, 0.7, 0.4), 3),
    ],
)
def test_the_best_epoch_is_kept(checkpoint: Checkpoint, monitor: str, figures: tuple[float, ...], epoch: int) -> None:
    checkpoint.monitor = monitor
    for index, figure in enumerate(figures):
        _fill(checkpoint, index + 1)
        checkpoint.on_epoch_end(index, GOOD | {monitor: figure})
    assert (checkpoint.epoch, _kept(checkpoint)) == (epoch, epoch)


def test_an_earlier_training_s_checkpoint_stays_until_the_first_epoch_ends(checkpoint: Checkpoint) -> None:
    checkpoint.path.write_text("of another training")
    assert checkpoint.recovery_hint() == "nothing was kept"
    checkpoint.on_epoch_end(0, GOOD)
    assert checkpoint.path.read_bytes().startswith(b"PK")


@pytest.mark.parametrize("name", ["loss", "val_loss"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_no_number_ends_the_training_and_keeps_the_best(
    checkpoint: Checkpoint, name: str, value: float
) -> None:
    _fill(checkpoint, 1)
    checkpoint.on_epoch_end(0, GOOD)
    _fill(checkpoint, 2)
    with pytest.raises(TrainingError, match=rf"^{name} is .* after epoch 2.*--learning-rate.*epoch 1 and .* are in"):
        checkpoint.on_epoch_end(1, GOOD | {name: value, "val_mean_iou": 0.9})
    assert _kept(checkpoint) == 1


def test_a_full_disk_leaves_the_last_good_weights(checkpoint: Checkpoint) -> None:
    _fill(checkpoint, 1)
    checkpoint.on_epoch_end(0, GOOD)
    _fill(checkpoint, 2)
    with disk_full_after(100), pytest.raises(OutputError, match=r"checkpoint\.npz: cannot be written"):
        checkpoint.on_epoch_end(1, GOOD | {"val_mean_iou": 0.9})
    assert (checkpoint.epoch, _kept(checkpoint)) == (1, 1)
    assert {path.name for path in checkpoint.path.parent.iterdir()} == {"checkpoint.npz", "checkpoint.previous.npz"}


def test_article_s_optimizer_is_keras_rmsprop() -> None:
    optimizer = make_optimizer(PRESETS["article"], 100)
    assert isinstance(optimizer, keras.optimizers.RMSprop)
    assert float(optimizer.learning_rate) == pytest.approx(1e-3)


def test_adamw_warms_up_and_decays_to_nothing() -> None:
    optimizer = make_optimizer(replace(TINY, epochs=10, warmup_epochs=1, learning_rate=0.5), 100)
    rates = []
    for step in (0, 50, 100, 550, 1000):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    assert rates == pytest.approx([0, 0.25, 0.5, 0.25, 0], abs=1e-3)


def test_versions_are_named() -> None:
    versions = tool_versions()
    assert set(versions) == {"python", "keras", "backend", "numpy", "pillow"}
    assert versions["backend"].startswith(f"{keras.backend.backend()} ")


def test_the_digest_sees_one_changed_weight(checkpoint: Checkpoint) -> None:
    before = model_sha256(checkpoint.model)
    assert model_sha256(checkpoint.model) == before
    weights = checkpoint.model.get_weights()
    weights[0][0, 0] += 1e-3
    checkpoint.model.set_weights(weights)
    assert model_sha256(checkpoint.model) != before


def _train(pictures: Path, output: Path, epochs: int = 2, *, overwrite: bool = True) -> Result:
    recipe = replace(TINY, epochs=epochs)
    return train(recipe, pictures, output, data_name="synthetic", seed=1, command="test", overwrite=overwrite)


def _at_batch(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException) -> None:
    """Training raises after that many batches, counted over all epochs, in the main thread as Ctrl-C does."""
    seen = 0

    def count(self: Checkpoint, batch: int, logs: object = None) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            raise error

    monkeypatch.setattr(Checkpoint, "on_train_batch_end", count)


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's."""


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("error", [MemoryError(), ResourceExhaustedError("OOM when allocating tensor")])
def test_no_memory_left_says_what_to_lower_and_what_is_kept(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    _at_batch(monkeypatch, 6, error)  # 18 photos train: 4 batches an epoch
    with pytest.raises(TrainingError, match=r"4 photos at 32x32 with 2 filters: lower.*epoch 1 and .* are in"):
        _train(pictures, tmp_path)
    assert (tmp_path / CHECKPOINT).is_file()


def test_no_memory_left_in_the_data_pipeline_is_known_too(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(self: TrainingBatches, index: int) -> None:
        raise MemoryError

    monkeypatch.setattr(TrainingBatches, "__getitem__", get)  # its errors reach Keras through TensorFlow
    with pytest.raises(TrainingError, match=r"no memory left.*nothing was kept"):
        _train(pictures, tmp_path)


@pytest.mark.usefixtures("eager")
def test_other_errors_are_not_taken_for_memory(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _at_batch(monkeypatch, 1, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        _train(pictures, tmp_path)


@pytest.mark.usefixtures("eager")
def test_a_failed_training_leaves_the_previous_model(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _train(pictures, tmp_path, epochs=1)
    before = (tmp_path / "model.keras").read_bytes()
    _at_batch(monkeypatch, 1, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        _train(pictures, tmp_path)
    assert (tmp_path / "model.keras").read_bytes() == before


@pytest.mark.usefixtures("eager")
def test_an_interruption_after_the_first_epoch_keeps_its_model(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _at_batch(monkeypatch, 6, KeyboardInterrupt())
    result = _train(pictures, tmp_path, epochs=5)
    assert result.interrupted
    assert len(result.history["loss"]) == 1
    metrics = read_artifact(result.model).spec.provenance.metrics
    assert (metrics["split"], metrics["photos"], metrics["epoch"]) == ("validation", 6, 1)


@pytest.mark.usefixtures("eager")
def test_an_interruption_of_the_last_measurement_keeps_the_model(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = pipeline._measure

    def interrupted(model: keras.Model, photos: object, split: str, *more: object) -> object:
        if split == "test":
            raise KeyboardInterrupt
        return measure(model, photos, split, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "_measure", interrupted)
    result = _train(pictures, tmp_path, epochs=1)
    assert result.interrupted
    assert read_artifact(result.model).spec.provenance.metrics["split"] == "validation"


@pytest.mark.usefixtures("eager")
def test_a_second_interruption_says_where_the_weights_are(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "_measure", interrupted)
    with pytest.raises(TrainingInterruptedError, match=r"epoch 1 and .* are in .*checkpoint\.npz"):
        _train(pictures, tmp_path, epochs=1)
    assert not (tmp_path / "model.keras").exists()


def test_the_same_seed_trains_the_same_model(pictures: Path, tmp_path: Path) -> None:
    hashes = {_train(pictures, tmp_path / str(run), epochs=1).spec.provenance.weights_sha256 for run in (1, 2)}
    assert len(hashes) == 1


def _half_resolution(
    height: int | None, width: int | None, classes: int, *, filters: int, activation: str, norm_momentum: float
) -> keras.Model:
    """A network that enlarges bilinearly, as ``canet`` and ``lite`` do."""
    image = keras.Input((height, width, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255, name="rescale")(image)
    x = keras.layers.Conv2D(classes, 3, 2, padding="same", name="logits")(x)
    x = keras.layers.UpSampling2D(2, interpolation="bilinear", name="logits_up")(x)
    return keras.Model(image, keras.layers.Activation(activation, name="probabilities", dtype="float32")(x))


def test_bilinear_upsampling_trains_at_a_second_size(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step for both sizes would be traced for any, which Keras' bilinear upsampling does not take."""
    monkeypatch.setattr(unet, "build", _half_resolution)
    recipe = replace(TINY, sizes=(16, 32), optimizer="rmsprop")
    result = train(recipe, pictures, tmp_path, data_name="synthetic", seed=1, command="test")
    assert np.isfinite(result.history["loss"]).all()


@pytest.mark.usefixtures("eager")
def test_a_model_that_is_there_is_not_replaced_by_another_training(pictures: Path, tmp_path: Path) -> None:
    _train(pictures, tmp_path, epochs=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(
        OutputError, match=r"model\.keras: is there already \(demo, mean IoU .* on test photos\)"
    ) as caught:
        _train(pictures, tmp_path, overwrite=False)
    assert "--overwrite" in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / CHECKPOINT).unlink()
    with pytest.raises(OutputError, match="is there already"):  # nothing to go on with: it would begin anew
        train(TINY, pictures, tmp_path, data_name="synthetic", resume=True)
    train(replace(TINY, epochs=1), pictures, tmp_path, data_name="synthetic", overwrite=True, seed=2)
    assert read_artifact(tmp_path / "model.keras").spec.provenance.seed == 2
    (tmp_path / "model.keras").write_bytes(b"not a model")
    with pytest.raises(OutputError, match=r"is there already \(no readable model\)"):
        _train(pictures, tmp_path, overwrite=False)
