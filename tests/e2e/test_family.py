"""Every architecture the whole way: both converters, their gates, masks from the runtime."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest

from tests.helpers import family
from tests.helpers.onnx_file import export_onnx
from unet_export.formats.onnx_graph import layer_of_node
from unet_export.photos import PhotoSource
from unet_export.pipeline import ExportOptions, export_model
from unet_runtime import Segmenter
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.datasets import open_dataset, open_labels, read_split
from unet_runtime.core.metrics import confusion, iou
from unet_runtime.core.spec import InputSpec, ModelSpec, OutputSpec
from unet_training.build import PET_CLASSES
from unet_training.keras_backend import load_model
from unet_training.models import ARCHITECTURES, unet2015
from unet_training.pipeline import train

FAMILY = sorted({*ARCHITECTURES} - {"lite-slim", "lite1", "lite2"})
"""Those three are lite with other numbers of the same layers: tests/training/test_lite.py builds them."""

FORMATS = ("onnx", "tflite-int8")
"""One format by tf2onnx, one by TensorFlow's converter; SLOW_TESTS=1 tries others, made of the same graphs."""
if os.environ.get("SLOW_TESTS"):
    FORMATS = ("saved-model", "onnx", "tflite-float16", "tflite-int8")


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return family.write_discs(tmp_path_factory.mktemp("discs") / "discs")


def test_a_network_without_padding_trains_into_a_file_of_its_spec(discs: Path, tmp_path: Path) -> None:
    """The rest of the family trains in tests/training; what an epoch teaches depends on the CPU, and is not asked."""
    # RMSprop: AdamW's graph takes a minute to build.
    recipe = replace(family.recipe("unet2015", epochs=1), optimizer="rmsprop")
    result = train(recipe, discs, tmp_path, data_name="discs", seed=1)
    assert result.spec.architecture == "unet2015"
    assert result.spec.input.margin == unet2015.margin(1)
    assert np.isfinite(result.history["loss"] + result.history["val_loss"]).all()
    load_model(read_artifact(result.model))  # raises where input or output is not as the spec says


@pytest.mark.parametrize("name", FAMILY)
def test_it_is_exported_proven_and_run(name: str, discs: Path, tmp_path: Path) -> None:
    """From committed weights: the gate's margins were measured, see ``tests/helpers/family.py``."""
    model = family.write_model(name, tmp_path / "model.keras")
    results = export_model(model, PhotoSource(discs), tmp_path / "export", ExportOptions(FORMATS))
    assert tuple(entry.format for entry in results) == FORMATS
    for entry in results:
        assert entry.passed, entry.failures
        assert entry.checked
    files = [entry for entry in results if entry.path.is_file()]
    nodes = onnx.load(files[0].path).graph.node
    assert all(layer_of_node(node.name) for node in nodes if node.op_type in ("Conv", "ConvTranspose"))

    truth = read_split(open_dataset(discs), "official", "test")
    for entry in files:
        segmenter = Segmenter(entry.path)
        masks = [segmenter(photo.photo).mask for photo in truth]
        matrix = confusion([open_labels(photo) for photo in truth], masks, 3)
        assert iou(matrix).mean() > 0.75, entry.format


@pytest.mark.parametrize("overlap", [0, 0.25])
def test_tiles_of_unpadded_convolutions_are_the_whole_picture_s(overlap: float, tmp_path: Path) -> None:
    """Pooling included, up to the edge: the paper's overlap-tile strategy."""
    keras.utils.set_random_seed(1)
    whole, tile = (unet2015.build(side, side, 3, filters=4, depth=2) for side in (None, 76))
    whole.set_weights([4 * weights if weights.ndim > 1 else weights for weights in tile.get_weights()])
    tile.set_weights(whole.get_weights())
    margin = unet2015.margin(2)
    spec = ModelSpec("tile", "unet2015", "CC0-1.0", InputSpec(76, 76, margin=margin), OutputSpec(36, 36), PET_CLASSES)
    (tmp_path / "tile.onnx").write_bytes(export_onnx(tile, spec))
    photo, _ = family.draw(np.random.default_rng(0), 116, 148)
    mirrored = np.pad(photo, ((margin, margin), (margin, margin), (0, 0)), "reflect")
    expected = whole(mirrored[np.newaxis], training=False).numpy()[0]  # (116, 148, 3)
    found = Segmenter(tmp_path / "tile.onnx").tiled(photo, overlap=overlap)
    assert found.tiles > 8
    bands = np.concatenate([band for _, band in found.probability_bands()])
    assert expected.std() > 0.1
    np.testing.assert_allclose(bands, expected, atol=1e-4)
