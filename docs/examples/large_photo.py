"""A photo of any size in bounded memory: its mask, and the probabilities of all classes as one .npy file.

    python docs/examples/large_photo.py photo.jpg results/ [model.onnx]

With a model of your own, one trained on patches, the photo is run in overlapping tiles at its own resolution. The
bundled model was trained on whole photos, and sees the whole photo.
"""

import sys
from pathlib import Path

import numpy as np

from unet_runtime import Segmenter
from unet_runtime.core.photo import open_photo

photo, folder = Path(sys.argv[1]), Path(sys.argv[2])
model = sys.argv[3] if len(sys.argv) > 3 else None
folder.mkdir(parents=True, exist_ok=True)

image = open_photo(photo, max_pixels=400_000_000)  # above Pillow's own limit, because this photo is trusted
segmenter = Segmenter(model)
result = segmenter.tiled(image, overlap=0.25) if model else segmenter(image)
result.mask_image().save(folder / f"{photo.stem}.mask.png")

# float32 (H, W, classes): 1.2 GB for 100 megapixels, of which a band of rows is in memory at a time.
shape = (image.height, image.width, len(result.spec.classes))
probabilities = np.lib.format.open_memmap(folder / f"{photo.stem}.npy", mode="w+", dtype=np.float32, shape=shape)
for top, band in result.probability_bands():
    probabilities[top : top + len(band)] = band
probabilities.flush()
print(f"{photo}: {image.width}x{image.height} -> {folder}")
