"""Generated pictures in Oxford-IIIT Pet's layout: drawn animals with their trimaps.

For trying the way from training to a device without a download, and for tests. A model trained on
them finds drawn animals; it is of no use on photos.
"""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from unet_runtime.core.errors import OutputError
from unet_training.data.drawing import draw
from unet_training.files import writing

_STAMP = "synthetic.json"
_VERSION = 1
"""Of the drawing: a change of what is drawn counts it up, so that old pictures are not taken for new ones."""


def ensure_dataset(root: Path, *, train: int, test: int, size: int = 160, seed: int) -> bool:
    """``write_dataset`` unless ``root`` holds the very same pictures; whether it had to draw.

    Raises:
        OutputError: as ``write_dataset``.
    """
    if _stamp_of(root) == _stamp(train, test, size, seed):
        return False
    write_dataset(root, train=train, test=test, size=size, seed=seed)
    return True


def write_dataset(root: Path, *, train: int, test: int, size: int = 160, seed: int) -> None:
    """Draw ``train`` + ``test`` pictures with trimaps into ``root``; the same arguments give the same files.

    Args:
        root: folder to make. Pictures of an earlier call in it are replaced; it appears whole or not at all.
        train: pictures in trainval.txt.
        test: pictures in test.txt.
        size: width and height, pixels; each picture's own differ from it by up to a fifth.
        seed: of everything drawn.

    Raises:
        OutputError: ``root`` holds something else, or cannot be written.
    """
    if root.exists() and _stamp_of(root) is None:
        raise OutputError(f"{root}: exists and holds no generated pictures, which would replace it: choose another")
    temporary = root.with_name("new." + root.name)
    try:
        with writing(root):
            shutil.rmtree(temporary, ignore_errors=True)  # of a killed run
            _write(temporary, train, test, size, seed)
            if root.exists():
                shutil.rmtree(root)
            temporary.replace(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(root: Path, train: int, test: int, size: int, seed: int) -> None:
    annotations = root / "annotations"
    (root / "images").mkdir(parents=True)
    (annotations / "trimaps").mkdir(parents=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        lines = list(pool.map(lambda index: _write_one(root, index, size, seed), range(train + test)))
    header = "#Image CLASS-ID SPECIES BREED-ID\n#Drawn, no photos. Species 1:Cat 2:Dog\n"
    for name, part in (("list", lines), ("trainval", lines[:train]), ("test", lines[train:])):
        head = header if name == "list" else ""
        (annotations / f"{name}.txt").write_text(head + "".join(part), encoding="utf-8")
    (root / _STAMP).write_text(json.dumps(_stamp(train, test, size, seed)), encoding="utf-8")


def _write_one(root: Path, index: int, size: int, seed: int) -> str:
    """The picture's line in the lists."""
    # A generator for each picture: the first hundred are the same whether or not more follow.
    rng = np.random.default_rng((seed, index))
    cat = bool(rng.integers(2))
    width, height = (int(size * share) for share in rng.uniform(0.8, 1.2, 2))
    picture, trimap = draw(rng, width, height, cat)
    name = f"synthetic_{index + 1:04}"
    picture.save(root / "images" / f"{name}.jpg", quality=90)
    trimap.save(root / "annotations" / "trimaps" / f"{name}.png")
    species = 1 if cat else 2
    return f"{name} {species} {species} 1\n"


def _stamp(train: int, test: int, size: int, seed: int) -> dict[str, int]:
    return {"version": _VERSION, "train": train, "test": test, "size": size, "seed": seed}


def _stamp_of(root: Path) -> dict[str, int] | None:
    """What ``root`` was drawn with; None where there is nothing, or something else."""
    try:
        stamp: dict[str, int] = json.loads((root / _STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stamp
