"""Edges of a cut-out at the photo's own size: opacity that follows the photo, colours free of the old background.

Both are computed on a small copy of the photo, and applied at its own size in the few pixels around the edge alone.

``refined``     fast guided filter (He, Sun, Tang, "Guided Image Filtering", ECCV 2010; He, Sun, "Fast Guided Filter",
                2015): around each pixel opacity is taken for a linear function of the photo's colours, so that it
                changes where they do
``EdgeColours`` blurred fusion (Forte, "Approximate Fast Foreground Colour Estimation", ICIP 2021): the colours of a
                translucent pixel, made of those of the opaque and of the transparent ones around it
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from unet_runtime.core import resample
from unet_runtime.core.cells import Band, Cells, runs, with_surround
from unet_runtime.core.masks import CLEAR, SOLID, opacity_of

_SIDE = 384
"""Pixels of the small copy's longer side, at most, or twice the model's grid where that is more."""

_COLOUR_SIDE = 192
"""The same for colours, which change slowly: a quarter of the time, and as good by a level or so of 255."""

_RADIUS = 3.0
"""Points of the model's grid that a window reaches to each side: what the model's edge may be off by."""

_EPSILON = 1e-2
"""Variance of colours in 0..1 below which a window counts as of one colour. A tenth of it meets labelled edges a little
better, but knit and fur behind a pet become specks of it. Both were chosen on validation photos, by
benchmarks/cutouts.py and by eye."""

_SURE = 0.15
"""Odds beyond ``CLEAR`` and ``SOLID`` from which no detail of the photo is looked for."""

_REACHES = (1, 4, 12)
"""Pixels of the small copy that the windows of mean colours reach to each side."""

_PURE = 16  # power of the opacity that weighs a pixel in the first means

_LEAST = np.float32(1e-4)  # weight of every pixel in the second ones

_LEVEL = np.float32(1 / 255)

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


def refined(share: Floats, photo: Image.Image) -> Pixels:
    """Opacity of each pixel in a cut-out, its edge moved to that of the photo.

    Args:
        share: odds of the foreground, float32 (h, w), on the part of the model's grid that the photo covers.
        photo: RGB (W, H).

    Returns:
        uint8 (H, W): 0 background .. 255 foreground.
    """
    cells = Cells(photo.size, max(_SIDE, 2 * max(share.shape)))
    height, width = cells.shape
    guide = _planes(cells.reduced(photo))
    odds = resample.rows_of_plane(share, (width, height), 0, height)
    plain = np.clip((odds - np.float32(CLEAR)) / np.float32(SOLID - CLEAR), 0, 1)  # opacity without the photo's help
    radius = max(1, round(_RADIUS * max(height / share.shape[0], width / share.shape[1])))
    lines = np.zeros((4, height, width), np.float32)  # factors of red, green and blue, and the constant
    lines[3] = plain
    near = _box(_changes(plain)[np.newaxis], radius)[0] > 0
    if near.any():
        rows, columns = _surroundings(near, radius)
        fitted = _guided(guide[:, rows, columns], plain[rows, columns], radius)
        lines[:, rows, columns] = np.where(near[rows, columns], fitted, lines[:, rows, columns])
    return _applied(lines, np.einsum("chw,chw->hw", lines[:3], guide) + lines[3], cells, photo)


def _applied(lines: Floats, share: Floats, cells: Cells, photo: Image.Image) -> Pixels:
    """Opacity at the photo's own size: computed in the cells around which ``share`` is not sure, copied in the others.

    Args:
        lines: float32 (4, h, w), the linear functions at the points of ``cells``.
        share: float32 (h, w), what they give there.
        cells: of the photo.
        photo: RGB (W, H).
    """
    result = np.empty((photo.height, photo.width), np.uint8)
    is_open, labels = _sure_cells(share)
    points = with_surround(lines * np.array([_LEVEL, _LEVEL, _LEVEL, 1], np.float32).reshape(4, 1, 1))
    for band in cells.bands():
        alpha = band.filled(labels[band.first : band.last])
        open_cells = is_open[band.first : band.last]
        for part in runs(np.asarray(open_cells.any(axis=0))):  # of a photo's pixels, few are near an edge
            rows, columns = np.nonzero(open_cells[:, part])
            odds, green, blue, constant = cells.values(points, rows + band.first, columns + part.start)
            colours = cells.by_cell(np.asarray(band.crop(photo, part)))[rows, columns].reshape(*odds.shape, 3)
            odds *= colours[..., 0]
            odds += green * colours[..., 1]
            odds += blue * colours[..., 2]
            odds += constant
            columns += part.start
            cells.by_cell(alpha)[rows, columns] = opacity_of(odds).reshape(-1, cells.step, cells.step)
        result[band.top : band.bottom] = band.inside(alpha)
    return result


def _sure_cells(share: Floats) -> tuple[npt.NDArray[np.bool_], Pixels]:
    """(whether a cell has to be computed, else the opacity of its pixels), both (h + 1, w + 1), from points (h, w)."""
    sides = np.where(share < CLEAR - _SURE, 0, np.where(share > SOLID + _SURE, 255, 128)).astype(np.uint8)
    padded = np.pad(sides, 2, mode="edge")
    height, width = share.shape[0] + 1, share.shape[1] + 1
    lowest = highest = padded[:height, :width]
    for row in range(4):  # the four corners of a cell, and the points around them
        for column in range(4):
            part = padded[row : row + height, column : column + width]
            lowest, highest = np.minimum(lowest, part), np.maximum(highest, part)
    return (lowest != highest) | (lowest == 128), lowest


def _changes(plane: Floats) -> Floats:
    """1 where a value (h, w) is not that of its right or lower neighbour, on both sides; else 0."""
    result = np.zeros(plane.shape, np.float32)
    down, across = plane[1:] != plane[:-1], plane[:, 1:] != plane[:, :-1]
    result[1:][down] = result[:-1][down] = 1
    result[:, 1:][across] = result[:, :-1][across] = 1
    return result


def _surroundings(band: npt.NDArray[np.bool_], radius: int) -> tuple[slice, slice]:
    """Rows and columns of the rectangle that holds all windows around the pixels of ``band``."""
    found = []
    for axis, length in ((1, band.shape[0]), (0, band.shape[1])):
        inside = np.flatnonzero(band.any(axis=axis))
        found.append(slice(max(0, int(inside[0]) - 2 * radius), min(length, int(inside[-1]) + 2 * radius + 1)))
    return found[0], found[1]


def _guided(guide: Floats, share: Floats, radius: int) -> Floats:
    """Guided filter with a guide of three colours.

    Args:
        guide: float32 (3, h, w), 0..1.
        share: float32 (h, w), what is filtered.
        radius: pixels of a window to each side.

    Returns:
        float32 (4, h, w), factors of red, green and blue, and the constant, of the linear function in each pixel.
    """
    red, green, blue = guide
    products = np.stack([red * red, red * green, red * blue, green * green, green * blue, blue * blue])
    means = _box(np.concatenate([guide, share[np.newaxis], guide * share, products]), radius)
    colour, mean = means[:3], means[3]
    x, y, z = means[4:7] - colour * mean  # covariances of colours and share
    rr, rg, rb, gg, gb, bb = means[7:] - np.stack([colour[i] * colour[j] for i, j in _PAIRS])
    rr, gg, bb = rr + _EPSILON, gg + _EPSILON, bb + _EPSILON
    # Cramer's rule: one 3x3 system for each pixel.
    minors = (gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg)
    determinant = rr * minors[0] + rg * minors[1] + rb * minors[2]
    factors = np.stack(
        [
            minors[0] * x + minors[1] * y + minors[2] * z,
            minors[1] * x + (rr * bb - rb * rb) * y + (rg * rb - rr * gb) * z,
            minors[2] * x + (rg * rb - rr * gb) * y + (rr * gg - rg * rg) * z,
        ]
    )
    factors /= determinant
    constant = mean - (factors * colour).sum(axis=0)
    return _box(np.concatenate([factors, constant[np.newaxis]]), radius)


_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


class EdgeColours:
    """Colours of the foreground where opacity is neither none nor whole.

    Args:
        photo: RGB (W, H).
        opacity: uint8 (H, W).
    """

    def __init__(self, photo: Image.Image, opacity: Pixels) -> None:
        self._photo = photo
        self._opacity = Image.fromarray(opacity)
        self._cells = Cells(photo.size, _COLOUR_SIDE)
        share = np.asarray(self._cells.reduced(self._opacity), np.float32) * _LEVEL
        colours = _planes(self._cells.reduced(photo)) * np.float32(255)
        self._points = with_surround(np.concatenate(_sides(colours, share)))  # (6, h + 2, w + 2)

    def bands(self) -> Iterator[Pixels]:
        """The cut-out from the top down: uint8 (rows, W, 4), RGBA, colour 0 where opacity is 0."""
        for band in self._cells.bands():
            part = band.crop(self._photo)
            part.putalpha(band.crop(self._opacity))
            pixels = np.array(part)  # (rows, columns, 4)
            alpha = np.ascontiguousarray(pixels[..., 3])
            self._clean(pixels, alpha, band)
            pixels.view(np.uint32)[..., 0] *= alpha > 0  # colours and opacity of a pixel at once
            yield band.inside(pixels)

    def _clean(self, pixels: Pixels, alpha: Pixels, band: Band) -> None:
        """Replace the colours of translucent pixels, in place."""
        is_translucent = alpha - np.uint8(1) < 254  # 0 becomes 255
        rows, columns = np.nonzero(self._cells.holding(is_translucent))
        if not len(rows):
            return
        step = self._cells.step
        sides = self._cells.values(self._points, rows + band.first, columns)  # (6, n, step * step)
        by_cell = self._cells.by_cell(pixels)
        patches = by_cell[rows, columns].reshape(len(rows), step * step, 4)
        share = patches[..., 3] * _LEVEL
        for channel in range(3):
            inside, outside = sides[channel], sides[channel + 3]
            # What the two sides do not explain is the foreground's own detail, as far as it is opaque.
            colour = inside + share * (patches[..., channel] - outside - share * (inside - outside))
            patches[..., channel] = np.rint(np.clip(colour, 0, 255))
        by_cell[rows, columns] = patches.reshape(len(rows), step, step, 4)


def _sides(colours: Floats, share: Floats) -> tuple[Floats, Floats]:
    """Colours of the foreground and of the background around each pixel, both float32 (3, h, w).

    Args:
        colours: float32 (3, h, w) of the photo, 0..255.
        share: opacity float32 (h, w), 0..1.
    """
    rest = 1 - share
    # A translucent pixel has the other side's colour in it: at first it has next to no weight.
    inside, outside = _mean(colours, share**_PURE, _REACHES), _mean(colours, rest**_PURE, _REACHES)
    detail = colours - share * inside - rest * outside  # what the two do not explain
    foreground = np.clip(inside + share * detail, 0, 255)
    background = np.clip(outside + rest * detail, 0, 255)
    return _mean(foreground, share + _LEAST, _REACHES[:1]), _mean(background, rest + _LEAST, _REACHES[:1])


def _mean(colours: Floats, weights: Floats, reaches: Sequence[int]) -> Floats:
    """Mean colours (3, h, w) of pixels with a weight (h, w), in windows that grow where there are none."""
    weighted = np.concatenate([colours * weights, weights[np.newaxis]])
    mixed = weighted.mean(axis=(1, 2), keepdims=True) * np.float32(1e-7)
    for index, reach in enumerate(reaches):
        # Each wider mean has a small vote: enough where the narrower ones have no pixel.
        mixed = mixed + _box(weighted, reach) * np.float32(1e-2**index)
    result: Floats = mixed[:3] / np.maximum(mixed[3], np.float32(1e-12))
    return result


def _box(planes: Floats, radius: int) -> Floats:
    """Means of windows of ``radius`` pixels to each side, cut at the picture's edges; (C, h, w)."""
    _, height, width = planes.shape
    across = _window_sums(planes.transpose(1, 0, 2), radius).transpose(2, 1, 0)  # (w, C, h)
    sums = _window_sums(across, radius).transpose(1, 2, 0)
    return np.ascontiguousarray(sums) / np.outer(_window_sizes(height, radius), _window_sizes(width, radius))


def _window_sums(lines: Floats, radius: int) -> Floats:
    """Sums of each line and ``radius`` lines to each side of it, cut at the edges; (n, ...).

    A whole line is added at a time, which takes half the time of NumPy's cumsum.
    """
    count = len(lines)
    sums = np.zeros((count + 2 * radius + 1, *lines.shape[1:]), np.float32)
    running = sums[radius : radius + count + 1]
    for number, line in enumerate(lines):
        np.add(running[number], line, out=running[number + 1])
    sums[radius + count + 1 :] = running[count]
    return np.asarray(sums[2 * radius + 1 :] - sums[:count])


def _window_sizes(count: int, radius: int) -> Floats:
    """Number of lines in the window around each of ``count`` lines: float32 (count,)."""
    places = np.arange(count)
    return (np.minimum(places + radius + 1, count) - np.maximum(places - radius, 0)).astype(np.float32)


def _planes(photo: Image.Image) -> Floats:
    """RGB photo -> float32 (3, H, W), 0..1."""
    return np.ascontiguousarray(np.asarray(photo).transpose(2, 0, 1)) * _LEVEL
