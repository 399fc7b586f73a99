"""Oxford-IIIT Pet: photos with trimaps.

    ROOT/images/<name>.jpg
    ROOT/annotations/trimaps/<name>.png       1 pet, 2 background, 3 border
    ROOT/annotations/trainval.txt, test.txt   first word of a line: name

Class ids are the trimap's values less one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from unet_runtime.core.datasets.base import ClassIds, Dataset, Layout, Options, Sample, evenly
from unet_runtime.core.errors import ImageError, SourceError
from unet_runtime.core.spec import ClassSpec

CLASSES = (
    ClassSpec("pet", (230, 60, 90), "foreground"),
    ClassSpec("background", (40, 60, 120), "background"),
    ClassSpec("border", (250, 200, 60), "neutral"),
)

LISTS = ("trainval", "test")

_LOOKED_AT = 5  # trimaps, to tell the layout

_FORMATS = ("PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG")  # any of Pillow's decoders would run otherwise


@dataclass(frozen=True)
class Trimap:
    """The labels of one photo."""

    path: Path
    coding = "trimap"

    def read(self) -> ClassIds:
        """Class ids, uint8 (H, W), at the trimap's own size.

        Raises:
            ImageError: unreadable, or a value outside 1..3.
        """
        try:
            with Image.open(self.path, formats=_FORMATS) as image:
                values = np.asarray(image.convert("L") if image.mode not in ("L", "P") else image)
        except Exception as error:  # as in open_photo: decoders raise anything
            raise ImageError(f"{self.path}: no readable trimap ({error})") from error
        low, high = int(values.min()), int(values.max())
        if low < 1 or high > len(CLASSES):
            raise ImageError(f"{self.path}: trimap values {low}..{high}, expected 1..{len(CLASSES)}")
        return (values - 1).astype(np.uint8)


def _detect(root: Path) -> str:
    if not (root / "images").is_dir() or not _trimaps(root).is_dir() or not _are_trimaps(_trimaps(root)):
        return ""
    return "images/ and annotations/trimaps/, whose values are 1 to 3"


def _are_trimaps(folder: Path) -> bool:
    """Whether most of a few masks have no other values than trimaps do; true where none can be read."""
    paths = sorted(path for path in folder.glob("*.png") if not path.name.startswith("._"))
    votes = []
    for path in evenly(paths, _LOOKED_AT):
        try:
            with Image.open(path, formats=("PNG",)) as image:
                votes.append(_is_trimap(image))
        except Exception:  # decoders raise anything; reading the trimap says why
            continue
    return not votes or 2 * sum(votes) >= len(votes)


def _is_trimap(image: Image.Image) -> bool:
    if image.mode not in ("L", "P"):
        return False
    histogram = image.histogram()
    return not histogram[0] and not any(histogram[len(CLASSES) + 1 :])


def _read(root: Path, options: Options, why: str) -> Dataset:
    parts = {}
    names = _paired(root)
    for part in LISTS:
        listed = _listed(root, part)
        names |= set(listed)
        if listed:
            parts[part] = listed
    samples = []
    for name in sorted(names):
        samples.append(Sample(name, root / "images" / f"{name}.jpg", Trimap(_trimaps(root) / f"{name}.png")))
    return Dataset(root, LAYOUT.name, why, CLASSES, tuple(samples), parts)


def _trimaps(root: Path) -> Path:
    return root / "annotations" / "trimaps"


def _listed(root: Path, part: str) -> tuple[str, ...]:
    """Names in one of the lists; empty where there is no such list."""
    path = root / "annotations" / f"{part}.txt"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}), expected Oxford-IIIT Pet's list") from error
    return tuple(line.split()[0] for line in lines if line.strip() and not line.startswith("#"))


def _paired(root: Path) -> set[str]:
    """Names of all photos that have a trimap, whatever the lists say."""
    # Files named "._*" are another system's litter, no pictures; the official archive holds such trimaps.
    names = {path.stem for path in (root / "images").glob("*.jpg") if not path.name.startswith("._")}
    return {name for name in names if (_trimaps(root) / f"{name}.png").is_file()}


LAYOUT = Layout(
    name="oxford",
    title="Oxford-IIIT Pet",
    expected="images/NAME.jpg, annotations/trimaps/NAME.png",
    detect=_detect,
    read=_read,
)
