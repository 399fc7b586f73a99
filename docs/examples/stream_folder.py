"""Cut the pets out of every photo of a folder: the next photos are decoded while the model works on this one.

python docs/examples/stream_folder.py holiday/ holiday-cutouts/
"""

import sys
from pathlib import Path

from unet_runtime import ImageError, Segmenter

source, target = Path(sys.argv[1]), Path(sys.argv[2])
target.mkdir(parents=True, exist_ok=True)
names = sorted(path for path in source.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))

done = 0
with Segmenter() as segmenter:
    results = segmenter.stream(names, ahead=2)  # at most two decoded photos wait in memory
    for path in names:
        try:
            result = next(results)
        except ImageError as error:  # of this photo; the stream goes on behind it
            print(f"skipped: {error}")
            continue
        result.cutout().save(target / f"{path.stem}.png")
        done += 1
print(f"{done} cut-outs in {target}, {len(names) - done} skipped")
