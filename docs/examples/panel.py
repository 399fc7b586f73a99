"""Draw a photo, its overlay and its cut-out side by side: the picture in the README.

python docs/examples/panel.py photo.jpg panel.jpg
"""

import sys

from PIL import Image

from unet_runtime import Segmenter

GAP = 12
CHECKER = 10

photo, panel = sys.argv[1:]
result = Segmenter()(photo)
width, height = result.photo.size

checkerboard = Image.new("RGB", (width, height), (255, 255, 255))
for top in range(0, height, CHECKER):
    for left in range(top % (2 * CHECKER), width, 2 * CHECKER):
        checkerboard.paste((215, 215, 215), (left, top, left + CHECKER, top + CHECKER))
cutout = result.cutout()
checkerboard.paste(cutout, mask=cutout)

sheet = Image.new("RGB", (3 * width + 2 * GAP, height), (255, 255, 255))
for column, picture in enumerate((result.photo, result.overlay(), checkerboard)):
    sheet.paste(picture, (column * (width + GAP), 0))
sheet.save(panel, optimize=True, quality=90)
