"""Cut-outs against trimaps, at the photos' own sizes: veil, glass, and how well the edge is met.

    python benchmarks/cutouts.py --data $PETS_DIR [--part validation] [--count 200] [--model FILE]
    python benchmarks/cutouts.py --time

``clear`` is the share of labelled background whose opacity is 0, ``solid`` that of labelled pet with 250 or more (of
255). Boundary F1 is that of ``unet-train evaluate`` (Csurka et al. 2013, tolerance 0.75 % of the diagonal), at the
photo's own size: of the mask's pet against the labelled pet, and of opacity 128 or more against the pet and that half
of the unlabelled border that is nearer to it than to the background, for there the edge of a cut-out should run.

``--part validation`` takes the photos that ``unet-train --seed 1`` chooses by, as it did for the bundled model;
``test`` the official test part. ``--time`` takes the sample photo at 12 megapixels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from unet_runtime import Segmentation, Segmenter
from unet_runtime.core import masks, resample
from unet_runtime.core.datasets import Sample, evenly, open_dataset, open_labels, read_split
from unet_runtime.core.text import table
from unet_training.data.dataset import split_dataset
from unet_training.segmentation_metrics import boundary_f1

SAMPLE = Path(__file__).parents[1] / "runtime/unet_runtime/samples/chelsea.jpg"
PET, BACKGROUND = 0, 1
SOLID = 250
VALIDATION, SEED = 200, 1

Opacity = npt.NDArray[np.uint8]


def photos_of(root: Path, part: str, count: int) -> list[Sample]:
    if part == "test":
        return evenly(read_split(open_dataset(root), "official", "test"), count)
    return evenly(split_dataset(open_dataset(root), "official", VALIDATION, SEED).validation, count)


def odds(result: Segmentation) -> Opacity:
    """Opacity as it was before there were levels."""
    planes = masks.photo_planes(result.probabilities, result.placement, result.spec)
    share = masks.foreground_share(planes, result.spec)
    size = result.photo.size
    return np.rint(resample.rows_of_plane(share, size, 0, size[1]) * 255).astype(np.uint8)


VARIANTS: dict[str, Callable[[Segmentation], Opacity]] = {
    "probabilities as opacity": odds,
    "cut-out": lambda result: result.opacity,
    "cut-out, --refine": lambda result: result.refined().opacity,
}


def with_half_of_the_border(truth: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Pixels nearer to the pet than to the background."""
    if not (truth == BACKGROUND).any():
        return np.ones(truth.shape, bool)
    distances = [ndimage.distance_transform_edt(truth != label) for label in (PET, BACKGROUND)]
    nearer: npt.NDArray[np.bool_] = distances[0] < distances[1]
    return nearer


def measure(segmenter: Segmenter, photos: list[Sample]) -> None:
    scores: dict[str, list[float]] = {name: [] for name in ("mask", *VARIANTS)}
    counts = {name: np.zeros(4) for name in VARIANTS}
    for labelled in photos:
        result, truth = segmenter(labelled.photo), open_labels(labelled)
        if not (truth == PET).any():
            continue
        scores["mask"].append(boundary_f1(truth == PET, result.mask == PET))
        edge = with_half_of_the_border(truth)
        for name, opacity_of in VARIANTS.items():
            opacity = opacity_of(result)
            scores[name].append(boundary_f1(edge, opacity >= 128))
            background, pet = opacity[truth == BACKGROUND], opacity[truth == PET]
            counts[name] += ((background == 0).sum(), background.size, (pet >= SOLID).sum(), pet.size)
    rows = [("", "clear", "solid", "boundary F1"), ("mask", "", "", f"{np.nanmean(scores['mask']):.4f}")]
    for name, (clear, background, solid, pet) in counts.items():
        rows.append((name, f"{clear / background:.1%}", f"{solid / pet:.1%}", f"{np.nanmean(scores[name]):.4f}"))
    print(f"{len(photos)} photos, {segmenter.spec.name} {segmenter.spec.precision}")
    print(table(rows))


def measure_time(segmenter: Segmenter) -> None:
    photo = Image.open(SAMPLE).convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC)
    result = segmenter(photo)
    steps: dict[str, Callable[[], object]] = {
        "opacity": lambda: fresh(result).opacity,
        "opacity, --refine": lambda: result.refined().opacity,
        "cut-out of it": lambda: result.cutout(),
    }
    rows = [("12 megapixels", "ms (median of 15)", "CPU ms")]
    for name, step in steps.items():
        spent = []
        for _ in range(15):
            start, used = time.perf_counter(), time.process_time()
            step()
            spent.append((time.perf_counter() - start, time.process_time() - used))
        wall, cpu = np.median(spent, axis=0) * 1000
        rows.append((name, f"{wall:.0f}", f"{cpu:.0f}"))
    print(table(rows))


def fresh(result: Segmentation) -> Segmentation:
    """The same result, with nothing made of it yet."""
    return Segmentation(result.photo, result.probabilities, result.spec, result.placement)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder in the layout of Oxford-IIIT Pet")
    parser.add_argument("--part", choices=["validation", "test"], default="validation")
    parser.add_argument("--count", type=int, default=VALIDATION)
    parser.add_argument("--model", type=Path, help="default: the bundled one, ONNX")
    parser.add_argument("--time", action="store_true", help="milliseconds instead of accuracy")
    options = parser.parse_args()
    segmenter = Segmenter(options.model, backend="auto" if options.model else "onnx")
    if options.time:
        measure_time(segmenter)
    else:
        measure(segmenter, photos_of(options.data, options.part, options.count))


if __name__ == "__main__":
    main()
