"""unet-train as a user runs it: what it writes, says and exits with."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tests.helpers.trained import TINY, Trained, read_until, start_training, unet_train
from unet_runtime.core.artifact import Artifact, read_artifact
from unet_runtime.core.datasets import open_dataset, read_split
from unet_runtime.core.metrics import confusion, iou
from unet_runtime.io.stamps import is_ours
from unet_training.build import model_sha256
from unet_training.data.dataset import load
from unet_training.recipes import PRESETS


@pytest.fixture(scope="module")
def artifact(trained: Trained) -> Artifact:
    return read_artifact(trained.output / "model.keras")


def test_a_training_writes_its_files_and_nothing_else(trained: Trained) -> None:
    assert trained.ended.code == 0
    assert {path.name for path in trained.output.iterdir()} == {
        "curves.png",
        "best.png",
        "worst.png",
        "random.png",
        "confusion.png",
        "checkpoint.npz",
        "checkpoint.previous.npz",
        "cache",
        "history.json",
        "model.keras",
        "report.html",
    }


def test_what_a_training_writes_is_known(trained: Trained) -> None:
    for path in trained.output.iterdir():
        assert path.name in ("cache", "history.json") or is_ours(path, "unet-train"), path


@pytest.mark.parametrize("name", ["report.html", "best.png", "history.json", "checkpoint.npz"])
def test_files_of_others_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("made with a pencil, of unet-edge")
    ended = unet_train("--data", tmp_path / "absent", "--output", tmp_path)
    assert ended.code == 1
    assert f"{name}: exists, and was not made by unet-train: move it away" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_model_that_is_read_is_not_replaced(trained: Trained, tmp_path: Path) -> None:
    shutil.copy(trained.output / "model.keras", tmp_path)
    before = (tmp_path / "model.keras").read_bytes()
    words = ["--weights", tmp_path / "model.keras", "--output", tmp_path, "--data", tmp_path / "absent"]
    ended = unet_train(*words, "--overwrite")
    assert (ended.code, "model.keras: is read in this run" in ended.err) == (1, True)
    assert (tmp_path / "model.keras").read_bytes() == before


def test_the_model_is_float32_though_trained_in_bfloat16(trained: Trained, artifact: Artifact) -> None:
    model = keras.models.load_model(artifact.path)
    assert {variable.dtype for variable in model.weights} == {"float32"}
    assert {layer.dtype_policy.name for layer in model.layers} <= {"float32", "uint8"}
    assert artifact.spec.precision == "float32"
    assert artifact.spec.provenance.recipe["precision"] == "mixed_bfloat16"
    assert artifact.spec.provenance.weights_sha256 == model_sha256(model)


def test_the_spec_describes_the_training(artifact: Artifact) -> None:
    spec = artifact.spec
    assert (spec.name, spec.architecture, spec.class_names) == (
        "drawn-unet-small",
        "unet",
        ("pet", "background", "border"),
    )
    assert (spec.input.height, spec.input.width, spec.output.height, spec.output.width) == (32, 32, 32, 32)
    provenance = spec.provenance
    assert provenance.data == "drawn, official split, 18 photos"
    assert (provenance.split, provenance.seed) == ("official", 1)
    changed = {
        "name": "drawn-unet-small",
        "split": "official",
        "filters": 2,
        "depth": 1,
        "size": 32,
        "sizes": [32],
        "batch_size": 4,
        "epochs": 2,
    }
    assert provenance.recipe == asdict(PRESETS["unet-small"]) | changed | {"precision": "mixed_bfloat16"}


def test_the_recorded_command_names_no_folder_of_this_machine(artifact: Artifact) -> None:
    assert artifact.spec.provenance.command == (
        "unet-train --data drawn --preset unet-small --width 2 --depth 1 --size 32 --epochs 2 --batch-size 4 "
        "--precision mixed_bfloat16 --output output"
    )


def test_the_metrics_are_those_of_the_written_model(pictures: Path, artifact: Artifact) -> None:
    test = load(read_split(open_dataset(pictures), "official", "test"), artifact.spec.input)
    model = keras.models.load_model(artifact.path)
    masks = model.predict(test.photos, verbose=0).argmax(axis=-1)
    scores = iou(confusion(test.masks, masks, 3))
    metrics = artifact.spec.provenance.metrics
    assert (metrics["split"], metrics["photos"]) == ("test", 8)
    assert [metrics["iou"][name] for name in artifact.spec.class_names] == pytest.approx(scores.tolist(), abs=2e-5)
    assert metrics["mean_iou"] == pytest.approx(scores.mean(), abs=2e-5)
    assert metrics["pixel_accuracy"] == pytest.approx((masks == test.masks).mean(), abs=2e-5)


def test_the_metrics_are_printed(trained: Trained, artifact: Artifact) -> None:
    metrics = artifact.spec.provenance.metrics
    assert f"drawn-unet-small, epoch {metrics['epoch']}, on 8 test photos" in trained.ended.out
    for label, value in (("mean IoU", metrics["mean_iou"]), ("border IoU", metrics["iou"]["border"])):
        assert any(line.split() == [*label.split(), f"{value:.4f}"] for line in trained.ended.out.splitlines())
    assert str(artifact.path) in trained.ended.out
    assert "no use on photos" not in trained.ended.err


def test_history_holds_a_value_for_every_epoch(trained: Trained) -> None:
    history = json.loads((trained.output / "history.json").read_text())
    assert {"loss", "val_loss", "mean_iou", "val_mean_iou", "pixel_accuracy", "val_pixel_accuracy"} <= set(history)
    assert {len(values) for values in history.values()} == {2}


def test_the_report_s_pictures_are_pictures(trained: Trained) -> None:
    for name, colors in (("curves.png", 3), ("worst.png", 30)):
        with Image.open(trained.output / name) as image:
            pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
        assert len(pixels) > 200_000
        assert len(np.unique(pixels, axis=0)) > colors


@pytest.mark.usefixtures("small_network", "eager", "no_report")
def test_recipe_options_reach_the_training_and_the_spec(pictures: Path, tmp_path: Path) -> None:
    shared = ("--data", pictures, "--preset", "demo", *TINY)
    assert unet_train(*shared, "--epochs", 1, "--output", tmp_path / "first").code == 0
    first = tmp_path / "first" / "model.keras"
    chosen = {
        "region_loss": "lovasz",
        "region_weight": 0.5,
        "border_weight": 2.0,
        "ema": 0.5,
        "accumulation": 2,
        "activation": "sigmoid",
        "distillation_weight": 3.0,
        "rotation": 20.0,
        "photo_scale": 1.5,
        "zoom": 0.4,
        "cut_out": 0.3,
        "negatives": 0.2,
        "hard_pixels": 0.5,
        "weight_bits": 11,
        "split": "random:7",
    }
    words: list[object] = ["--epochs", 2, "--sizes", "16,32", "--weights", first, "--teacher", first]
    for name, value in chosen.items():
        words += ["--" + name.replace("_", "-"), value]
    ended = unet_train(*shared, *words, "--output", tmp_path / "second")
    assert ended.code == 0
    spec = read_artifact(tmp_path / "second" / "model.keras").spec
    assert (spec.output.activation, spec.provenance.split) == ("sigmoid", "random:7")
    recipe = spec.provenance.recipe
    assert recipe["sizes"] == [16, 32]
    assert {name: recipe[name] for name in chosen} == chosen
    origin = f"drawn-demo {read_artifact(first).spec.provenance.weights_sha256}"
    assert (recipe["weights"], recipe["teacher"]) == (origin, origin)
    assert "--sizes 16,32" in spec.provenance.command
    assert "--teacher model.keras" in spec.provenance.command


@pytest.mark.usefixtures("small_network", "eager", "no_report")
def test_synthetic_draws_its_pictures_once_and_says_what_the_model_is_for(tmp_path: Path) -> None:
    arguments = ("--data", "synthetic", "--output", tmp_path, "--synthetic-count", 16, "--epochs", 1, *TINY)
    ended = unet_train(*arguments)
    assert ended.code == 0
    assert "16 generated pictures" in ended.err
    assert "for trying it out only, of no use on photos" in ended.err
    spec = read_artifact(tmp_path / "model.keras").spec
    assert (spec.name, spec.license) == ("demo", "Apache-2.0")
    assert spec.provenance.data == "synthetic, official split, 9 photos"
    assert spec.provenance.metrics["photos"] == 4
    drawn = (tmp_path / "synthetic" / "synthetic.json").stat().st_mtime_ns
    refused = unet_train(*arguments)
    assert refused.code == 1
    assert "model.keras: is there already (demo, mean IoU " in refused.err
    assert "insist with --overwrite" in refused.err
    assert unet_train(*arguments, "--overwrite").code == 0
    assert (tmp_path / "synthetic" / "synthetic.json").stat().st_mtime_ns == drawn


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--architecture", "attention", "--size", 100), "attention: input size 100x100, expected multiples of 16"),
        (("--size", 0), "--size"),
        (("--architecture", "net"), "'unet2015'"),
        (("--architecture", "unet2015"), "input size 160x160, expected 184 + 4 + a multiple of 16: 204, 220, ..."),
        (("--architecture", "canet", "--depth", 5), "architecture canet: depth 5, expected 2 to 4 stages"),
        (("--architecture", "edge-fast", "--size", 48), "48x48, expected multiples of 32"),
        (
            ("--preset", "unet-small", "--encoder-weights", "imagenet"),
            "go with the architectures lite, lite-slim, lite1, lite2, here it is unet",
        ),
        (
            ("--preset", "unet-small", "--encoder-rate", 0.1),
            "go with the architectures lite, lite-slim, lite1, lite2, here it is unet",
        ),
        (("--preset", "article", "--architecture", "lite", "--encoder-rate", 0.1), "here the optimizer is rmsprop"),
        (("--width", 0), "--width"),
        (("--preset", "best"), "'article', 'edge', 'accurate', 'unet-small', 'edge-fast', 'few', 'demo'"),
        (("--precision", "int8"), "mixed_bfloat16"),
        (("--epochs", 0), "--epochs"),
        (("--learning-rate", 0), "--learning-rate"),
        (("--cache", "kept", "--no-cache"), "exclude each other"),
        (("--sizes", "96,x"), "'96,x', expected sizes up to 16384 pixels with commas between"),
        (("--architecture", "attention", "--sizes", "96,100,160"), "input size 100x100, expected multiples of 16"),
        (("--sizes", "0,160"), "'0,160', expected sizes up to 16384 pixels with commas between"),
        (("--sizes", "96,128"), "--sizes ends with 128, expected the model's --size, 160"),
        (("--sizes", "96,128,160", "--epochs", 2), "names 3 sizes for 2 epochs"),
        (("--split", "random:x"), "expected official, article, random:SEED or fold:K/N"),
        (("--region-loss", "focal"), "'none', 'dice', 'lovasz'"),
        (("--ema", 1), "--ema"),
        (("--fit", "squeeze"), "'stretch', 'letterbox', 'crop'"),
        (("--crop", "--fit", "letterbox"), "--crop is --fit crop, and --fit is letterbox: expected one of them"),
        (("--name", "a/b"), "'a/b', expected up to 100 letters, digits and . + - _"),
        (("--license", " "), "expected a line of up to 500 letters"),
        (("--data-license", "a\nb"), "expected a line of up to 500 letters"),
        (("--synthetic-count", 16), "goes with --data synthetic, here --data is data/oxford-iiit-pet"),
        (("evaluat",), "Did you mean 'evaluate'"),
    ],
)
def test_wrong_usage_is_exit_2(arguments: tuple[object, ...], words: str) -> None:
    ended = unet_train(*arguments)
    assert ended.code == 2
    assert words in ended.err


def test_an_output_that_cannot_be_a_folder_is_refused_before_training(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = unet_train("--data", pictures, "--output", tmp_path / "file" / "output", "--epochs", 1, *TINY)
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith(
        f"error: {tmp_path / 'file' / 'output'}: cannot be written (Not a directory)"
    )


@pytest.mark.usefixtures("small_network", "eager")
def test_a_loss_that_is_no_number_is_exit_3(pictures: Path, tmp_path: Path) -> None:
    ended = unet_train("--data", pictures, "--output", tmp_path, "--learning-rate", "1e38", "--epochs", 3, *TINY)
    assert ended.code == 3
    assert "lower --learning-rate" in ended.err
    assert not (tmp_path / "model.keras").exists()


@pytest.mark.usefixtures("small_network", "eager", "no_report")
def test_photos_that_cannot_be_used_are_counted_and_named(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "pets")
    (tmp_path / "pets" / "images" / "synthetic_0003.jpg").unlink()
    ended = unet_train("--data", tmp_path / "pets", "--output", tmp_path / "output", "--epochs", 1, *TINY)
    assert ended.code == 0
    assert "left out 1 photos that cannot be used:" in ended.err
    assert "synthetic_0003" in ended.err


def test_a_missing_backend_is_exit_3_and_names_the_package(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)  # as Keras without its backend: the import fails
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    ended = unet_train("--data", pictures, "--output", tmp_path)
    assert ended.code == 3
    assert 'pip install "jax' in ended.err


def test_help_has_groups_and_the_presets_defaults() -> None:
    help_text = unet_train("-h").out
    sections = ("Data:", "Training:", "Network:", "Loss:", "Results:", "Other options:", "Commands:", "Examples:")
    places = [help_text.index(f"\n{title}\n") if title != "Examples:" else help_text.index(title) for title in sections]
    assert places == sorted(places)
    assert "[default: 24; article: 64; unet-small: 16; demo: 8]" in " ".join(help_text.split()).replace(
        "unet- ", "unet-"
    )


@pytest.mark.usefixtures("small_network", "eager", "no_report")
def test_pets_dir_names_the_data_and_json_is_all_of_standard_output(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PETS_DIR", str(pictures))
    ended = unet_train("-o", tmp_path, "--preset", "demo", "--epochs", 1, *TINY, "--json", "-q")
    assert json.loads(ended.out)["photos"] == 8
    assert all(line.startswith("warning: ") for line in ended.err.splitlines())
    assert "--data drawn" in read_artifact(tmp_path / "model.keras").spec.provenance.command


def test_help_does_not_wait_for_keras() -> None:
    code = (
        "import sys; from unet_training.cli import command; command.command(['--help'], standalone_mode=False); "
        "print(sorted({'keras', 'tensorflow', 'matplotlib', 'pooch'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"


def _interrupt_at(words: str, *arguments: object, code: str = "") -> tuple[int, str, str]:
    """Ctrl-C once a line with ``words`` came: exit code, the rest of stdout and stderr."""
    with start_training(*arguments, code=code) as process:
        read_until(words, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_ctrl_c_after_an_epoch_keeps_the_best_model(pictures: Path, tmp_path: Path) -> None:
    code, out, err = _interrupt_at("epoch 2/5000", "--data", pictures, "--output", tmp_path, "--epochs", 5000, *TINY)
    assert code == 130, err
    assert "interrupted: keeping the best epoch so far" in err
    assert "validation photos" in out
    spec = read_artifact(tmp_path / "model.keras").spec
    assert spec.provenance.metrics["split"] == "validation"
    assert keras.models.load_model(tmp_path / "model.keras").output_shape == (None, 32, 32, 3)
    assert {"curves.png", "worst.png", "report.html", "history.json"} < {path.name for path in tmp_path.iterdir()}


def test_ctrl_c_before_an_epoch_says_that_nothing_was_kept(pictures: Path, tmp_path: Path) -> None:
    endless = "import time; from unet_training.fit import checkpoint; "
    endless += "checkpoint.Checkpoint.on_epoch_end = lambda *_: time.sleep(600)"
    words = ("--data", pictures, "--output", tmp_path, *TINY)
    code, _, err = _interrupt_at("choose the checkpoint", *words, code=endless)
    assert code == 130, err
    # Not the last line: TensorFlow may report the end of its own threads behind it.
    assert "error: interrupted before the end of the first epoch: nothing was kept" in err.splitlines()
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
