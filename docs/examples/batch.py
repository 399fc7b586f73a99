"""Photos of different sizes in one call of the engine: what a GPU wants.

python docs/examples/batch.py photo.jpg another.jpg ...
"""

import sys

from unet_runtime import Segmenter

with Segmenter() as segmenter:
    results = segmenter.batch(sys.argv[1:])
    print(f"{len(results)} photos on {segmenter.backend.engine}, {segmenter.backend.device}")

for path, result in zip(sys.argv[1:], results, strict=True):
    path_out = f"{path}.overlay.png"
    result.overlay().save(path_out)
    print(f"{path} {result.photo.width}x{result.photo.height} -> {path_out}")
