"""All or nothing: what is in the output folder, however an export ends."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf

from tests.helpers.exported import FORMATS, ONNX, TFLITE, Export
from tests.helpers.tiny import SIZE, TEST, TRAIN
from unet_export import staging
from unet_export.errors import ExportError
from unet_export.foreign.load import load_model
from unet_export.formats import FORMATS as ALL
from unet_export.formats import Builder
from unet_export.formats import onnx_convert as onnx
from unet_export.gate.gate import ParityError
from unet_export.photos import PhotoSource
from unet_export.pipeline import ExportOptions, export_model
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.datasets import open_dataset
from unet_runtime.core.errors import OutputError
from unet_runtime.core.spec import ModelSpec, Provenance
from unet_runtime.io.stamps import is_ours
from unet_training.data.dataset import split_dataset
from unet_training.models.unet import build

FLOATS = ("saved-model", "onnx")
FOLDERS = ("triton", "web", "tflite-micro")
"""Formats whose own tests export them and look into them."""


def tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def accepted(small_file: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An accepted export of ``small_file``, to be copied."""
    folder = tmp_path_factory.mktemp("accepted") / "export"
    export_model(small_file, PhotoSource(data), folder, ExportOptions(FLOATS))
    return folder


@pytest.fixture
def output(accepted: Path, tmp_path: Path) -> Path:
    """A folder with an accepted export in it, alone in its parent."""
    folder = tmp_path / "place" / "export"
    shutil.copytree(accepted, folder)
    return folder


def test_the_report_says_what_was_measured(exported: Export, spec: ModelSpec) -> None:
    report = json.loads((exported.folder / "parity.json").read_text(encoding="utf-8"))
    assert report["passed"] is True
    assert report["model"] == spec.name
    assert report["photos"] == [f"test_{index:03}" for index in range(TEST)]
    assert len(report["calibration_photos"]) == TRAIN
    assert [entry["format"] for entry in report["artifacts"]] == list(FORMATS)
    for entry in report["artifacts"]:
        path = exported.folder / entry["file"]
        listed = path / "assets.extra" / "SHA256SUMS" if path.is_dir() else path
        assert entry["sha256"] == hashlib.sha256(listed.read_bytes()).hexdigest()
        assert entry["failures"] == []
        assert set(entry["tolerances"]) == {"max_abs", "agreement", "iou_drop", "class_drop"}
    graph = report["artifacts"][1]
    assert graph["tolerances"]["max_abs"] == 1e-5
    engines = {(entry["backend"], entry["device"]): entry for entry in graph["engines"]}
    assert list(engines) == [("onnx", "cpu"), ("onnx", "cuda"), ("openvino", "cpu")]
    for entry in (engines["onnx", "cpu"], engines["openvino", "cpu"]):
        figures, smallest = entry["figures"], entry["smallest_passing_tolerances"]
        assert entry["verdict"] == "passed"
        assert figures["mean_abs"] <= figures["p999_abs"] <= figures["max_abs"] <= smallest["max_abs"] <= 1e-5
        assert entry["milliseconds"] > 0
    assert engines["onnx", "cuda"]["verdict"] == "not checked"
    assert "no NVIDIA driver was found here" in engines["onnx", "cuda"]["not_checked"]


def test_a_random_split_holds_back_what_training_did_not_see(
    model: Any,
    spec: ModelSpec,
    write_model: Callable[..., Path],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: dict[str, list[str]] = {}

    def note(trained: Any, of: ModelSpec, photos: Any, work: Path, **options: bool) -> None:
        shown["calibration"] = [photo.name for photo in photos.calibration]
        shown["parity"] = [photo.name for photo in photos.parity]
        raise ExportError("seen enough")

    monkeypatch.setattr("unet_export.pipeline.Builder", note)
    path = write_model(model, replace(spec, provenance=replace(spec.provenance, split="random:7")))
    with pytest.raises(ExportError, match="seen enough"):
        export_model(path, PhotoSource(data), tmp_path / "out")
    trained_on = split_dataset(open_dataset(data), "random:7", validation=5, seed=1)
    assert shown["parity"] == [photo.name for photo in trained_on.test] != []
    assert sorted(shown["calibration"]) == sorted(photo.name for photo in trained_on.train + trained_on.validation)
    assert not set(shown["parity"]) & set(shown["calibration"])


@pytest.mark.parametrize("split", ["random:", "random:x", "random:-1", "mine"])
def test_an_unknown_split_is_refused(
    model: Any, spec: ModelSpec, write_model: Callable[..., Path], data: Path, tmp_path: Path, split: str
) -> None:
    path = write_model(model, replace(spec, provenance=replace(spec.provenance, split=split)))
    with pytest.raises(
        ExportError, match=rf"its spec names split '{split}': expected official, article, random:SEED or fold:K/N"
    ):
        export_model(path, PhotoSource(data), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("counts", [{"calibration_count": 199}, {"parity_count": 63}])
def test_a_count_below_its_minimum_is_refused(
    model_file: Path, data: Path, tmp_path: Path, counts: dict[str, int]
) -> None:
    with pytest.raises(ValueError, match="expected at least"):
        export_model(model_file, PhotoSource(data, **counts), tmp_path / "out")


@pytest.mark.usefixtures("mixed_up")
def test_a_failed_gate_accepts_nothing_and_keeps_the_export_apart(small_file: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "place" / "export"
    options = ExportOptions(FLOATS, all_or_nothing=True)
    with pytest.raises(ParityError, match=rf"{ONNX}: too different from") as caught:
        export_model(small_file, PhotoSource(data), output, options)
    assert [result.passed for result in caught.value.results] == [True, False]
    assert {path.name for path in output.iterdir()} == {"rejected"}
    assert {path.name for path in (output / "rejected").iterdir()} == {
        "parity.json",
        "report.html",
        "saved_model",
        ONNX,
    }
    report = json.loads((output / "rejected" / "parity.json").read_text(encoding="utf-8"))
    assert report["passed"] is False
    assert "tolerance" in report["artifacts"][1]["failures"][0]
    assert "would pass at" in report["artifacts"][1]["failures"][0]


@pytest.mark.usefixtures("mixed_up")
def test_each_artifact_is_accepted_or_rejected_by_itself(small_file: Path, data: Path, output: Path) -> None:
    """``output`` holds an earlier export, whose files this one's take the place of."""
    with pytest.raises(ParityError, match=rf"{ONNX}: too different from .*; accepted in .*: saved_model") as caught:
        export_model(small_file, PhotoSource(data), output, ExportOptions(FLOATS))
    assert [result.passed for result in caught.value.results] == [True, False]
    names = {"saved_model", "parity.json", "report.html", "README.md", "rejected"}
    assert {path.name for path in output.iterdir()} == names
    assert {path.name for path in (output / "rejected").iterdir()} == {ONNX, "parity.json", "report.html"}
    report = json.loads((output / "parity.json").read_text(encoding="utf-8"))
    assert (report["passed"], report["accepted"]) == (False, ["saved_model"])
    assert [entry["passed"] for entry in report["artifacts"]] == [True, False]


def test_a_format_that_cannot_be_made_takes_no_other_with_it(
    small_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise ExportError("tf2onnx cannot convert layer odd")

    monkeypatch.setattr(onnx, "build_onnx", refuse)
    with pytest.raises(ExportError, match="cannot convert layer odd"):
        export_model(small_file, PhotoSource(data), tmp_path / "all", ExportOptions(FLOATS, all_or_nothing=True))
    assert not (tmp_path / "all").exists()
    with pytest.raises(ParityError, match=rf"^{ONNX}: not made, or too different") as caught:
        export_model(small_file, PhotoSource(data), tmp_path / "out", ExportOptions(FLOATS))
    assert [refusal.reason for refusal in caught.value.refused] == ["tf2onnx cannot convert layer odd"]
    assert (tmp_path / "out" / "saved_model").is_dir()
    with pytest.raises(ExportError, match="cannot convert layer odd"):
        export_model(small_file, PhotoSource(data), tmp_path / "none", ExportOptions(("onnx", "onnx-float16")))


def test_a_failed_gate_leaves_the_previous_export_and_a_later_success_replaces_it(
    small_file: Path, data: Path, output: Path, accepted: Path, mixed_up: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_onnx = ExportOptions(("onnx",))
    with pytest.raises(ParityError):
        export_model(small_file, PhotoSource(data), output, only_onnx)
    rejected = {name: digest for name, digest in tree(output).items() if name.startswith("rejected/")}
    assert tree(output) == tree(accepted) | rejected
    assert len(rejected) == 3
    monkeypatch.undo()
    (output / "rejected" / "mine.txt").write_text("somebody else's")
    with (output / ONNX).open("r+b") as file:  # damaged, and still known as ours
        file.write(b"previous")
    (output / "notes.txt").write_text("the user's own")
    export_model(small_file, PhotoSource(data), output, only_onnx)
    # What the previous export left and this one's report does not speak of is gone; nothing of anybody else's is.
    assert {path.name for path in output.iterdir()} == {
        ONNX,
        "parity.json",
        "report.html",
        "README.md",
        "notes.txt",
        "rejected",
    }
    assert [path.name for path in (output / "rejected").iterdir()] == ["mine.txt"]
    assert tree(output)[ONNX] == tree(accepted)[ONNX]
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), MemoryError()])
def test_an_interrupted_export_leaves_the_previous_one(
    small_file: Path, data: Path, output: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def interrupted(*args: Any) -> None:
        raise error

    before = tree(output)
    monkeypatch.setattr("unet_export.gate.parity.prove", interrupted)
    monkeypatch.setattr(Builder, "write", lambda self, form, path, settings: path.write_bytes(b"half a file"))
    expected = OutputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        export_model(small_file, PhotoSource(data), output, ExportOptions(("tflite-int8",)))
    assert tree(output) == before
    assert list(output.parent.iterdir()) == [output]


def test_every_format_passes(exported: Export, model_file: Path, data: Path, tmp_path: Path) -> None:
    """Those of the session's export, and the others but for ``FOLDERS``."""
    others = tuple(name for name in ALL if name not in (*FORMATS, *FOLDERS))
    results = export_model(model_file, PhotoSource(data), tmp_path / "out", ExportOptions(others))
    assert [(result.format, result.failures) for result in results] == [(name, ()) for name in others]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "parity.json",
        "report.html",
        "README.md",
        *(f"tiny-{SIZE}{ALL[name].suffix}" for name in others),
    }
    for result in (*exported.results, *results):
        assert result.passed
        if result.path.is_file():  # a SavedModel's spec is read by a test of its own
            assert read_artifact(result.path).spec.precision == ALL[result.format].precision


@pytest.mark.parametrize("name", ["parity.json", "report.html", ONNX, f"rejected/{ONNX}", "saved_model"])
def test_files_of_others_stay(small_file: Path, data: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / "place" / "out"
    place = output / name / "mine.txt" if name == "saved_model" else output / name
    place.parent.mkdir(parents=True)
    place.write_text("made with a pencil, of unet-edge")
    before = tree(tmp_path)
    options = ExportOptions(FLOATS)
    with pytest.raises(OutputError, match=r"exists, and was not made by unet-export.*--overwrite"):
        export_model(small_file, PhotoSource(data), output, options)
    assert tree(tmp_path) == before
    if name != f"rejected/{ONNX}":
        export_model(small_file, PhotoSource(data), output, replace(options, overwrite=True))
        assert (output / "parity.json").is_file()


def test_what_an_export_wrote_is_known(exported: Export) -> None:
    for path in exported.folder.iterdir():
        assert is_ours(path, "unet-export"), path


def test_a_file_that_others_put_in_place_of_a_listed_one_stays(exported: Export, tmp_path: Path) -> None:
    shutil.copytree(exported.folder, tmp_path / "out")
    (tmp_path / "out" / TFLITE).write_text("mine")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "parity.json").write_text("{}")
    staging.accept(tmp_path / "new", tmp_path / "out", ["parity.json"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"parity.json", TFLITE}


@pytest.mark.parametrize("fails", range(6))
def test_a_move_that_fails_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int) -> None:
    """``fails``: which of the six moves (three away, three into place) fails."""
    names = ["saved_model", "a.onnx", "parity.json"]
    for place in ("new", "out"):
        (tmp_path / place / "saved_model").mkdir(parents=True)
        (tmp_path / place / "saved_model" / "file").write_text(place)
        for name in names[1:]:
            (tmp_path / place / name).write_text(place)
    before = tree(tmp_path / "out")
    moves, move = iter(range(100)), os.replace

    def failing(source: Any, target: Any) -> None:
        if next(moves) == fails:
            raise OSError(5, "Input/output error")
        move(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="Input/output"):
        staging.accept(tmp_path / "new", tmp_path / "out", names)
    assert tree(tmp_path / "out") == before


def test_an_output_that_cannot_be_made_is_an_output_error(model_file: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        export_model(model_file, PhotoSource(data), tmp_path / "file" / "export", ExportOptions(("onnx",)))


# --- models that are refused -----------------------------------------------------------------------


def test_a_model_without_a_split_is_refused(
    model: Any, write_model: Callable[..., Path], data: Path, spec: ModelSpec, tmp_path: Path
) -> None:
    path = write_model(model, replace(spec, provenance=Provenance()))
    with pytest.raises(ExportError, match=r"does not say which photos of .* it was trained on: name the --split"):
        export_model(path, PhotoSource(data), tmp_path / "out")


def test_a_name_with_folders_is_refused(
    model: Any, write_model: Callable[..., Path], data: Path, spec: ModelSpec, tmp_path: Path
) -> None:
    path = write_model(model, replace(spec, name="../tiny"))
    with pytest.raises(ExportError, match="without folders"):
        export_model(path, PhotoSource(data), tmp_path / "out")


def test_a_model_that_is_not_as_its_spec_says_is_refused(
    write_model: Callable[..., Path], data: Path, spec: ModelSpec, tmp_path: Path
) -> None:
    path = write_model(build(SIZE * 2, SIZE, 3, filters=2, depth=1), spec)
    with pytest.raises(ExportError, match=rf"uint8\(None, {SIZE * 2}, {SIZE}, 3\).*spec says uint8\(None, {SIZE}, "):
        export_model(path, PhotoSource(data), tmp_path / "out")


def test_half_precision_is_refused(
    write_model: Callable[..., Path], data: Path, spec: ModelSpec, tmp_path: Path
) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = build(SIZE, SIZE, 3, filters=2, depth=1)
    finally:
        keras.config.set_dtype_policy("float32")
    path = write_model(network, spec)
    with pytest.raises(ExportError, match="layers in bfloat16"):
        export_model(path, PhotoSource(data), tmp_path / "out")


def test_code_in_a_model_is_not_run(
    write_model: Callable[..., Path], data: Path, spec: ModelSpec, tmp_path: Path
) -> None:
    image = keras.Input((SIZE, SIZE, 3), dtype="uint8")
    network = keras.Model(image, keras.layers.Lambda(lambda x: x)(image))
    path = write_model(network, spec)
    with pytest.raises(ExportError, match=r"Lambda lambda: such a layer is code in the file, which is never run"):
        export_model(path, PhotoSource(data), tmp_path / "out")


def test_a_gpu_in_use_computes_in_full_float32(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_visible_devices", refuse)
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    try:
        load_model(model_file)
        assert not tf.config.experimental.tensor_float_32_execution_enabled()
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
