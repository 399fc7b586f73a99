"""Small photos of which no two have the same result, and lists of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

LIST = "photos.txt"


def write_photos(folder: Path, count: int, width: int = 100, height: int = 80) -> list[str]:
    """Write ``00.png`` and so on, of up to 50 widths, and return their names."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(7)
    names = []
    for index in range(count):
        small = Image.fromarray(generator.integers(0, 256, (4, 5, 3), np.uint8))
        names.append(f"{index:02d}.png")
        small.resize((width + index % 50, height)).save(folder / names[-1])
    return names


def write_list(folder: Path, count: int) -> Path:
    """Write photos to ``folder / "photos"`` and ``LIST``, which names one more as its sixth; returns ``folder``."""
    names = [f"photos/{name}" for name in write_photos(folder / "photos", count)]
    names.insert(5, "photos/absent.png")
    (folder / LIST).write_text("\n".join(names) + "\n")
    return folder
