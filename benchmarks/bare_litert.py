"""The least that segments a photo with LiteRT: what cold_start.py and memory.py measure unet-run against.

python benchmarks/bare_litert.py model.tflite photo.jpg mask.png
"""

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

model, photo, mask = sys.argv[1:]
interpreter = Interpreter(model)
interpreter.allocate_tensors()
image = Image.open(photo).convert("RGB")
batch = np.asarray(image.resize((160, 160), Image.Resampling.BILINEAR))[np.newaxis]
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], batch)
interpreter.invoke()
probabilities = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
classes = Image.fromarray(probabilities.argmax(-1).astype(np.uint8))
classes.resize(image.size, Image.Resampling.NEAREST).save(mask)
