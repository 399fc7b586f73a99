"""A page of overlays, so that a person sees whether labels lie on what they name."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from unet_runtime.core import files
from unet_runtime.core.cores import usable_cores
from unet_runtime.core.datasets import IGNORED, Sample, evenly, open_labels
from unet_runtime.core.datasets.classes import hexadecimal
from unet_runtime.core.errors import ImageError
from unet_runtime.core.photo import open_photo
from unet_runtime.io.stamps import page_mark
from unet_training.check.report import SHOWN, Report
from unet_training.files import COMMAND

PICTURES = 24
"""Overlays on the page, spread evenly over the photos."""

_SIDE = 240  # pixels, the longer one
_IGNORED_COLOUR = (255, 255, 255)
_TEMPLATE = "check.html.j2"


class _Picture(NamedTuple):
    name: str
    base64: str


def write_page(report: Report, path: Path) -> None:
    """Write the page: what the report says, and a sheet of photos with their labels in the classes' colours.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    usable = [sample for sample in report.dataset.samples if sample.name not in report.seen]
    colours = np.full((256, 3), _IGNORED_COLOUR, np.uint8)
    for index, entry in enumerate(report.dataset.classes):
        colours[index] = entry.color
    with ThreadPoolExecutor(usable_cores()) as pool:
        pictures = list(pool.map(lambda sample: _picture(sample, colours), evenly(usable, PICTURES)))
    legend = [(entry.name, hexadecimal(entry.color)) for entry in report.dataset.classes]
    legend.append(("ignored", hexadecimal(_IGNORED_COLOUR)))
    # Photos, classes and folders are named by others: autoescape, so that whatever their names hold is text.
    environment = Environment(
        loader=PackageLoader("unet_training"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(_TEMPLATE).render(
        report=report, pictures=list(filter(None, pictures)), legend=legend, shown=SHOWN
    )
    files.write_bytes(
        path, (page_mark(COMMAND) + text).encode(errors="replace")
    )  # a file's name need not be Unicode text


def _picture(sample: Sample, colours: np.ndarray) -> _Picture | None:
    try:
        photo, labels = open_photo(sample.photo), open_labels(sample)
    except ImageError:  # changed since it was checked
        return None
    photo.thumbnail((_SIDE, _SIDE))
    small = np.asarray(Image.fromarray(labels).resize(photo.size, Image.Resampling.NEAREST))
    pixels = np.asarray(photo).astype(np.uint16)
    drawn = ((pixels + colours[small]) // 2).astype(np.uint8)
    outline = small == IGNORED
    drawn[outline] = _IGNORED_COLOUR
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, "JPEG", quality=85)
    return _Picture(sample.name, base64.b64encode(file.getvalue()).decode("ascii"))
