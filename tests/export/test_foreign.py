"""A Keras segmentation model that unet-train did not make: exported by what its user says of it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tests.helpers.tiny import SIZE
from unet_export.errors import ExportError
from unet_export.foreign.load import Description, load_model, parse_classes
from unet_export.photos import PhotoSource
from unet_export.pipeline import ExportOptions, export_model
from unet_runtime import Segmenter
from unet_runtime.core.artifact import read_artifact
from unet_training.models.unet import build

CLASSES = parse_classes("pet,background,border:neutral")


def small(side: int | None = SIZE, *, dtype: str = "float32", last: str | None = None, classes: int = 3) -> Any:
    """Two convolutions: float pixels in, logits out."""
    keras.utils.set_random_seed(5)
    image = keras.Input((side, side, 3), dtype=dtype)
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    x = layers.Conv2D(classes, 1, activation=last)(x)
    return keras.Model(image, x, name="foreign")


def saved(model: Any, folder: Path) -> Path:
    path = folder / "someone-s.keras"
    model.save(path)
    return path


@pytest.mark.parametrize(
    ("text", "names", "roles"),
    [
        ("pet,background", ["pet", "background"], ["foreground", "background"]),
        ("a:background, b:neutral, c", ["a", "b", "c"], ["background", "neutral", "foreground"]),
    ],
)
def test_classes_are_named_by_the_user(text: str, names: list[str], roles: list[str]) -> None:
    classes = parse_classes(text)
    assert [entry.name for entry in classes] == names
    assert [entry.role for entry in classes] == roles
    assert len({entry.color for entry in classes}) == len(names)


@pytest.mark.parametrize("text", ["", "background", "a,a", "a,,b", "a,b:middle"])
def test_other_classes_are_refused(text: str) -> None:
    with pytest.raises(ExportError, match=f"^classes {text!r}: .*expected"):
        parse_classes(text)


@pytest.mark.parametrize("pixels", ["0..255", "0..1", "-1..1"])
def test_its_preprocessing_and_its_softmax_go_into_the_file(pixels: str, tmp_path: Path, images: Any) -> None:
    original = small()
    model, spec = load_model(saved(original, tmp_path), Description(CLASSES, pixels=pixels, head="logits"))
    fed = {"0..255": images * 1.0, "0..1": images / 255, "-1..1": images / 127.5 - 1}[pixels]
    expected = keras.ops.softmax(original(fed.astype(np.float32))).numpy()
    np.testing.assert_allclose(model(images).numpy(), expected, atol=1e-5)
    assert (spec.name, spec.input.height, spec.output.activation) == ("someone-s", SIZE, "softmax")
    assert spec.provenance.weights_sha256


def test_a_model_of_any_size_gets_the_one_named(tmp_path: Path) -> None:
    path = saved(small(None, last="softmax"), tmp_path)
    model, spec = load_model(path, Description(CLASSES, size=(32, 64)))
    assert model.input_shape == (None, 32, 64, 3)
    assert (spec.output.height, spec.output.width) == (32, 64)


def test_a_size_that_the_model_cannot_halve_is_refused(tmp_path: Path) -> None:
    path = saved(build(None, None, 3, filters=2, depth=3), tmp_path)
    with pytest.raises(ExportError, match=r"cannot take photos of 150x150 .* name a --size that it can halve"):
        load_model(path, Description(CLASSES, size=(150, 150)))
    assert load_model(path, Description(CLASSES, size=(152, 160)))[1].output.height == 152


def test_it_is_exported_and_proven_without_trimaps(data: Path, tmp_path: Path) -> None:
    """Through the command's own way: a folder of photos each to calibrate and to prove."""
    for part in ("trainval", "test"):
        (tmp_path / part).mkdir()
        for path in (data / "images").glob(f"{part}_*.jpg"):
            (tmp_path / part / path.name).write_bytes(path.read_bytes())
    description = Description(CLASSES, pixels="0..1", head="logits")
    options = ExportOptions(("onnx", "tflite"), description=description)
    source = PhotoSource(calibration=tmp_path / "trainval", parity=tmp_path / "test")
    results = export_model(saved(small(), tmp_path), source, tmp_path / "out", options)
    assert [result.path.name for result in results] == [
        f"someone-s-{SIZE}.float32.onnx",
        f"someone-s-{SIZE}.float32.tflite",
    ]
    assert all(entry.metrics.mean_iou is None for result in results for entry in result.checked if entry.metrics)
    photo = next((tmp_path / "test").iterdir())
    masks = [Segmenter(result.path)(photo).mask for result in results]
    assert (masks[0] == masks[1]).mean() > 0.999
    assert read_artifact(results[0].path).spec.class_names == ("pet", "background", "border")


@pytest.mark.parametrize(
    ("model", "description", "reason"),
    [
        (
            lambda: small(classes=4),
            Description(CLASSES, head="logits"),
            "gives 4 channels, 3 classes were named",
        ),
        (lambda: small(), Description(CLASSES, size=(64, 64)), f"takes photos of {SIZE}x{SIZE}, --size says 64x64"),
        (lambda: small(), Description(CLASSES, head="softmax"), "expected the 1 of a softmax"),
        (
            lambda: small(last="softmax"),
            Description(CLASSES, head="logits"),
            "its last activation is softmax",
        ),
        (
            lambda: keras.Sequential([keras.Input((SIZE, SIZE, 3)), layers.Flatten(), layers.Dense(3)]),
            Description(CLASSES),
            r"its output \(None, 3\) is no map of classes",
        ),
    ],
)
def test_a_model_that_is_not_as_described_is_refused(
    model: Any, description: Description, reason: str, tmp_path: Path
) -> None:
    path = saved(model(), tmp_path)
    with pytest.raises(ExportError, match=reason):
        load_model(path, description)


def test_a_lambda_is_named_and_never_run(tmp_path: Path) -> None:
    image = keras.Input((SIZE, SIZE, 3))
    ran: list[int] = []
    x = layers.Lambda(lambda x: ran.append(1) or x, name="surprise")(image)
    path = saved(keras.Model(image, layers.Conv2D(3, 1)(x)), tmp_path)
    ran.clear()
    with pytest.raises(ExportError, match="Lambda surprise: such a layer is code in the file, which is never run"):
        load_model(path, Description(CLASSES))
    assert ran == []


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"no zip at all"])
def test_a_file_that_is_no_keras_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.keras"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=r"broken\.keras: no \.keras file, which is a zip"):
        load_model(path, Description(CLASSES))


def test_weights_that_are_cut_in_a_whole_archive_are_refused(tmp_path: Path) -> None:
    path, cut = saved(small(), tmp_path), tmp_path / "cut.keras"
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(cut, "w") as archive:
        for name in whole.namelist():
            content = whole.read(name)
            archive.writestr(name, content[:5000] if name.endswith(".h5") else content)
    with pytest.raises(ExportError, match=r"cut\.keras: Keras .* refuses it"):
        load_model(cut, Description(CLASSES))


def test_half_a_model_is_refused(tmp_path: Path) -> None:
    path = saved(small(), tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ExportError, match=r"no \.keras file, which is a zip"):
        load_model(path, Description(CLASSES))
