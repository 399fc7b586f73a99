"""The same labelled photos, written in every layout that is read."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from unet_runtime.core.datasets import IGNORED
from unet_runtime.core.datasets.voc import BORDER, voc_colour
from unet_runtime.io.contours import polygons

NAMES = ("background", "cat", "dog")
COLOURS = ((0, 0, 0), (128, 0, 0), (0, 128, 0))
CITY_IDS = (23, 24, 26)
"""Label ids of Cityscapes that stand for the classes, and 0 for what is ignored."""


class Animal(NamedTuple):
    """A photo with its labels."""

    name: str
    photo: Image.Image
    labels: np.ndarray
    """uint8 (H, W): 0 background, 1 cat, 2 dog, 255 ignored."""
    part: str = "train"


Write = Callable[[Path, Sequence[Animal]], None]


def drawn_animals(count: int = 6, size: tuple[int, int] = (32, 24)) -> list[Animal]:
    """Photos of rectangles and discs with an ignored band; the last third is the test part."""
    rng = np.random.default_rng(7)
    width, height = size
    rows, columns = np.mgrid[:height, :width]
    animals = []
    for index in range(count):
        labels = np.zeros((height, width), np.uint8)
        distance = np.hypot((rows - height / 2) / height, (columns - width / 2) / width)
        labels[distance < 0.4] = IGNORED
        labels[distance < 0.3] = 1 + index % 2
        labels[1 : 3 + index % 3, 2:6] = 2 - index % 2  # a second, smaller one
        noise = rng.integers(0, 50, (height, width, 3))
        pixels = noise + (labels[..., np.newaxis] % 3) * 80
        part = "test" if index >= count - count // 3 else "train"
        animals.append(Animal(f"animal{index:02}", Image.fromarray(pixels.astype(np.uint8)), labels, part))
    return animals


def oxford_animals(pets_dir: Path, count: int, side: int = 96) -> list[Animal]:
    """Photos of Oxford-IIIT Pet as cat, dog and background with an ignored border, reduced to ``side`` pixels."""
    from unet_runtime.core.datasets import evenly, open_dataset, open_labels, read_split
    from unet_runtime.core.photo import open_photo

    lines = (pets_dir / "annotations" / "list.txt").read_text().splitlines()
    species = {line.split()[0]: int(line.split()[2]) for line in lines if not line.startswith("#")}
    dataset = open_dataset(pets_dir)
    animals = []
    for part, share in (("trainval", count - count // 3), ("test", count // 3)):
        for item in evenly(read_split(dataset, "official", part), share):
            table = np.array([species[item.name], 0, IGNORED], np.uint8)  # pet, background, border
            photo = open_photo(item.photo).resize((side, side))
            trimap = Image.fromarray(open_labels(item)).resize((side, side), Image.Resampling.NEAREST)
            animals.append(Animal(item.name, photo, table[np.asarray(trimap)], part.replace("trainval", "train")))
    return animals


def some_pets(pets_dir: Path, folder: Path, step: int) -> Path:
    """Every ``step``-th photo of the dataset, in its layout."""
    (folder / "annotations").mkdir(parents=True)
    for name in ("images", "annotations/trimaps"):
        (folder / name).symlink_to(pets_dir / name)
    for name in ("annotations/trainval.txt", "annotations/test.txt"):
        lines = (pets_dir / name).read_text(encoding="utf-8").splitlines()
        (folder / name).write_text("\n".join(lines[::step]), encoding="utf-8")
    return folder


def save_photo(animal: Animal, folder: Path, ending: str = ".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    animal.photo.save(folder / f"{animal.name}{ending}")


def save_mask(values: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def coloured(labels: np.ndarray, ignored: tuple[int, int, int] = BORDER) -> np.ndarray:
    """Labels as RGB colours."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(COLOURS)] = COLOURS
    table[IGNORED] = ignored
    return table[labels]


def write_lists(folder: Path, animals: Sequence[Animal]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        names = [animal.name for animal in animals if animal.part == part]
        (folder / f"{part}.txt").write_text("".join(f"{name}\n" for name in names))


def write_classes(root: Path, values: Sequence[Any], ignore: Sequence[Any] = (), **more: Any) -> None:
    """classes.yaml with the value of each class; None: none."""
    classes = []
    for name, value in zip(NAMES, values, strict=True):
        classes.append({"name": name} if value is None else {"name": name, "value": value})
    content = {"classes": classes, "ignore": list(ignore), **more}
    (root / "classes.yaml").write_text(json.dumps(content))  # JSON is YAML


def ids(root: Path, animals: Sequence[Animal]) -> None:
    for animal in animals:
        save_photo(animal, root / "images")
        save_mask(animal.labels, root / "masks" / f"{animal.name}.png")
    write_lists(root, animals)
    write_classes(root, (None, None, None))


def ids_in_parts(root: Path, animals: Sequence[Animal]) -> None:
    for animal in animals:
        save_photo(animal, root / animal.part / "images")
        save_mask(animal.labels, root / animal.part / "labels" / f"{animal.name}.tif")
    write_classes(root, (None, None, None))


def palette(root: Path, animals: Sequence[Animal]) -> None:
    """Indices are what counts, not the colours."""
    for animal in animals:
        save_photo(animal, root / "photos" / animal.part)
        image = Image.fromarray(animal.labels).convert("P")
        image.putpalette([value for index in range(256) for value in (255 - index, index, 7)])
        path = root / "annotations" / animal.part / f"{animal.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    write_classes(root, (0, 1, 2))


def rgb(root: Path, animals: Sequence[Animal]) -> None:
    for animal in animals:
        save_photo(animal, root / "images")
        save_mask(coloured(animal.labels, (255, 255, 255)), root / "masks" / f"{animal.name}.png")
    write_lists(root / "splits", animals)
    write_classes(root, ("#000000", "#800000", "#008000"), ["#ffffff"])


def voc(root: Path, animals: Sequence[Animal]) -> None:
    for animal in animals:
        save_photo(animal, root / "JPEGImages")
        image = Image.fromarray(animal.labels).convert("P")
        image.putpalette([value for index in range(256) for value in voc_colour(index)])
        path = root / "SegmentationClass" / f"{animal.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    write_lists(root / "ImageSets" / "Segmentation", animals)
    lines = [f"{name}:{','.join(map(str, voc_colour(index)))}::" for index, name in enumerate(NAMES)]
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "\n".join(lines) + "\n")


def cvat(root: Path, animals: Sequence[Animal]) -> None:
    """Colours of the user's own, in RGB."""
    for animal in animals:
        save_photo(animal, root / "JPEGImages")
        save_mask(coloured(animal.labels), root / "SegmentationClass" / f"{animal.name}.png")
    write_lists(root / "ImageSets" / "Segmentation", animals)
    rows = zip(NAMES, COLOURS, strict=True)
    lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in rows]
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "\n".join(lines) + "\n")


def roboflow(root: Path, animals: Sequence[Animal]) -> None:
    for animal in animals:
        save_photo(animal, root / animal.part)
        save_mask(animal.labels, root / animal.part / f"{animal.name}_mask.png")
    for part in {animal.part for animal in animals}:
        rows = "".join(f" {index}, {name}\n" for index, name in enumerate(NAMES))
        (root / part / "_classes.csv").write_text("Pixel Value, Class\n" + rows)


def cityscapes(root: Path, animals: Sequence[Animal]) -> None:
    table = np.zeros(256, np.uint8)
    table[: len(CITY_IDS)] = CITY_IDS
    for animal in animals:
        save_photo(animal, root / "leftImg8bit" / animal.part / "bonn", "_leftImg8bit.png")
        folder = root / "gtFine" / animal.part / "bonn"
        save_mask(table[animal.labels], folder / f"{animal.name}_gtFine_labelIds.png")
        save_mask(coloured(animal.labels), folder / f"{animal.name}_gtFine_color.png")
    write_classes(root, CITY_IDS, [0])


def labelme(root: Path, animals: Sequence[Animal]) -> None:
    for animal in animals:
        save_photo(animal, root / animal.part)
        shapes = []
        for index, label in ((1, "cat"), (2, "dog"), (IGNORED, "__ignore__")):
            for ring in polygons(animal.labels, index):
                points = np.array(ring).reshape(-1, 2).tolist()
                shapes.append({"label": label, "points": points, "shape_type": "polygon", "group_id": None})
        _write_labelme(root / animal.part, animal, shapes)


def labelme_masks(root: Path, animals: Sequence[Animal]) -> None:
    for animal in animals:
        save_photo(animal, root / animal.part)
        shapes = []
        for index, label in ((1, "cat"), (2, "dog"), (IGNORED, "__ignore__")):
            rows, columns = np.nonzero(animal.labels == index)
            if not rows.size:
                continue
            box = [[int(columns.min()), int(rows.min())], [int(columns.max()), int(rows.max())]]
            part = animal.labels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] == index
            file = io.BytesIO()
            Image.fromarray(part).save(file, "PNG")
            text = base64.b64encode(file.getvalue()).decode()
            shapes.append({"label": label, "points": box, "shape_type": "mask", "mask": text})
        _write_labelme(root / animal.part, animal, shapes)


def _write_labelme(folder: Path, animal: Animal, shapes: list[dict[str, Any]]) -> None:
    height, width = animal.labels.shape
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": f"{animal.name}.png",
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    (folder / f"{animal.name}.json").write_text(json.dumps(content))


def coco_polygons(root: Path, animals: Sequence[Animal]) -> None:
    """As COCO's own files lie; what nothing is drawn on is ignored, so that the background is drawn too."""
    for part in ("train", "test"):
        chosen = [animal for animal in animals if animal.part == part]
        for animal in chosen:
            save_photo(animal, root / f"{part}2017")
        _write_coco(root / "annotations" / f"instances_{part}2017.json", chosen, _polygons, "{}.png")
    write_classes(root, (None, None, None), unlabelled="ignore")


def coco_run_lengths(root: Path, animals: Sequence[Animal]) -> None:
    """As Roboflow exports them, with counts that are not compressed."""
    for part in ("train", "test"):
        chosen = [animal for animal in animals if animal.part == part]
        for animal in chosen:
            save_photo(animal, root / part)
        _write_coco(root / part / "_annotations.coco.json", chosen, _counts, "{}.png")
    write_classes(root, (None, None, None), unlabelled="ignore")


def coco_compressed(root: Path, animals: Sequence[Animal]) -> None:
    """As CVAT exports what a brush drew, the ignored band as unlabelled; without parts."""
    for animal in animals:
        save_photo(animal, root / "images" / "default")
    _write_coco(root / "annotations" / "instances_default.json", animals, _compressed, "default/{}.png")
    write_classes(root, (None, None, None), unlabelled="ignore")


def coco_panoptic(root: Path, animals: Sequence[Animal]) -> None:
    for part in ("train", "test"):
        chosen = [animal for animal in animals if animal.part == part]
        images, annotations = [], []
        for number, animal in enumerate(chosen, 1):
            save_photo(animal, root / f"{part}2017")
            segments = np.where(animal.labels == IGNORED, 0, animal.labels.astype(np.int64) * 70_000 + 300 + number)
            png = np.stack([segments % 256, segments // 256 % 256, segments // 65_536], -1).astype(np.uint8)
            save_mask(png, root / "annotations" / f"panoptic_{part}2017" / f"{animal.name}.png")
            info = []
            for index in np.unique(animal.labels[animal.labels != IGNORED]).tolist():
                info.append({"id": index * 70_000 + 300 + number, "category_id": index + 10, "iscrowd": 0})
            images.append({"id": number, "file_name": f"{animal.name}.png"})
            annotations.append({"image_id": number, "file_name": f"{animal.name}.png", "segments_info": info})
        categories = [{"id": index + 10, "name": name, "isthing": 1} for index, name in enumerate(NAMES)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"panoptic_{part}2017.json").write_text(json.dumps(content))


def _polygons(labels: np.ndarray, index: int) -> Any:
    return polygons(labels, index)


def _counts(labels: np.ndarray, index: int) -> Any:
    column_by_column = (labels == index).T.ravel()
    changes = np.flatnonzero(np.diff(column_by_column)) + 1
    edges = np.concatenate([[0], changes, [column_by_column.size]])
    counts = np.diff(edges).tolist()
    return {"size": list(labels.shape), "counts": [0, *counts] if column_by_column[0] else counts}


def _compressed(labels: np.ndarray, index: int) -> Any:
    encoded = coco_mask.encode(np.asfortranarray((labels == index).view(np.uint8)))
    return {"size": list(labels.shape), "counts": encoded["counts"].decode("ascii")}


def _write_coco(
    path: Path, animals: Sequence[Animal], segmentation: Callable[[np.ndarray, int], Any], file_name: str
) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, animal in enumerate(animals, 1):
        height, width = animal.labels.shape
        images.append({"id": number, "file_name": file_name.format(animal.name), "width": width, "height": height})
        for index in np.unique(animal.labels[animal.labels != IGNORED]).tolist():
            drawn = segmentation(animal.labels, index)
            annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": index + 1}
            annotations.append({**annotation, "segmentation": drawn, "iscrowd": int(isinstance(drawn, dict))})
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(NAMES)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


WRITERS: dict[str, Write] = {
    "folders ids": ids,
    "folders parts": ids_in_parts,
    "folders palette": palette,
    "folders rgb": rgb,
    "voc": voc,
    "voc cvat": cvat,
    "coco polygons": coco_polygons,
    "coco run lengths": coco_run_lengths,
    "coco compressed": coco_compressed,
    "coco panoptic": coco_panoptic,
    "roboflow": roboflow,
    "labelme": labelme,
    "labelme masks": labelme_masks,
    "cityscapes": cityscapes,
}
"""Layout and what is particular -> its writer."""
