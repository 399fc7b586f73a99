"""unet-train evaluate: whole evaluations worked out by hand, engines beside each other and Keras, the command."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tests.helpers.bundled import FLOAT_ONNX, INT8_TFLITE, KERAS
from tests.helpers.colours import pet_colour_spec, write_colour_model
from tests.helpers.paths import REPOSITORY
from tests.helpers.trained import Trained, unet_train
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.datasets import evenly, open_dataset, open_labels, read_split
from unet_runtime.core.errors import BackendError, SourceError
from unet_runtime.core.geometry import model_input, model_labels
from unet_runtime.core.metrics import IGNORED
from unet_runtime.core.photo import open_photo
from unet_runtime.core.spec import ModelSpec, Provenance
from unet_training.build import compile_model
from unet_training.errors import DatasetError
from unet_training.evaluate import Evaluation, Model, evaluate, load_model
from unet_training.identity import BREEDS
from unet_training.segmentation_metrics import measure, summarize

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def _spec(fit: str = "stretch") -> ModelSpec:
    return replace(pet_colour_spec(fit=fit), provenance=Provenance(split="official"))


def _write_plain(
    root: Path, name: str, colour: tuple[int, int, int], value: int, size: tuple[int, int] = (64, 64)
) -> None:
    """A photo of one colour whose truth is one class everywhere (trimap value 1, 2 or 3), in the test list."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / "trimaps").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(root / "images" / f"{name}.jpg", format="PNG")  # the colour to the bit
    Image.new("L", size, value).save(root / "annotations" / "trimaps" / f"{name}.png")
    with (root / "annotations" / "test.txt").open("a") as names:
        names.write(f"{name} 1 1 1\n")


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """A colour model sees two of these three photos right, and takes the third's background for foreground."""
    root = tmp_path / "colours"
    _write_plain(root, "Egyptian_Mau_1", RED, 1)
    _write_plain(root, "Egyptian_Mau_2", GREEN, 2)
    _write_plain(root, "pug_1", RED, 2)
    (root / "SOURCES.tsv").write_text("Egyptian_Mau_1\torig\nEgyptian_Mau_2\torig\npug_1\t128\n")
    return root


@pytest.fixture
def colour_file(tmp_path: Path) -> Path:
    return write_colour_model(tmp_path / "colours.onnx", _spec())


def _evaluate(model: Path, data: Path, count: int | None = None) -> Evaluation:
    return evaluate(load_model(model), data, count=count)


# --- a whole evaluation, by hand -------------------------------------------------------------------


def test_every_metric_of_three_plain_photos(colour_file: Path, colours: Path) -> None:
    result = _evaluate(colour_file, colours)
    pixels = 32 * 32
    assert result.confusion == [[pixels, 0, 0], [pixels, pixels, 0], [0, 0, 0]]
    assert result.confusion_shares[:2] == [[1, 0, 0], [0.5, 0.5, 0]]
    overall = result.overall
    assert (overall.photos, overall.pixel_accuracy) == (3, 2 / 3)
    assert (overall.iou["pet"], overall.iou["background"]) == (0.5, 0.5)
    assert math.isnan(overall.iou["border"])
    assert overall.mean_iou == overall.own_size_mean_iou == overall.whole_pet_iou == 0.5
    assert overall.loss == pytest.approx(-math.log(1e-7) / 3, abs=1e-4)
    assert result.calibration_error == pytest.approx(1 / 3, abs=1e-4)
    assert math.isnan(overall.boundary_f1)
    assert {name: (group.photos, group.mean_iou) for name, group in result.breeds.items()} == {
        "Egyptian_Mau": (2, 1.0),
        "pug": (1, 0.0),
    }
    assert {name: group.photos for name, group in result.resolutions.items()} == {"128": 1, "orig": 2}


def test_json_has_null_where_there_is_nothing_to_measure(colour_file: Path, colours: Path) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    data = json.loads(_evaluate(colour_file, colours).to_json(), parse_constant=refuse)
    assert data["overall"]["iou"] == {"pet": 0.5, "background": 0.5, "border": None}
    assert data["overall"]["boundary_f1"] is None
    assert data["confusion_shares"][2] == [None, None, None]
    assert len(data["calibration"]) == 15
    assert data["size"] == [32, 32]


def test_what_lies_outside_a_letterboxed_photo_does_not_count(tmp_path: Path) -> None:
    _write_plain(tmp_path, "cat_1", BLUE, 3, size=(64, 32))
    model = write_colour_model(tmp_path / "box.onnx", _spec("letterbox"))
    result = _evaluate(model, tmp_path)
    assert result.confusion == [[0, 0, 0], [0, 0, 0], [0, 0, 32 * 16]]
    assert result.calibration[-1].pixels == 32 * 16
    assert result.overall.own_size_iou["border"] == 1
    assert result.resolutions == {}


def test_a_border_taken_for_pet_is_no_fault_of_the_whole_pet() -> None:
    spec = _spec()
    truth = np.full((32, 32), 1, np.uint8)
    truth[:16] = 2  # border
    truth[0, :8] = IGNORED
    answer = np.zeros((32, 32, 3), np.float32)
    answer[:16, :, 0] = answer[16:, :, 1] = 1
    result = summarize(measure(answer, truth, np.where(truth == IGNORED, 2, truth).astype(np.uint8), spec), spec)
    assert result.whole_pet_iou == 1
    assert result.iou["border"] == 0
    assert result.pixel_accuracy == pytest.approx(16 * 32 / (32 * 32 - 8))


@pytest.mark.parametrize(
    ("shape", "value", "words"),
    [
        ((16, 16, 3), 0.3, "output is (3, 16, 16, 3), its spec says (3, 32, 32, 3)"),
        ((32, 32, 3), math.nan, "NaN or infinity"),
    ],
)
def test_an_output_that_is_none_is_refused(
    shape: tuple[int, ...], value: float, words: str, colour_file: Path, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(colour_file)
    monkeypatch.setattr(model.backend, "run", lambda images: np.full((len(images), *shape), value, np.float32))
    with pytest.raises(BackendError) as caught:
        evaluate(model, colours)
    assert words in str(caught.value)


def test_data_with_other_classes_than_the_model_is_refused(colour_file: Path, colours: Path) -> None:
    model = load_model(colour_file)
    two = Model(replace(model.spec, classes=model.spec.classes[:2]), model.backend)
    with pytest.raises(SourceError, match="has the classes pet, background, border, the model has pet, background:"):
        evaluate(two, colours)


@pytest.mark.parametrize("content", [b"Egyptian_Mau_1 orig\n", b"\xff\tx\n"])
def test_a_malformed_list_of_sources_is_refused(content: bytes, colour_file: Path, colours: Path) -> None:
    (colours / "SOURCES.tsv").write_bytes(content)
    with pytest.raises(DatasetError, match=r"SOURCES\.tsv"):
        _evaluate(colour_file, colours)


# --- engines against each other, and Keras against both --------------------------------------------


@pytest.fixture(scope="module")
def by_engine(pets_dir: Path) -> dict[str, Evaluation]:
    return {path.suffix: _evaluate(path, pets_dir, 36) for path in (KERAS, FLOAT_ONNX, INT8_TFLITE)}


def _numbers(evaluation: Evaluation) -> Iterator[tuple[str, float]]:
    overall = evaluation.overall
    yield "calibration_error", evaluation.calibration_error
    for name in ("loss", "pixel_accuracy", "mean_iou", "whole_pet_iou", "boundary_f1", "own_size_mean_iou"):
        yield name, getattr(overall, name)
    for name in evaluation.classes:
        yield f"{name} IoU", overall.iou[name]
        yield f"{name} IoU, own size", overall.own_size_iou[name]


def test_keras_and_onnx_have_the_same_metrics(by_engine: dict[str, Evaluation]) -> None:
    keras_metrics, onnx_metrics = dict(_numbers(by_engine[".keras"])), dict(_numbers(by_engine[".onnx"]))
    rounding = {"float32": 1e-5, "float16-weights": 2e-3}[by_engine[".onnx"].precision]
    assert keras_metrics == pytest.approx(onnx_metrics, abs=rounding)
    assert 0.6 < keras_metrics["mean_iou"] < keras_metrics["whole_pet_iou"] < 1
    assert by_engine[".keras"].engine.startswith("Keras ")
    assert sum(group.photos for group in by_engine[".keras"].breeds.values()) == 36


def test_int8_is_nearly_as_good(by_engine: dict[str, Evaluation]) -> None:
    assert by_engine[".tflite"].precision == "int8"
    assert dict(_numbers(by_engine[".tflite"])) == pytest.approx(dict(_numbers(by_engine[".onnx"])), abs=0.02)


def test_keras_itself_has_the_same_metrics(by_engine: dict[str, Evaluation], pets_dir: Path) -> None:
    artifact = read_artifact(KERAS)
    photos, spec = evenly(read_split(open_dataset(pets_dir), "official", "test"), 36), artifact.spec.input
    model = keras.models.load_model(KERAS, compile=False)
    compile_model(model)
    expected = model.evaluate(
        np.concatenate([model_input(open_photo(item.photo), spec) for item in photos]),
        np.stack([model_labels(open_labels(item), spec) for item in photos]),
        batch_size=12,
        verbose=0,
        return_dict=True,
    )
    overall = by_engine[".keras"].overall
    got = {"loss": overall.loss, "pixel_accuracy": overall.pixel_accuracy, "mean_iou": overall.mean_iou}
    assert got == pytest.approx({name: expected[name] for name in got}, abs=1e-4)


# --- the command -----------------------------------------------------------------------------------


def test_the_command_measures_what_training_measured(trained: Trained, pictures: Path, tmp_path: Path) -> None:
    report = tmp_path / "new" / "metrics.json"
    ended = unet_train("evaluate", trained.output / "model.keras", "--data", pictures, "-o", report)
    assert (ended.code, ended.err) == (0, "")
    recorded = read_artifact(trained.output / "model.keras").spec.provenance.metrics
    measured = json.loads(report.read_text())["overall"]
    for name in ("photos", "loss", "pixel_accuracy", "mean_iou", "iou"):
        assert measured[name] == pytest.approx(recorded[name], abs=1e-4), name
    assert "8 test photos of the official split" in ended.out
    assert any(line.split()[:3] == ["mean", "IoU", f"{measured['mean_iou']:.4f}"] for line in ended.out.splitlines())
    assert [path.name for path in report.parent.iterdir()] == ["metrics.json"]


def test_the_table_of_an_exported_model(colour_file: Path, colours: Path) -> None:
    for index, breed in enumerate(sorted(BREEDS - {"Egyptian_Mau", "pug"})[:12]):
        _write_plain(colours, f"{breed}_1", RED if index % 2 else BLUE, 1)
    ended = unet_train("evaluate", colour_file, "--data", colours, "--backend", "onnx")
    assert (ended.code, ended.err) == (0, "")
    lines = [line.split() for line in ended.out.splitlines()]
    assert ["background", "50.00%", "50.00%", "0.00%"] in lines
    assert ["worst", "5", "breeds"] in [line[:3] for line in lines]
    assert len([line for line in lines if line and line[0] in BREEDS]) == 10
    assert ["128", "1", "0.0000"] in [line[:3] for line in lines]
    assert "ONNX Runtime" in ended.out


def test_json_alone_goes_to_standard_output(colour_file: Path, colours: Path) -> None:
    ended = unet_train("evaluate", colour_file, "--data", colours, "--json")
    assert json.loads(ended.out)["overall"]["photos"] == 3


def test_trainval_and_a_count(trained: Trained, pictures: Path) -> None:
    ended = unet_train(
        "evaluate", trained.output / "model.keras", "--data", pictures, "--split", "trainval", "--count", 5
    )
    assert ended.code == 0
    assert "5 trainval photos" in ended.out


def test_photos_that_cannot_be_used_are_named_and_the_others_measured(colour_file: Path, colours: Path) -> None:
    (colours / "images" / "pug_1.jpg").write_bytes(b"no photo")
    ended = unet_train("evaluate", colour_file, "--data", colours)
    assert ended.code == 1
    assert "2 test photos" in ended.out
    assert ended.err.startswith(f"warning: left out: {colours / 'images' / 'pug_1.jpg'}")
    for photo in (colours / "images").iterdir():
        photo.unlink()
    ended = unet_train("evaluate", colour_file, "--data", colours)
    assert (ended.code, ended.out) == (1, "")
    assert "none of 3 photos can be used" in ended.err


def test_missing_data_is_exit_1(colour_file: Path, tmp_path: Path) -> None:
    ended = unet_train("evaluate", colour_file, "--data", tmp_path / "nowhere")
    assert (ended.code, ended.out) == (1, "")
    assert f"error: {tmp_path / 'nowhere'}: no such folder, expected a dataset's folder" in ended.err


@pytest.mark.parametrize("model", [KERAS, FLOAT_ONNX, INT8_TFLITE])
def test_a_damaged_model_is_exit_3(model: Path, colours: Path, tmp_path: Path) -> None:
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = tmp_path / f"damaged{model.suffix}"
    damaged.write_bytes(content)
    ended = unet_train("evaluate", damaged, "--data", colours)
    assert ended.code == 3
    assert "damaged: its bytes have SHA-256" in ended.err


def test_a_model_that_names_no_split_is_exit_3(colour_model: Path, colours: Path) -> None:
    ended = unet_train("evaluate", colour_model, "--data", colours)
    assert ended.code == 3
    assert "does not say which photos were held out" in ended.err


def test_a_model_that_names_an_unknown_split_is_exit_3(colours: Path, tmp_path: Path) -> None:
    spec = replace(_spec(), provenance=Provenance(split="random:x"))
    ended = unet_train("evaluate", write_colour_model(tmp_path / "odd.onnx", spec), "--data", colours)
    assert ended.code == 3
    assert "odd.onnx: its spec names split 'random:x': expected official, article, random:SEED or fold:K/N" in ended.err


def test_a_random_split_is_measured_on_its_own_photos(colours: Path, tmp_path: Path) -> None:
    for index in range(20):  # whatever the lists say: _write_plain puts every photo in test.txt
        _write_plain(colours, f"breed_{index}", RED, 1)
    expected = read_split(open_dataset(colours), "random:7", "test")
    assert 0 < len(expected) < 23
    spec = replace(_spec(), provenance=Provenance(split="random:7"))
    for path in set((colours / "images").iterdir()) - {item.photo for item in expected}:
        path.write_bytes(b"of no use")
    result = _evaluate(write_colour_model(tmp_path / "random.onnx", spec), colours)
    assert (result.overall.photos, result.problems, result.split) == (len(expected), [], "random:7")


def test_a_keras_file_that_keras_refuses_is_exit_3(
    trained: Trained, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise TypeError("unknown\n layer")

    monkeypatch.setattr(keras.models, "load_model", refuse)
    ended = unet_train("evaluate", trained.output / "model.keras", "--data", colours)
    assert ended.code == 3
    assert "refuses it (unknown layer): train it again" in ended.err


def test_a_keras_file_that_is_not_what_its_spec_says_is_exit_3(
    trained: Trained, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Dense(2)])
    monkeypatch.setattr(keras.models, "load_model", lambda *arguments, **options: other)
    ended = unet_train("evaluate", trained.output / "model.keras", "--data", colours)
    assert ended.code == 3
    assert "maps ((None, 8, 8, 3), (None, 8, 8, 2)), its spec says ((None, 32, 32, 3)" in ended.err


@pytest.mark.parametrize(("model", "backend"), [(KERAS, "onnx"), (FLOAT_ONNX, "tflite")])
def test_an_engine_that_does_not_read_the_file_is_exit_3(model: Path, backend: str, colours: Path) -> None:
    ended = unet_train("evaluate", model, "--data", colours, "--backend", backend)
    assert ended.code == 3
    assert f"backend {backend} reads" in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (FLOAT_ONNX, "--split", "validation"),
        (FLOAT_ONNX, "--count", 0),
        (FLOAT_ONNX, "--backend", "keras"),
        (FLOAT_ONNX, "--json", REPOSITORY),
        (FLOAT_ONNX, "--json", "-o", "metrics.json"),
    ],
)
def test_wrong_usage_is_exit_2(arguments: tuple[object, ...]) -> None:
    assert unet_train("evaluate", *arguments).code == 2


def test_a_report_that_cannot_be_written_is_refused_before_measuring(
    colour_file: Path, colours: Path, tmp_path: Path
) -> None:
    shutil.rmtree(colours)
    (tmp_path / "file").write_text("")
    ended = unet_train("evaluate", colour_file, "--data", colours, "--json", tmp_path / "file" / "metrics.json")
    assert ended.code == 1
    assert "cannot be written" in ended.err
