"""Draw photos and their cut-outs side by side: the picture in docs/results.md.

python docs/examples/cutout_sheet.py sheet.jpg photo.jpg [photo.jpg ...]

Each row, twice over: the photo; its cut-out with the foreground's odds as opacity and the photo's own colours, as
unet-edge 0.1 began; the cut-out as it is; the cut-out with its edge refined.
"""

import sys

import numpy as np
from PIL import Image

from unet_runtime import Segmentation, Segmenter

COLOUR = (235, 70, 120)  # behind the cut-outs: neither fur nor furniture has it
HEIGHT, GAP = 240, 6
ROWS_ABREAST = 2


def odds_as_opacity(result: Segmentation) -> Image.Image:
    """The photo, its opacity the probability of the foreground by that of foreground and background."""
    names = result.spec.class_names
    bands = np.concatenate([band for _, band in result.probability_bands()])
    kept, removed = bands[..., names.index("pet")], bands[..., names.index("background")]
    picture = result.photo.copy()
    picture.putalpha(Image.fromarray(np.rint(255 * kept / np.maximum(kept + removed, 1e-6)).astype(np.uint8)))
    return picture


def on_colour(cutout: Image.Image) -> Image.Image:
    picture = Image.new("RGB", cutout.size, COLOUR)
    picture.paste(cutout, mask=cutout)
    return picture


def row_of(result: Segmentation) -> Image.Image:
    cutouts = (odds_as_opacity(result), result.cutout(), result.refined().cutout())
    pictures = [result.photo, *map(on_colour, cutouts)]
    size = (round(result.photo.width * HEIGHT / result.photo.height), HEIGHT)
    row = Image.new("RGB", (4 * (size[0] + GAP), HEIGHT + GAP), "white")
    for index, picture in enumerate(pictures):
        row.paste(picture.resize(size, Image.Resampling.LANCZOS), (index * (size[0] + GAP), 0))
    return row


target, *names = sys.argv[1:]
segmenter = Segmenter()
rows = [row_of(segmenter(name)) for name in names]
width = max(row.width for row in rows)
abreast = min(ROWS_ABREAST, len(rows))
lines = -(-len(rows) // abreast)
sheet = Image.new("RGB", (abreast * width, lines * (HEIGHT + GAP)), "white")
for index, row in enumerate(rows):
    sheet.paste(row, (index % abreast * width, index // abreast * (HEIGHT + GAP)))
sheet.save(target, quality=80, optimize=True)
