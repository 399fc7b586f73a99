"""Segment a video, frame by frame, with the bundled model. Needs the extra [video].

python docs/examples/video.py holiday.mp4 holiday-overlay.mp4
"""

import sys

import cv2
import numpy as np

from unet_runtime import Segmenter

source, target = sys.argv[1:]
reader = cv2.VideoCapture(source)
if not reader.isOpened():
    sys.exit(f"{source}: not a video OpenCV can read")
size = (int(reader.get(cv2.CAP_PROP_FRAME_WIDTH)), int(reader.get(cv2.CAP_PROP_FRAME_HEIGHT)))
writer = cv2.VideoWriter(target, cv2.VideoWriter_fourcc(*"mp4v"), reader.get(cv2.CAP_PROP_FPS), size)
segmenter = Segmenter()

frames = 0
while True:
    more, frame = reader.read()
    if not more:
        break
    overlay = segmenter(np.ascontiguousarray(frame[..., ::-1])).overlay()  # OpenCV's BGR -> RGB
    writer.write(np.asarray(overlay)[..., ::-1])
    frames += 1
writer.release()
print(f"{frames} frames -> {target}")
