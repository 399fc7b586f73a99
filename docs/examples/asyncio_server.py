"""Segmentation inside an asyncio program, as in a web server: uploads come as bytes, and the loop goes on meanwhile.

python docs/examples/asyncio_server.py photo.jpg another.jpg ...
"""

import asyncio
import sys
from pathlib import Path

from unet_runtime import ImageError, Segmenter

AT_A_TIME = 2  # more would wait for the same cores, with their photos in memory

segmenter = Segmenter(threads=1)


async def handle(upload: bytes, places: asyncio.Semaphore) -> str:
    async with places:
        try:
            result = await asyncio.to_thread(segmenter, upload)  # bytes, BytesIO, a binary file or an array
        except ImageError as error:
            return f"400: {error}"
        pet = result.spec.class_names.index("pet")
        return f"{(result.mask == pet).mean():.0%} pet"


async def main(paths: list[str]) -> None:
    places = asyncio.Semaphore(AT_A_TIME)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    clock = asyncio.create_task(tick())
    uploads = [Path(path).read_bytes() for path in paths]
    answers = await asyncio.gather(*[handle(upload, places) for upload in uploads])
    clock.cancel()
    for path, answer in zip(paths, answers, strict=True):
        print(f"{path}: {answer}")
    print(f"{ticks} other things done meanwhile")


asyncio.run(main(sys.argv[1:]))
