"""Trainings on data of one's own: any number of classes, ignored pixels, other fits, few photos."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.masks import CLASSES, blocks, write_dataset, write_samples
from tests.helpers.trained import TINY, eager_steps, unet_train
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.datasets import Dataset, open_dataset
from unet_runtime.core.metrics import confusion, iou, mean_iou
from unet_runtime.core.spec import ClassSpec, InputSpec
from unet_training import keras_backend
from unet_training.build import Pretrained, build_model, copy_weights
from unet_training.data.dataset import load, split_dataset
from unet_training.errors import DatasetError, TrainingError
from unet_training.evaluate import Model, evaluate, evaluate_decoded
from unet_training.pipeline import Result, train
from unet_training.recipes import PRESETS, Recipe

SMALL = replace(
    PRESETS["demo"], filters=4, depth=1, size=32, batch_size=4, epochs=2, learning_rate=0.02, region_loss="dice"
)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Sixteen pictures of four classes, with ignored pixels."""
    return write_dataset(tmp_path_factory.mktemp("four"), 16, 4)


@pytest.fixture(scope="module")
def trained_on_four(small_network: None, four: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Result:
    recipe = replace(SMALL, class_weights="balanced", outline_weight=2.0)
    with eager_steps():
        return train(recipe, four, tmp_path_factory.mktemp("trained"), name="blocks", license="CC0", command="test")


def test_the_model_has_the_data_s_classes_and_says_what_it_is(trained_on_four: Result, four: Dataset) -> None:
    spec = read_artifact(trained_on_four.model).spec
    assert spec.classes == CLASSES
    assert (spec.name, spec.license) == ("blocks", "CC0")
    assert spec.provenance.data.startswith("four0, official split, 9 photos")
    weights = spec.provenance.recipe["class_weights"]
    assert set(weights) == set(four.class_names)
    assert all(0 < weight < 100 for weight in weights.values())


def test_ignored_pixels_count_nowhere(trained_on_four: Result, four: Dataset) -> None:
    """Training's metrics, the report's and evaluate's are those of a plain count over the labelled pixels."""
    artifact = read_artifact(trained_on_four.model)
    network = keras_backend.load_model(artifact)
    test = load(split_dataset(four, "official", 4, 1).test, artifact.spec.input)
    assert (test.masks == 255).sum() == 4 * 32
    predicted = network.predict(test.photos, verbose=0).argmax(-1)
    matrix = confusion(test.masks, predicted, 4)
    assert matrix.sum() == 4 * 32 * 31
    recorded = artifact.spec.provenance.metrics
    assert recorded["mean_iou"] == pytest.approx(mean_iou(iou(matrix)), abs=2e-5)
    assert recorded["pixel_accuracy"] == pytest.approx(np.trace(matrix) / matrix.sum(), abs=2e-5)
    model = Model(artifact.spec, keras_backend.KerasBackend(network))
    in_memory, _ = evaluate_decoded(model, test, part="test")
    assert in_memory.confusion == matrix.tolist()
    assert in_memory.overall.loss == pytest.approx(recorded["loss"], abs=1e-4)
    assert in_memory.breeds == {}
    assert "neutral" not in {entry.role for entry in CLASSES}
    assert "pet" not in " ".join(row.label for row in in_memory.rows())


def test_all_but_the_head_is_taken_from_a_model_of_other_classes(
    small_network: None, four: Dataset, logged: list[str]
) -> None:
    two = (ClassSpec("background", (0, 0, 0), "background"), ClassSpec("weld", (255, 0, 0), "foreground"))
    source = build_model(SMALL, two)
    model = build_model(SMALL, four.classes)
    head = model.get_layer("head").get_weights()[0].copy()
    copy_weights(model, Pretrained(source, "seams", ("background", "weld")), four.classes)
    np.testing.assert_array_equal(model.get_layer("conv").get_weights()[0], source.get_layer("conv").get_weights()[0])
    np.testing.assert_array_equal(model.get_layer("head").get_weights()[0], head)
    assert logged == [
        "--weights seams: all but the head, which starts anew: it predicts background, weld, this training's classes "
        "are ground, cat, dog, bird"
    ]


def test_classes_of_other_names_start_with_a_new_head_even_where_there_are_as_many(small_network: None) -> None:
    names = ("a", "b", "c")
    source, model = build_model(SMALL), build_model(SMALL)
    head = model.get_layer("head").get_weights()[0].copy()
    copy_weights(model, Pretrained(source, "other", names))
    np.testing.assert_array_equal(model.get_layer("head").get_weights()[0], head)


def test_a_teacher_of_other_classes_is_refused(trained_on_four: Result, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "three", 16, 3)
    with pytest.raises(TrainingError, match=r"--teacher blocks: predicts ground, cat, dog, bird, expected"):
        train(SMALL, data, tmp_path / "output", teacher=trained_on_four.model)


@pytest.mark.usefixtures("small_network", "eager")
def test_255_classes_of_which_few_are_there(tmp_path: Path, logged: list[str]) -> None:
    """The others are in no photo: no number, no share in the mean, and said so."""
    data = write_dataset(tmp_path / "many", 12, 3)
    more = [ClassSpec(f"class{index}", (index, 0, 0), "foreground") for index in range(252)]
    result = train(replace(SMALL, epochs=1), replace(data, classes=(*data.classes, *more)), tmp_path / "output")
    metrics = result.spec.provenance.metrics
    assert len(metrics["iou"]) + len(metrics["absent"]) == 255
    assert set(data.class_names) >= set(metrics["iou"]) - {entry.name for entry in more}
    assert metrics["mean_iou"] == pytest.approx(np.mean(list(metrics["iou"].values())), abs=1e-4)
    assert any("has a pixel of class251, nor was it predicted" in line for line in logged)


@pytest.mark.usefixtures("small_network", "eager")
@pytest.mark.parametrize("fit", ["letterbox", "crop"])
def test_other_fits_are_trained_evaluated_and_recorded(tmp_path: Path, fit: str) -> None:
    wide = []
    for photo, labels in blocks(12, 3):
        wide.append((np.tile(photo, (1, 3, 1)), np.tile(labels, (1, 3))))
    samples = write_samples(tmp_path / "wide", wide)
    names = tuple(sample.name for sample in samples)
    data = Dataset(
        tmp_path / "wide", "folders", "", CLASSES[:3], tuple(samples), {"trainval": names[:9], "test": names[9:]}
    )
    recipe: Recipe = replace(SMALL, fit=fit, crops=3, augment=True, epochs=1)  # type: ignore[arg-type]
    result = train(recipe, data, tmp_path / "output")
    spec = read_artifact(result.model).spec
    assert spec.input.fit == fit
    assert len(result.test) == (9 if fit == "crop" else 3)
    assert ("parts of photos" in spec.provenance.data) == (fit == "crop")
    model = Model(spec, keras_backend.KerasBackend(keras_backend.load_model(read_artifact(result.model))))
    measured = evaluate(model, _on_disk(data, wide))
    labelled = sum(int((labels != 255).sum()) for _, labels in wide[9:])
    assert np.array(measured.confusion).sum() <= labelled
    assert 0 <= measured.overall.own_size_mean_iou <= 1


def _on_disk(data: Dataset, pairs: list[tuple[np.ndarray, np.ndarray]]) -> Path:
    """The same photos as a folder that is read by its layout."""
    for sample, (_, labels) in zip(data.samples, pairs, strict=True):
        Image.fromarray(labels).save(data.root / "masks" / f"{sample.name}.png")
    (data.root / "classes.json").write_text(json.dumps([entry.name for entry in data.classes]))
    for part, names in data.parts.items():
        (data.root / f"{part.replace('trainval', 'train')}.txt").write_text("\n".join(names))
    return data.root


# --- few photos ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("eager")
def test_few_photos_have_a_validation_part_and_a_warning(
    small_network: None, tmp_path: Path, logged: list[str]
) -> None:
    data = write_dataset(tmp_path / "few", 8, 2)
    train(replace(SMALL, epochs=1), data, tmp_path / "output")
    assert any(line.startswith("5 photos train: enough for photos much like them") for line in logged)
    assert any(line.startswith("1 photos choose the best epoch: its metrics hang on each") for line in logged)


def test_one_photo_cannot_both_train_and_choose(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "two", 2, 2)
    parts = {"trainval": (data.samples[0].name,), "test": (data.samples[1].name,)}
    with pytest.raises(DatasetError, match="1 photo in the training part of the official split, expected at least 2"):
        split_dataset(replace(data, parts=parts), "official", 200, 1)


def test_the_data_s_own_validation_part_chooses(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "own", 8, 2)
    names = tuple(sample.name for sample in data.samples)
    split = split_dataset(
        replace(data, parts={"train": names[:4], "val": names[4:6], "test": names[6:]}), "official", 200, 1
    )
    found = [tuple(sample.name for sample in part) for part in (split.train, split.validation, split.test)]
    assert found == [names[:4], names[4:6], names[6:]]


def test_frames_of_a_video_stay_together(tmp_path: Path) -> None:
    samples = []
    for video in range(6):
        samples += write_samples(tmp_path / "videos", blocks(5, 2, seed=video), prefix=f"video{video}")
    data = Dataset(tmp_path / "videos", "folders", "", CLASSES[:2], tuple(samples))
    split = split_dataset(data, "random:1 by video[0-9]", 200, 1)
    parts = [{sample.name.partition("_")[0] for sample in part} for part in (split.train, split.validation, split.test)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts)) == 6


# --- the command -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def welds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty grey photos of 16 bits with masks of 0 and 255, which name no parts."""
    root = tmp_path_factory.mktemp("data") / "welds"
    pairs = []
    for _, labels in blocks(20, 2, ignored=False):
        grey = (labels.astype(np.uint16) * 30_000 + 20_000).astype(np.uint16)
        pairs.append((grey, (labels * 255).astype(np.uint8)))
    write_samples(root, pairs, prefix="seam")  # type: ignore[arg-type]
    return root


def test_photos_without_an_object_need_a_class_that_is_background(welds: Path, tmp_path: Path) -> None:
    classes = tmp_path / "classes.yaml"
    entries = []
    for name in ("metal", "weld"):
        entries.append({"name": name, "role": "foreground"})
    classes.write_text(json.dumps(entries), encoding="utf-8")  # JSON is YAML
    ended = unet_train("--data", welds, "-o", tmp_path, "--classes", classes, "--negatives", 0.2, *TINY)
    assert ended.code == 2
    assert "--negatives 0.2: shows parts of photos that are all background, and no class is: metal, weld" in ended.err


@pytest.mark.usefixtures("eager")
def test_a_folder_of_twenty_photos_trains(small_network: None, welds: Path, tmp_path: Path) -> None:
    ended = unet_train("--data", welds, "-o", tmp_path, "--preset", "demo", "--epochs", 2, *TINY, "--no-cache")
    assert ended.code == 0, ended.err
    assert "photos train: enough for photos much like them" in ended.err
    spec = read_artifact(tmp_path / "model.keras").spec
    assert [entry.role for entry in spec.classes] == ["background", "foreground"]
    assert (spec.name, spec.license) == ("welds-demo", "not stated")
    assert "Oxford" not in spec.to_json()
    assert spec.provenance.split.startswith("random:")
    page = (tmp_path / "report.html").read_text()
    assert "Breeds" not in page
    assert "border IoU" not in page
    assert f"{spec.classes[1].name} IoU" in page
    again = unet_train("evaluate", tmp_path / "model.keras", "--data", welds)
    assert again.code == 0, again.err
    assert f"{spec.provenance.metrics['mean_iou']:.4f}" in again.out


def test_grey_photos_of_16_bits_are_seen_by_the_runtime_s_rule(welds: Path) -> None:
    data = open_dataset(welds)
    photos = load(data.samples[:1], InputSpec(32, 32))
    assert set(np.unique(photos.photos)) == {20_000 >> 8, 50_000 >> 8}
    np.testing.assert_array_equal(photos.photos[..., 0], photos.photos[..., 2])


def test_a_folder_that_is_not_there_is_no_reason_to_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pooch.retrieve", lambda *arguments, **more: pytest.fail("it downloads"))
    monkeypatch.chdir(tmp_path)
    for options in (("--data", "nope"), ()):
        ended = unet_train(*options, "-o", tmp_path / "output", *TINY)
        assert ended.code == 1
        assert "nope: no such folder, expected a dataset's folder" in ended.err
        monkeypatch.setenv("PETS_DIR", "nope")
