"""Photos of any size at their own resolution, tile by tile: for models trained on patches.

The photo is covered by tiles that overlap; past its edges it is mirrored. A network sees less around a pixel near a
tile's edge, so tiles are blended: along each axis a tile's weight is 0 in the outer quarter of an overlap, 1 in the
inner quarter, and linear between; the weights of all tiles sum to 1 in each pixel. Where no pixel farther away than a
quarter of the overlap has an influence, the result is that of one network as large as the photo. For unpadded
convolutions (``spec.input.margin``) it is so whatever the overlap: their outputs are exact up to the edge, and the
tiles of their input overlap by the margin (Ronneberger et al. 2015, overlap-tile strategy).

One row of tiles at a time is in memory, beside the photo, its mask and its opacity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from unet_runtime.core import masks
from unet_runtime.core.geometry import mirrored
from unet_runtime.core.photo import limit_opacity
from unet_runtime.core.segmentation import Findings, Pictures, taken_out
from unet_runtime.core.spec import ModelSpec

OVERLAP = 0.25
"""Share of a tile's side."""

MOST_OVERLAP = 0.75
"""More would run the model more than 16 times over each pixel."""

_TILES_PER_CALL = 4
_OUTER = 0.25  # of an overlap: weight 0

_GRID = 32
"""Pixels that a network that halves five times pools into one. Tiles begin at multiples of it, or each would pool other
pixels together than its neighbours do."""

Run = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""uint8 (n, h, w, 3) -> float32 probabilities (n, h', w', C)."""

Floats = npt.NDArray[np.float32]


class Tile(NamedTuple):
    """A tile along one axis of a photo."""

    start: int
    """First pixel."""
    weights: Floats
    """float32 (side,); the last tile may reach past the photo's end."""


@dataclass(frozen=True, eq=False, repr=False)
class TiledSegmentation(Findings, Pictures):
    """As ``Segmentation``, for a photo that the model saw in tiles."""

    photo: Image.Image
    """RGB, upright, at its own size."""
    mask: npt.NDArray[np.uint8]
    """Class ids, uint8 (H, W)."""
    opacity: npt.NDArray[np.uint8]
    """Opacity of each pixel in a cut-out, uint8 (H, W): 0 background .. 255 foreground."""
    spec: ModelSpec
    tiles: int
    """How many the model saw."""
    scores: tuple[float, ...]
    """Mean probability of each class in its region, by class id, see ``score``."""
    run: Run
    overlap: float

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the photo, and of everything made of it."""
        return self.photo.size

    def probability_bands(self) -> Iterator[tuple[int, Floats]]:
        """As ``Segmentation.probability_bands``. They have not been kept: the model runs again, band by band."""
        return blended_bands(self.photo, self.spec, self.run, self.overlap)

    def only(self, found: Collection[str]) -> TiledSegmentation:
        """As ``Segmentation.only``. Where some classes are taken out, but not all, the model runs again."""
        ids = taken_out(self, found)
        if not ids:
            return self
        rest = self.spec.roles("background")[0]

        def run(images: npt.NDArray[np.uint8]) -> Floats:
            return masks.without(self.run(images), ids, rest)

        if set(self.spec.roles("foreground")) <= set(ids):
            return replace(self, mask=np.full_like(self.mask, rest), opacity=np.zeros_like(self.opacity), run=run)
        return replace(segment(self.photo, self.spec, run, self.overlap), scores=self.scores)


def segment(photo: Image.Image, spec: ModelSpec, run: Run, overlap: float = OVERLAP) -> TiledSegmentation:
    """Run the model over a photo in tiles.

    Args:
        photo: RGB of any size (W, H).
        spec: of the model.
        run: the model.
        overlap: share of a tile's side that it has in common with the next one, at least; 0..``MOST_OVERLAP``.

    Raises:
        ValueError: an overlap out of range.
    """
    width, height = photo.size
    mask = np.empty((height, width), np.uint8)
    opacity = np.empty((height, width), np.uint8)
    sums = np.zeros((2, len(spec.classes)))
    for top, band in blended_bands(photo, spec, run, overlap):  # (rows, W, C)
        planes = np.ascontiguousarray(band.transpose(2, 0, 1))
        ids = masks.first_of_the_largest(planes)
        mask[top : top + len(band)] = ids
        sums += masks.region_sums(planes, ids)
        opacity[top : top + len(band)] = masks.opacity_of(masks.foreground_share(planes, spec))
    side = spec.input.covered
    tiles = len(axis_tiles(height, side[0], overlap)) * len(axis_tiles(width, side[1], overlap))
    opacity = limit_opacity(opacity, photo)
    return TiledSegmentation(photo, mask, opacity, spec, tiles, masks.scores(sums), run, overlap)


def blended_bands(photo: Image.Image, spec: ModelSpec, run: Run, overlap: float) -> Iterator[tuple[int, Floats]]:
    """(top, band) from the top down: the band's first row, and shares float32 (rows, W, C); see ``segment``."""
    if not 0 <= overlap <= MOST_OVERLAP:
        raise ValueError(f"overlap {overlap}, expected a share of a tile's side, 0 to {MOST_OVERLAP}")
    side = spec.input.covered
    rows = axis_tiles(photo.height, side[0], overlap)
    columns = axis_tiles(photo.width, side[1], overlap)
    pending = np.zeros((0, photo.width, len(spec.classes)), np.float32)  # rows from ``top`` on, not complete yet
    top = 0
    for index, (start, weights) in enumerate(rows):
        bottom = min(start + side[0], photo.height)
        grown = np.zeros((bottom - top, *pending.shape[1:]), np.float32)
        grown[: len(pending)] = pending
        strip = _strip(photo, spec, run, start, columns)[: bottom - start]  # (rows, W, C)
        strip *= weights[: bottom - start, np.newaxis, np.newaxis]
        grown[start - top :] += strip
        complete = rows[index + 1].start if index + 1 < len(rows) else photo.height
        yield top, grown[: complete - top]
        pending = grown[complete - top :].copy()
        top = complete


def _strip(photo: Image.Image, spec: ModelSpec, run: Run, top: int, columns: list[Tile]) -> Floats:
    """One row of tiles, whose outputs begin at row ``top`` of the photo: shares float32 (covered height, W, C)."""
    margin = spec.input.margin
    side = spec.input.covered
    picture = _mirrored_rows(photo, top - margin, top - margin + spec.input.height)  # uint8 (h, W, 3)
    strip = np.zeros((side[0], photo.width, len(spec.classes)), np.float32)
    for first in range(0, len(columns), _TILES_PER_CALL):
        part = columns[first : first + _TILES_PER_CALL]
        images = np.empty((len(part), spec.input.height, spec.input.width, 3), np.uint8)
        for image, tile in zip(images, part, strict=True):
            left = tile.start - margin
            image[:] = picture[:, mirrored(left, left + spec.input.width, photo.width)]
        outputs = masks.shares(run(images), spec)  # (n, h', w', C)
        for output, tile in zip(outputs, part, strict=True):
            if output.shape[:2] != side:
                output = masks.enlarged(output, side).transpose(1, 2, 0)
            width = min(side[1], photo.width - tile.start)
            strip[:, tile.start : tile.start + width] += output[:, :width] * tile.weights[:width, np.newaxis]
    return strip


def _mirrored_rows(photo: Image.Image, top: int, bottom: int) -> npt.NDArray[np.uint8]:
    rows = mirrored(top, bottom, photo.height)
    first, last = int(rows.min()), int(rows.max())
    return np.asarray(photo.crop((0, first, photo.width, last + 1)))[rows - first]


def axis_tiles(length: int, side: int, overlap: float) -> list[Tile]:
    """Tiles of ``side`` pixels that cover a line of ``length``, few and evenly spread; their weights sum to 1."""
    if length <= side:
        return [Tile(0, np.ones(side, np.float32))]
    step = _step(length, side, overlap)
    ramp = _ramp(max(0, side - step))
    tiles = []
    for start in range(0, length - side + step, step):
        weights = np.ones(side)
        if start > 0:
            weights[: len(ramp)] *= ramp
        if start + side < length:
            weights[side - len(ramp) :] *= ramp[::-1]
        tiles.append((start, weights))
    total = np.zeros(tiles[-1][0] + side)
    for start, weights in tiles:
        total[start : start + side] += weights
    return [Tile(start, (weights / total[start : start + side]).astype(np.float32)) for start, weights in tiles]


def _step(length: int, side: int, overlap: float) -> int:
    """Pixels from one tile's first to the next one's, in step with the network's pooling."""
    most = max(1, side - round(side * overlap))
    grid = min(_GRID, 1 << (most.bit_length() - 1))  # tiles smaller than that are of networks that halve less often
    most -= most % grid
    count = math.ceil((length - side) / most)
    return grid * math.ceil((length - side) / (count * grid))


def _ramp(common: int) -> npt.NDArray[np.float64]:
    """Weights of a tile in the pixels that it has in common with the tile before it."""
    position = (np.arange(common) + 0.5) / max(common, 1)
    return np.clip((position - _OUTER) / (1 - 2 * _OUTER), 0, 1)
