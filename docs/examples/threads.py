"""One Segmenter, several threads, as in a server: the share of each photo that is pet.

python docs/examples/threads.py photo.jpg another.jpg ...
"""

import sys
from concurrent.futures import ThreadPoolExecutor

from unet_runtime import Segmenter

segmenter = Segmenter(threads=1)  # each call on one core: four callers keep four cores busy


def pet_share(path: str) -> float:
    result = segmenter(path)
    pet = result.spec.class_names.index("pet")
    return float((result.mask == pet).mean())  # mask: uint8 (H, W), class ids


with ThreadPoolExecutor(4) as pool:
    for path, share in zip(sys.argv[1:], pool.map(pet_share, sys.argv[1:]), strict=True):
        print(f"{path}: {share:.0%} pet")
