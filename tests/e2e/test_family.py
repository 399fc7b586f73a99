"""Every architecture the whole way: a few steps of training, three formats, their gates, masks from the runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from PIL import Image

from unet_export.formats.onnx import export_onnx
from unet_export.formats.onnx_graph import layer_of_node
from unet_export.photos import PhotoSource
from unet_export.pipeline import ExportOptions, export_model
from unet_runtime import Segmenter
from unet_runtime.labelled import confusion, iou, open_trimap, read_split
from unet_runtime.spec import InputSpec, ModelSpec, OutputSpec
from unet_training.build import PET_CLASSES
from unet_training.models import ARCHITECTURES, unet2015
from unet_training.recipes import PRESETS
from unet_training.train import train

COLOURS = np.array([[200, 60, 60], [60, 60, 200], [60, 200, 60]])
"""Of pet, background and border: what is told by its colour is learnt in a few steps, and for sure."""

SMALL = {"filters": 4, "depth": 1, "size": 48, "learning_rate": 5e-3}  # of unet2015's 48 pixels 32 have an answer
CHANGES = {
    "canet": {"filters": 32, "depth": 2, "learning_rate": 1e-3},
    "dense": {"filters": 6},
    "ladder": {"filters": 8},
    # Of a depth at which there is a decoder.
    "lite": {"filters": 8, "depth": 3},
    "lite1": {"filters": 8, "depth": 3},
    "lite2": {"filters": 8, "depth": 3},
}


def draw(random: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An animal that is a disc: RGB (height, width, 3), trimap values (height, width)."""
    rows, columns = np.indices((height, width))
    centre = random.uniform(0.35, 0.65, 2) * (height, width)
    radius = random.uniform(0.2, 0.35) * min(height, width)
    distance = np.hypot(rows - centre[0], columns - centre[1])
    classes = np.where(distance < radius, 0, np.where(distance < 1.35 * radius, 2, 1))
    photo = COLOURS[classes] + random.normal(0, 12, (height, width, 3))
    return np.clip(photo, 0, 255).astype(np.uint8), (classes + 1).astype(np.uint8)


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 pictures of 64x52 pixels to train on, 16 for the test, in the layout of Oxford-IIIT Pet."""
    root = tmp_path_factory.mktemp("discs") / "discs"
    (root / "images").mkdir(parents=True)
    (root / "annotations" / "trimaps").mkdir(parents=True)
    random = np.random.default_rng(0)
    names = [f"disc_{number:03}" for number in range(88)]
    for name in names:
        photo, trimap = draw(random, 52, 64)
        Image.fromarray(photo).save(root / "images" / f"{name}.jpg", quality=95)
        Image.fromarray(trimap).save(root / "annotations" / "trimaps" / f"{name}.png")
    (root / "annotations" / "trainval.txt").write_text("\n".join(names[:72]))
    (root / "annotations" / "test.txt").write_text("\n".join(names[72:]))
    return root


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_is_trained_exported_proven_and_run(name: str, discs: Path, tmp_path: Path) -> None:
    # Of AdamW's graph, which takes a minute to build, nothing would be seen here.
    recipe = replace(
        PRESETS["demo"], name=name, architecture=name, batch_size=8, epochs=12, validation=8,
        optimizer="rmsprop", **SMALL | CHANGES.get(name, {}),
    )  # fmt: skip
    result = train(recipe, discs, tmp_path, data_name="discs", seed=1, command="", say=lambda line: None)
    assert result.spec.architecture == name

    formats = ("saved-model", "onnx", "tflite-int8")
    results = export_model(result.model, PhotoSource(discs), tmp_path / "export", ExportOptions(formats))
    assert tuple(entry.format for entry in results) == formats
    for entry in results:
        assert entry.passed, entry.failures
        assert entry.checked
    nodes = onnx.load(results[1].path).graph.node
    assert all(layer_of_node(node.name) for node in nodes if node.op_type in ("Conv", "ConvTranspose"))

    truth = read_split(discs, "official", "test")
    for entry in results[1:]:
        segmenter = Segmenter(entry.path)
        masks = [segmenter(photo.photo).mask for photo in truth]
        matrix = confusion([open_trimap(photo.trimap) for photo in truth], masks, 3)
        assert iou(matrix).mean() > 0.75, entry.format


@pytest.mark.parametrize("overlap", [0, 0.25])
def test_tiles_of_unpadded_convolutions_are_the_whole_picture_s(overlap: float, tmp_path: Path) -> None:
    """Pooling included, up to the edge: the paper's overlap-tile strategy."""
    keras.utils.set_random_seed(1)
    whole, tile = (unet2015.build(side, side, 3, filters=4, depth=2) for side in (None, 76))
    whole.set_weights([4 * weights if weights.ndim > 1 else weights for weights in tile.get_weights()])
    tile.set_weights(whole.get_weights())
    margin = unet2015.margin(2)
    spec = ModelSpec(
        "tile", "unet2015", "CC0-1.0", InputSpec(76, 76, margin=margin), OutputSpec(36, 36), PET_CLASSES
    )  # fmt: skip
    (tmp_path / "tile.onnx").write_bytes(export_onnx(tile, spec))
    photo, _ = draw(np.random.default_rng(0), 116, 148)
    mirrored = np.pad(photo, ((margin, margin), (margin, margin), (0, 0)), "reflect")
    expected = whole(mirrored[np.newaxis], training=False).numpy()[0]  # (116, 148, 3)
    found = Segmenter(tmp_path / "tile.onnx").tiled(photo, overlap=overlap)
    assert found.tiles > 8
    bands = np.concatenate([band for _, band in found.probability_bands()])
    assert expected.std() > 0.1
    np.testing.assert_allclose(bands, expected, atol=1e-4)
