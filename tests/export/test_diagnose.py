"""The ranking names the layer that int8 cannot hold, in either family of files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from tests.helpers.hard_model import hard_model
from tests.helpers.int8_predictions import onnx_files, tflite_files
from unet_export.diagnosis.diagnose import diagnose, main_contributors, table
from unet_export.diagnosis.layer_errors import Grid, LayerError, noise_to_signal
from unet_export.errors import ExportError
from unet_runtime.core.spec import ModelSpec

WILD = "bridge_norm_a"
CONTRIBUTOR = "bridge_conv_a"
"""Makes the channels that are wild behind ``WILD``, which is folded into it."""

PHOTOS = 6
SUFFIXES = (".onnx", ".tflite")

Files = Callable[[str, str], tuple[bytes, bytes]]


@pytest.fixture(scope="module")
def files(model: Any, spec: ModelSpec, images: Any, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """(plain or wild, suffix) -> float and int8 file."""
    models = {"plain": model, "wild": hard_model(model, 5, [WILD])}
    made: dict[tuple[str, str], tuple[bytes, bytes]] = {}

    def get(kind: str, suffix: str) -> tuple[bytes, bytes]:
        if (kind, suffix) not in made:
            work = tmp_path_factory.mktemp("files")
            made[kind, suffix] = (
                onnx_files(models[kind], images)
                if suffix == ".onnx"
                else tflite_files(models[kind], spec, images, work)
            )
        return made[kind, suffix]

    return get


@pytest.fixture(scope="module")
def layers(model: Any) -> list[str]:
    return [layer.name for layer in model.layers]


def errors(files: Files, images: Any, kind: str, suffix: str, layers: list[str]) -> dict[str, LayerError]:
    """By layer, in order of contribution."""
    found = diagnose(*files(kind, suffix), images[:PHOTOS], suffix, layers)
    return {error.layer: error for error in found if error.layer}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_layer_made_wild_is_on_top(files: Files, images: Any, suffix: str, layers: list[str]) -> None:
    found = diagnose(*files("wild", suffix), images[:PHOTOS], suffix, layers)
    assert found[0].layer == CONTRIBUTOR
    assert main_contributors(found)[:2] == [CONTRIBUTOR, "bridge_conv_b"]  # who makes the channels, then who reads them
    worst = found[0]
    assert worst.narrow > 0.3
    assert worst.own > 0.3
    assert worst.sqnr > 20  # which says nothing: the loud channels are fine
    assert all(error.own < 0.01 for error in found[1:])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_model_without_fault_has_no_contributor(files: Files, images: Any, suffix: str, layers: list[str]) -> None:
    found = errors(files, images, "plain", suffix, layers)
    assert max(error.contribution for error in found.values()) < 0.01
    assert all(error.narrow == 0 for error in found.values())
    assert all(error.sqnr > 20 for error in found.values())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_convolution_of_the_network_is_named(
    model: Any, files: Files, images: Any, suffix: str, layers: list[str]
) -> None:
    wanted = {
        layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Conv2DTranspose)
    }
    found = errors(files, images, "plain", suffix, layers)
    assert wanted <= set(found)
    assert {layer for layer, error in found.items() if error.weights_sqnr is not None} == wanted
    exact = {"logits"} if suffix == ".onnx" else set()  # the head of an ONNX file stays in float32
    assert all(found[layer].weights_sqnr > 100 for layer in exact)  # type: ignore[operator]
    assert all(30 < found[layer].weights_sqnr < 70 for layer in wanted - exact)  # type: ignore[operator]  # 7 or 8 bits
    assert found["encoder1_conv_a"].readers == ("encoder1_conv_b",)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_ranges_are_those_of_the_model(model: Any, files: Files, images: Any, suffix: str, layers: list[str]) -> None:
    found = errors(files, images, "plain", suffix, layers)
    probe = keras.Model(model.inputs[0], model.get_layer("encoder2_relu_a").output)
    values = probe(images[:PHOTOS], training=False).numpy()
    error = found["encoder2_conv_a"]
    assert (error.low, error.high) == pytest.approx((values.min(), values.max()), rel=1e-4)
    assert error.represented is not None
    assert error.represented == pytest.approx((0.0, error.high), rel=0.5)


def test_values_beyond_the_calibrated_range_are_reported(
    model: Any, spec: ModelSpec, images: Any, layers: list[str]
) -> None:
    dull = 110 + images // 10  # photos that show none of the contrast of the real ones
    found = diagnose(*onnx_files(model, dull), images[:PHOTOS], ".onnx", layers)
    assert max(error.saturated for error in found) > 0.01


def test_the_table_has_a_line_a_layer(files: Files, images: Any, layers: list[str]) -> None:
    found = diagnose(*files("wild", ".onnx"), images[:PHOTOS], ".onnx", layers)
    lines = table(found, rows=3).splitlines()
    assert lines[0].split()[0] == "layer"
    assert lines[1].split()[0] == CONTRIBUTOR
    assert lines[4] == f"... and {len(found) - 3} layers that add less"
    assert len({len(line) for line in table(found, rows=1).splitlines()[:2]}) == 1  # columns are aligned
    assert "float" in table([replace(found[0], represented=None)])


def test_files_of_two_models_are_refused(files: Files, model: Any, images: Any, layers: list[str]) -> None:
    image = keras.Input((48, 48, 3), dtype="uint8")
    x = keras.layers.Conv2D(2, 3, name="other")(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.Conv2D(2, 1, name="head")(x)
    other = onnx_files(keras.Model(image, keras.layers.Softmax()(x)), images)
    with pytest.raises(ExportError, match="expected the float32 and the int8 file of the same model"):
        diagnose(other[0], files("plain", ".onnx")[1], images, ".onnx", layers)
    with pytest.raises(ExportError, match=r"'\.h5' cannot be diagnosed, expected \.onnx or \.tflite"):
        diagnose(b"", b"", images, ".h5", layers)


def test_noise_is_that_of_the_mean_channel() -> None:
    signal, noise = np.array([1000.0, 1.0, 0.0]), np.array([1.0, 5.0, 3.0])
    assert noise_to_signal(noise, signal) == pytest.approx((0.001 + 1) / 2)  # a lost channel is 1, a silent one nothing


def test_a_grid_rounds_and_clips() -> None:
    grid = Grid(0.5, -128, -128, 127)
    assert (grid.low, grid.high) == (0, 127.5)
    np.testing.assert_array_equal(grid.rounded(np.float32([-3, 0.3, 7.7, 200])), np.float32([0, 0.5, 7.5, 127.5]))
