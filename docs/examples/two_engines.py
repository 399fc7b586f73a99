"""Segment one photo with the bundled model in ONNX Runtime and in LiteRT, and say how well they agree.

python docs/examples/two_engines.py photo.jpg results/
"""

import sys
from pathlib import Path

from unet_runtime import Segmenter

photo, folder = Path(sys.argv[1]), Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)

masks = {}
for backend in ("onnx", "tflite"):
    segmenter = Segmenter(backend=backend)
    result = segmenter(photo)
    masks[backend] = result.mask
    print(f"{segmenter.spec.name} {segmenter.spec.precision} on {segmenter.backend.engine}:")
    for kind, picture in (
        ("mask", result.mask_image()),
        ("overlay", result.overlay()),
        ("cutout", result.cutout()),
    ):
        path = folder / f"{photo.stem}.{backend}.{kind}.png"
        picture.save(path)
        print(f"  {path}")

agreement = (masks["onnx"] == masks["tflite"]).mean()
print(f"The two engines give the same class to {agreement:.2%} of the photo's pixels.")
