"""Pictures of where an integer file's masks differ from the float model's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from unet_export.staging import COMMAND
from unet_runtime.core.files import replacing
from unet_runtime.core.render import palette_image
from unet_runtime.core.spec import ModelSpec
from unet_runtime.io.kind import STAMP_KEY

WORST = 5
"""Photos shown, those with the lowest agreement."""

POSITIONS_NAME, WORST_NAME = "differences.png", "worst-photos.png"

DIFFERENT = (255, 0, 110)
"""RGB of a pixel whose class differs, on a dark grey photo."""

_SMOOTH = 5
"""Pixels, odd: side of the square that a position is averaged over."""

_SIDE = 2.5
"""Inches of one picture."""

_DPI = 120


def heat_maps(
    names: Sequence[str],
    images: npt.NDArray[np.uint8],
    reference: npt.NDArray[np.uint8],
    quantized: npt.NDArray[np.uint8],
    spec: ModelSpec,
    folder: Path,
) -> list[Path]:
    """Write two PNG files: how often masks differ at each pixel position, and the photos where they differ most.

    Photos as fed, uint8 (n, h, w, 3), RGB in 0..255, with class ids of the float model and of the integer file, uint8
    (n, h', w') as ``spec.output``. ``folder`` is made if need be. Raises OutputError.
    """
    differ = reference != quantized  # (n, h', w')
    shares = differ.mean(axis=(1, 2))
    photos = images[:, *spec.input.valid]
    shown = min(WORST, len(photos))
    figure = Figure(figsize=(4 * _SIDE, 1 + shown * (_SIDE + 0.3)), layout="constrained")
    patches = [Patch(color="#{:02x}{:02x}{:02x}".format(*entry.color), label=entry.name) for entry in spec.classes]
    figure.legend(handles=patches, loc="outside upper center", ncols=len(patches))
    rows = figure.subfigures(shown, squeeze=False)[:, 0]
    for row, index in zip(rows, np.argsort(-shares, kind="stable"), strict=False):
        row.suptitle(f"{names[index]}: {shares[index]:.2%} of pixels differ", fontsize="medium")
        pictures = {
            "photo": photos[index],
            "float mask": palette_image(reference[index], spec).convert("RGB"),
            "integer mask": palette_image(quantized[index], spec).convert("RGB"),
            "where they differ": marked(photos[index], differ[index]),
        }
        for axes, (title, picture) in zip(row.subplots(1, len(pictures)), pictures.items(), strict=True):
            axes.imshow(picture, interpolation="nearest")
            axes.set_title(title, fontsize="small")
            axes.axis("off")
    return [_save(_positions(differ), folder / POSITIONS_NAME), _save(figure, folder / WORST_NAME)]


def difference_map(differ: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Share of photos that differ at each position, mean of its neighbourhood: (n, h, w) -> (h, w).

    With a hundred photos a single position is chance; its neighbourhood is not.
    """
    padded = np.pad(differ.mean(axis=0), _SMOOTH // 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (_SMOOTH, _SMOOTH))
    means: npt.NDArray[np.float64] = windows.mean(axis=(2, 3))
    return means


def marked(photo: npt.NDArray[np.uint8], differ: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """The photo (h, w, 3) in dark grey, the pixels of ``differ`` (h, w) bright."""
    grey: npt.NDArray[np.uint8] = (photo.mean(axis=-1, keepdims=True) / 2).astype(np.uint8).repeat(3, axis=-1)
    grey[differ] = DIFFERENT
    return grey


def _positions(differ: npt.NDArray[np.bool_]) -> Figure:
    figure = Figure(figsize=(2.4 * _SIDE, 2.4 * _SIDE), layout="constrained")
    axes = figure.subplots()
    axes.set_title(
        f"{differ.mean():.3%} of all pixels of {len(differ)} photos differ.\n"
        f"Share of photos at each position, mean of {_SMOOTH}x{_SMOOTH} pixels, %:",
        fontsize="medium",
    )
    picture = axes.imshow(100 * difference_map(differ), cmap="inferno", vmin=0, interpolation="nearest")
    axes.axis("off")
    figure.colorbar(picture)
    return figure


def _save(figure: Figure, path: Path) -> Path:
    with replacing(path, "choose another --output") as file:
        figure.savefig(file, format="png", dpi=_DPI, metadata={STAMP_KEY: COMMAND})
    return path
