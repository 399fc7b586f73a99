"""A folder of 2,000 photos, some of them bad: everything good is written, everything bad is named.

The model is one of a few operations, so that the test is of the folder. With SLOW_TESTS=1 in the environment there are
10,000 photos, and it runs with the bundled int8 model, too: two minutes on two cores.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.commands import UNET_RUN
from unet_runtime.engines import ENGINES

PHOTOS, BAD_EVERY = 10_000 if os.environ.get("SLOW_TESTS") else 2_000, 100
SLOW = pytest.mark.skipif(not os.environ.get("SLOW_TESTS"), reason="two minutes: set SLOW_TESTS=1")


# A process starts with the peak of the one that starts it, so a small one has to.
PEAK = """
import pathlib, resource, subprocess, sys
done = subprocess.run(sys.argv[2:])
pathlib.Path(sys.argv[1]).write_text(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(done.returncode)
"""


def jpegs(count: int) -> list[bytes]:
    """32x32, each another."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(count):
        file = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8)).save(file, "JPEG")
        found.append(file.getvalue())
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names in folders of 500, links to a few files; one in a hundred is no photo."""
    root = tmp_path_factory.mktemp("folder")
    good = [root / f"good{index}" for index in range(8)]
    for path, content in zip(good, jpegs(len(good)), strict=True):
        path.write_bytes(content)
    bad = [root / "text", root / "empty", root / "truncated"]
    for path, content in zip(bad, (b"text", b"", good[0].read_bytes()[:500]), strict=True):
        path.write_bytes(content)
    for index in range(PHOTOS):
        path = root / "photos" / f"{index // 500:02d}" / f"{index:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if index % BAD_EVERY == 37:
            os.link(bad[index // BAD_EVERY % len(bad)], path)
        elif index % BAD_EVERY == 59:
            path.symlink_to("gone")
        else:
            os.link(good[index % len(good)], path)
    return root / "photos"


@pytest.mark.parametrize("model", ["colours", pytest.param("int8", marks=SLOW)])
def test_thousands_of_photos(model: str, folder: Path, colour_model: Path, tmp_path: Path) -> None:
    chosen = {"colours": colour_model, "int8": ENGINES["tflite"].default_model}[model]
    command = [UNET_RUN, str(folder), "--model", str(chosen)]
    command += ["--save", "mask", "--output-dir", str(tmp_path / "masks")]
    with (tmp_path / "out.txt").open("w") as lines, (tmp_path / "err.txt").open("w") as errors:
        process = subprocess.run([sys.executable, "-c", PEAK, tmp_path / "peak", *command], stdout=lines, stderr=errors)
    errors_shown = (tmp_path / "err.txt").read_text()
    failures = 2 * PHOTOS // BAD_EVERY
    assert process.returncode == 1, errors_shown[-2000:]
    assert (
        errors_shown.splitlines()[-1] == f"warning: {failures} of {PHOTOS} photos failed, {PHOTOS - failures} written"
    )
    named = re.findall(r"^error: \S+/(\d{5})\.jpg: ", errors_shown, re.MULTILINE)
    assert named == [f"{index:05d}" for index in range(PHOTOS) if index % BAD_EVERY in (37, 59)]
    printed = [line.split(":")[0] for line in (tmp_path / "out.txt").read_text().splitlines()]
    assert printed == sorted(printed)  # in the order of the folder
    masks = sorted((tmp_path / "masks").rglob("*"))
    assert sum(path.is_file() for path in masks) == PHOTOS - failures
    for path in masks[:: len(masks) // 100]:
        if path.is_file():
            with Image.open(path) as mask:
                assert mask.size == (32, 32)
                mask.load()
    assert int((tmp_path / "peak").read_text()) < 400_000  # KiB: does not grow with the folder
