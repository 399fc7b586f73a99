"""COCO annotations, against pycocotools: decoding gives the very mask."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from tests.helpers.colours import colour_spec
from unet_runtime import Segmentation, Segmenter
from unet_runtime.core.geometry import place
from unet_runtime.io.coco import class_areas, coco_document
from unet_runtime.io.contours import polygons
from unet_runtime.io.kind import Metadata

GENERATOR = np.random.default_rng(5)


def drawn(outlines: list[list[int]], shape: tuple[int, int]) -> np.ndarray:
    """What pycocotools makes of polygons: bool (H, W)."""
    if not outlines:
        return np.zeros(shape, bool)
    floats = [[float(value) for value in outline] for outline in outlines]
    decoded: np.ndarray = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(floats, *shape)))
    return decoded.astype(bool)


def enclosed(outline: list[int]) -> float:
    """Signed area by the shoelace formula; above 0 is clockwise as seen, y down."""
    x, y = np.array(outline[::2]), np.array(outline[1::2])
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def segmentation(mask: np.ndarray) -> Segmentation:
    """One whose probabilities say ``mask``."""
    height, width = mask.shape
    probabilities = np.eye(3, dtype=np.float32)[mask]
    photo = Image.new("RGB", (width, height))
    spec = colour_spec(height, width=width)
    result = Segmentation(photo, probabilities, spec, place(photo.size, spec))
    assert np.array_equal(result.mask, mask)
    return result


def test_a_square() -> None:
    mask = np.zeros((5, 6), np.uint8)
    mask[1:3, 2:5] = 1
    assert polygons(mask, 1) == [[2, 1, 5, 1, 5, 3, 2, 3]]
    assert polygons(mask, 2) == []


def test_a_hole_is_joined_by_a_slit() -> None:
    mask = np.ones((4, 4), np.uint8)
    mask[2, 1:3] = 0
    assert polygons(mask, 1) == [[0, 0, 1, 0, 1, 2, 1, 3, 3, 3, 3, 2, 1, 2, 1, 0, 4, 0, 4, 4, 0, 4]]


def test_pixels_that_touch_at_a_corner_are_two_parts() -> None:
    outlines = polygons(np.array([[1, 0], [0, 1]], np.uint8), 1)
    assert outlines == [[0, 0, 1, 0, 1, 1, 0, 1], [1, 1, 2, 1, 2, 2, 1, 2]]


def test_random_masks_of_every_shape_come_back() -> None:
    """Thousands of small ones: every way in which edges, holes in holes and corners can meet."""
    for _ in range(1500):
        mask = GENERATOR.integers(0, GENERATOR.integers(1, 4) + 1, GENERATOR.integers(1, 14, 2)).astype(np.uint8)
        for index in range(4):
            outlines = polygons(mask, index)
            assert np.array_equal(drawn(outlines, mask.shape), mask == index), mask
            areas = [enclosed(outline) for outline in outlines]
            assert sum(areas) == (mask == index).sum()
            assert all(area > 0 for area in areas)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.6, 0.9])
def test_noise_comes_back(density: float) -> None:
    mask = (GENERATOR.random((300, 200)) < density).astype(np.uint8)
    assert np.array_equal(drawn(polygons(mask, 1), mask.shape), mask == 1)


def test_bands_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = (GENERATOR.random((90, 40)) < 0.5).astype(np.uint8)
    whole = polygons(mask, 1)
    monkeypatch.setattr("unet_runtime.io.contours._BAND_PIXELS", 40 * 7)
    assert polygons(mask, 1) == whole


def test_twelve_megapixels() -> None:
    small = Image.fromarray(GENERATOR.random((40, 40)).astype(np.float32))
    mask = (np.asarray(small.resize((4000, 3000))) > 0.5).astype(np.uint8)
    outlines = polygons(mask, 1)
    assert sum(map(enclosed, outlines)) == mask.sum()


@pytest.mark.parametrize("contours", ["polygons", "rle"])
def test_pycocotools_reads_the_file(contours: str, sample_photo: Path, tmp_path: Path) -> None:
    result = Segmenter()(sample_photo)
    path = tmp_path / "chelsea.json"
    path.write_text(json.dumps(coco_document(result, Metadata("chelsea.jpg", "E", contours))))
    data = COCO(str(path))
    assert data.loadImgs(1)[0] == {"id": 1, "file_name": "chelsea.jpg", "width": 451, "height": 300}
    assert {entry["name"] for entry in data.loadCats(data.getCatIds())} == {"pet", "background", "border"}
    assert data.getCatIds(catNms=["pet"]) == [1]
    annotations = data.loadAnns(data.getAnnIds(imgIds=1))
    assert [entry["category_id"] for entry in annotations] == [1, 3]  # not the background
    for entry in annotations:
        inside = result.mask == entry["category_id"] - 1
        assert np.array_equal(data.annToMask(entry), inside)
        assert entry["area"] == inside.sum()
        rows, columns = np.nonzero(inside)
        left, top, width, height = entry["bbox"]
        assert (left, top) == (columns.min(), rows.min())
        assert (left + width - 1, top + height - 1) == (columns.max(), rows.max())


def test_areas_are_of_all_classes_and_annotations_of_those_there() -> None:
    mask = np.full((8, 10), 1, np.uint8)
    mask[0, :5] = 2
    document = coco_document(segmentation(mask), Metadata("a.png", contours="none"))
    assert document["areas"] == {
        "red": {"pixels": 0, "share": 0.0, "score": 0.0},
        "green": {"pixels": 75, "share": 0.9375, "score": 1.0},
        "blue": {"pixels": 5, "share": 0.0625, "score": 1.0},
    }
    (only,) = document["annotations"]
    assert only["category_id"] == 3
    assert only["bbox"] == [0, 0, 5, 1]
    assert "segmentation" not in only


def test_areas_of_a_large_mask() -> None:
    mask = GENERATOR.integers(0, 3, (1500, 700), np.uint8)
    assert class_areas(mask, 4) == [*np.bincount(mask.ravel()), 0]


def test_run_lengths_without_pycocotools_name_the_extra(tmp_path: Path, sample_photo: Path) -> None:
    """Before anything is written."""
    script = (
        "import sys; sys.modules['pycocotools'] = None; sys.argv[0] = 'unet-run';"
        "from unet_runtime.cli.run import main; main()"
    )
    command = [sys.executable, "-c", script, str(sample_photo), "--save", "json", "--contours", "rle"]
    done = subprocess.run([*command, "-o", str(tmp_path)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3, done.stderr
    assert 'pip install "pycocotools' in done.stderr
    assert not list(tmp_path.iterdir())
