"""The least that segments a photo with ONNX Runtime: what cold_start.py and memory.py measure unet-run against.

python benchmarks/bare_onnx.py model.onnx photo.jpg mask.png
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image

model, photo, mask = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
image = Image.open(photo).convert("RGB")
batch = np.asarray(image.resize((160, 160), Image.Resampling.BILINEAR))[np.newaxis]
probabilities = session.run(None, {"image": batch})[0][0]
classes = Image.fromarray(probabilities.argmax(-1).astype(np.uint8))
classes.resize(image.size, Image.Resampling.NEAREST).save(mask)
