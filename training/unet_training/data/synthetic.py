"""Generated pictures in Oxford-IIIT Pet's layout: drawn animals with their trimaps.

For trying everything from training to a device without a download, and for tests. A model trained on them finds drawn
animals; it is of no use on photos.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from unet_runtime.core.cores import usable_cores
from unet_runtime.core.errors import OutputError
from unet_runtime.core.files import temporary_sibling
from unet_training.data.drawing import draw
from unet_training.files import writing

_STAMP = "synthetic.json"
_VERSION = 2
"""Version of the drawing: counted up with every change, so that old pictures are not taken for new ones."""


def ensure_dataset(root: Path, *, train: int, test: int, size: int = 160, seed: int) -> bool:
    """Draw ``train`` + ``test`` pictures with trimaps into ``root``, unless it holds the very same; whether it had to.

    Args:
        root: folder to make. Pictures of an earlier call in it are replaced; it appears whole or not at all.
        train: pictures in trainval.txt.
        test: pictures in test.txt.
        size: width and height, pixels; each picture's own differ from it by up to a fifth.
        seed: of everything drawn.

    Raises:
        OutputError: ``root`` holds something else, or cannot be written.
    """
    stamp = {"version": _VERSION, "train": train, "test": test, "size": size, "seed": seed}
    found = _stamp_of(root)
    if found == stamp:
        return False
    if root.exists() and found is None:
        raise OutputError(f"{root}: exists and holds no generated pictures, which would replace it: choose another")
    temporary = temporary_sibling(root)
    annotations = temporary / "annotations"
    try:
        with writing(root):
            (temporary / "images").mkdir(parents=True)
            (annotations / "trimaps").mkdir(parents=True)
            with ThreadPoolExecutor(usable_cores()) as pool:
                lines = list(pool.map(partial(_write_picture, temporary, size, seed), range(train + test)))
            header = "#Image CLASS-ID SPECIES BREED-ID\n#Drawn, no photos. Species 1:Cat 2:Dog\n"
            (annotations / "list.txt").write_text(header + "".join(lines), encoding="utf-8")
            (annotations / "trainval.txt").write_text("".join(lines[:train]), encoding="utf-8")
            (annotations / "test.txt").write_text("".join(lines[train:]), encoding="utf-8")
            (temporary / _STAMP).write_text(json.dumps(stamp), encoding="utf-8")
            if root.exists():
                shutil.rmtree(root)
            temporary.replace(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def _write_picture(root: Path, size: int, seed: int, index: int) -> str:
    """Draw one picture; its line in the lists."""
    # A generator for each picture: the first hundred are the same whether or not more follow.
    rng = np.random.default_rng((seed, index))
    cat = bool(rng.integers(2))
    width, height = (size * rng.uniform(0.8, 1.2, 2)).astype(int).tolist()
    picture, trimap = draw(rng, width, height, cat)
    name = f"synthetic_{index + 1:04}"
    picture.save(root / "images" / f"{name}.jpg", quality=90)
    trimap.save(root / "annotations" / "trimaps" / f"{name}.png")
    species = 1 if cat else 2
    return f"{name} {species} {species} 1\n"


def _stamp_of(root: Path) -> dict[str, int] | None:
    """The arguments that ``root`` was drawn with; None where there is nothing, or something else."""
    try:
        stamp: dict[str, int] = json.loads((root / _STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stamp
