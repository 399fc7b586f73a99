"""Label masks of every kind, and the classes that they show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unet_runtime.core.datasets import IGNORED, Dataset, open_dataset, open_labels
from unet_runtime.core.datasets.masks import Coding, MaskFile, UnknownClassError
from unet_runtime.core.datasets.shapes import Polygons
from unet_runtime.core.errors import ImageError, SourceError

IDS = np.array([[0, 1, 2, 255], [2, 2, 0, 1]], np.uint8)
TRUE = np.array([[0, 1, 2, IGNORED], [2, 2, 0, 1]], np.uint8)

VALUES = Coding({0: 0, 1: 1, 2: 2, 255: IGNORED})
COLOURS = Coding({(0, 0, 0): 0, (200, 0, 0): 1, (0, 200, 0): 2, (255, 255, 255): IGNORED})
TABLE = np.zeros((256, 3), np.uint8)
TABLE[[1, 2, 255]] = (200, 0, 0), (0, 200, 0), (255, 255, 255)


def palette(ids: np.ndarray, table: np.ndarray) -> Image.Image:
    image = Image.fromarray(ids).convert("P")
    image.putpalette(table.ravel().tolist())
    return image


def rgba() -> Image.Image:
    pixels = np.concatenate([TABLE[IDS], np.full((2, 4, 1), 255, np.uint8)], axis=-1)
    pixels[IDS == 0] = (9, 9, 9, 0)  # what is transparent has no colour
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("image", "coding"),
    [
        (Image.fromarray(IDS), VALUES),
        (Image.fromarray(IDS.astype(np.uint16)), VALUES),
        (Image.fromarray(IDS.astype(np.int32)), VALUES),
        (Image.fromarray(IDS.astype(np.float32)), VALUES),
        (Image.fromarray(np.stack([IDS] * 3, -1)), VALUES),
        (palette(IDS, np.roll(TABLE, 1, axis=0)), VALUES),  # the index counts
        (Image.fromarray(TABLE[IDS]), COLOURS),
        (rgba(), COLOURS),
        (palette((IDS + 5).astype(np.uint8), np.roll(TABLE, 5, axis=0)), COLOURS),  # the colour counts
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_an_image_of_any_mode(image: Image.Image, coding: Coding, suffix: str, tmp_path: Path) -> None:
    if suffix == ".png" and image.mode in ("F", "I"):
        suffix = ".tiff"
    image.save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(MaskFile(tmp_path / f"a{suffix}", coding).read(), TRUE)


def test_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(IDS > 0).save(tmp_path / "a.png")
    np.testing.assert_array_equal(MaskFile(tmp_path / "a.png", Coding({0: 0, 255: 1})).read(), IDS > 0)


def test_ids_above_255(tmp_path: Path) -> None:
    Image.fromarray(IDS.astype(np.uint16) * 1000).save(tmp_path / "a.png")
    coding = Coding({0: 0, 1000: 1, 2000: 2, 255_000 % 65_536: IGNORED})
    np.testing.assert_array_equal(MaskFile(tmp_path / "a.png", coding).read(), TRUE)


@pytest.mark.parametrize(
    ("image", "coding", "counts", "words"),
    [
        (Image.fromarray(IDS), Coding({0: 0, 1: 1}), {2: 3, 255: 1}, "values 2 (3 pixels), 255 (1 pixels) that no"),
        (
            Image.fromarray(TABLE[IDS]),
            Coding({(0, 0, 0): 0, (200, 0, 0): 1, (255, 255, 255): 255}),
            {(0, 200, 0): 3},
            "colour #00c800 (3 pixels) that no class has",
        ),
    ],
)
def test_values_without_a_class_are_counted(
    image: Image.Image, coding: Coding, counts: dict[object, int], words: str, tmp_path: Path
) -> None:
    image.save(tmp_path / "a.png")
    with pytest.raises(UnknownClassError) as caught:
        MaskFile(tmp_path / "a.png", coding).read()
    assert caught.value.counts == counts
    assert words in str(caught.value)


def test_floats_between_ids_are_refused(tmp_path: Path) -> None:
    Image.fromarray((IDS / 3).astype(np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"a\.tif: has values between whole numbers"):
        MaskFile(tmp_path / "a.tif", VALUES).read()


def folders(root: Path, masks: list[np.ndarray], suffix: str = ".png") -> Path:
    for index, mask in enumerate(masks):
        for name in ("images", "masks"):
            (root / name).mkdir(exist_ok=True)
        Image.new("RGB", mask.shape[1::-1], (index, 9, 9)).save(root / "images" / f"p{index}.png")
        Image.fromarray(mask).save(root / "masks" / f"p{index}{suffix}")
    return root


def first_labels(dataset: Dataset) -> np.ndarray:
    return open_labels(dataset.samples[0])


@pytest.mark.parametrize(
    ("values", "names", "ids"),
    [
        ([0, 255], ["background", "foreground"], [0, 1]),
        ([0, 1], ["background", "foreground"], [0, 1]),
        ([0, 1, 255], ["background", "foreground"], [0, 1, IGNORED]),
        ([0, 1, 2, 3], ["background", "class_1", "class_2", "class_3"], [0, 1, 2, 3]),
        ([1, 2], ["class_1", "class_2"], [0, 1]),
        ([0, 4, 7, 255], ["background", "class_4", "class_7"], [0, 1, 2, IGNORED]),
        ([0, 128, 255], ["background", "class_128", "class_255"], [0, 1, 2]),
        ([0, 50, 100, 150], ["background", "class_50", "class_100", "class_150"], [0, 1, 2, 3]),
    ],
)
def test_classes_of_masks_without_names(values: list[int], names: list[str], ids: list[int], tmp_path: Path) -> None:
    mask = np.array([values, values], np.uint8)
    dataset = open_dataset(folders(tmp_path, [mask, mask]))
    assert list(dataset.class_names) == names
    assert first_labels(dataset)[0].tolist() == ids
    assert not dataset.named


@pytest.mark.parametrize(
    ("classes", "values", "ids"),
    [
        ("background,weld", [0, 255], [0, 1]),
        ("background,weld", [0, 1], [0, 1]),
        ("background,weld", [0, 1, 255], [0, 1, IGNORED]),
        ("background,a,b,c", [0, 3], [0, 3]),
        ("background:9,a:200", [9, 200], [0, 1]),
    ],
)
def test_named_classes_by_value(classes: str, values: list[int], ids: list[int], tmp_path: Path) -> None:
    mask = np.array([values, values], np.uint8)
    dataset = open_dataset(folders(tmp_path, [mask, mask]), classes=classes)
    assert first_labels(dataset)[0].tolist() == ids
    assert dataset.named


def noise(shape: tuple[int, ...], high: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, shape).astype(np.uint8)


def blurred() -> np.ndarray:
    ramp = np.linspace(0, 255, 200).astype(np.uint8)
    return np.concatenate([np.zeros((100, 200), np.uint8), ramp[np.newaxis], np.full((100, 200), 255, np.uint8)])


@pytest.mark.parametrize(
    ("make", "suffix", "words"),
    [
        (lambda: noise((90, 90, 3), 255), ".png", "thousands of colours, the first"),
        (lambda: noise((90, 90, 3), 255), ".jpg", "thousands of colours, the first"),
        (blurred, ".png", "(0, 255 on 99.5% of the pixels)"),
        (blurred, ".jpg", "1 label masks are JPEG files, which blur values, the first"),
        (lambda: np.kron([[0, 1, 4], [3, 0, 2]], np.ones((9, 9))).astype(np.uint8), ".jpg", "are JPEG files"),
        (lambda: np.zeros((4, 4), np.uint8), ".png", "show the value 0 alone, expected two classes or more"),
    ],
)
def test_masks_that_are_none(make: Callable[[], np.ndarray], suffix: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        open_dataset(folders(tmp_path, [make()], suffix))
    assert words in str(caught.value)


def test_colours_are_asked_for_where_names_alone_are_given(tmp_path: Path) -> None:
    folders(tmp_path, [TABLE[IDS]])
    with pytest.raises(SourceError, match=r"colours #000000, #00c800, #c80000, #ffffff: say which class each is"):
        open_dataset(tmp_path, classes="background,cat,dog")
    named = "background:#000000,cat:#c80000,dog:#00c800"
    assert first_labels(open_dataset(tmp_path, classes=named, ignore=[(255, 255, 255)])).tolist() == TRUE.tolist()


def test_a_polygon_covers_the_pixels_whose_centres_it_covers() -> None:
    square = Polygons(((1, 1, 3, 1, 3, 3, 1, 3),)).inside(4, 5)
    assert square.astype(int).tolist() == [[0, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]
    outside = Polygons(((-9, -9, 99, -9, 99, 99, -9, 99),)).inside(3, 3)
    assert outside.all()
    beyond = Polygons(((7, 7, 9, 7, 9, 9),)).inside(3, 3)
    assert not beyond.any()


@pytest.mark.parametrize("seed", range(5))
def test_polygons_are_as_pycocotools_draws_them_but_for_their_rims(seed: int) -> None:
    from pycocotools import mask as coco_mask

    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radius = rng.uniform(15, 45, 9)
    points = np.stack([50 + radius * np.cos(angles), 50 + radius * np.sin(angles)], -1).ravel().tolist()
    ours = Polygons((tuple(points),)).inside(100, 100)
    theirs = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([points], 100, 100))).astype(bool)
    assert np.count_nonzero(ours ^ theirs) < 0.06 * np.count_nonzero(theirs)
