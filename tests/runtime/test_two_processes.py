"""Two processes write the same folder at the same time, as two containers do that share it: both have process id 1."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.commands import content
from tests.helpers.listed import write_photos

ROUNDS = 50 if os.environ.get("SLOW_TESTS") else 3
PHOTOS = 30
KINDS = "mask,overlay,json"

SCRIPT = (
    "import os, sys; os.getpid = lambda: 1; sys.argv[0] = 'unet-run';"
    "from unet_runtime.cli.run import main; sys.exit(main())"
)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    write_photos(folder, PHOTOS, 300, 200)
    return folder


def start(many: Path, out: Path, model: Path, *more: str) -> subprocess.Popen[str]:
    arguments = [str(many), "--output-dir", str(out), "--save", KINDS, "--model", str(model), *more]
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("more", [(), ("--resume",)])
def test_both_leave_what_one_alone_writes(
    more: tuple[str, ...], many: Path, colour_model: Path, tmp_path: Path
) -> None:
    alone = start(many, tmp_path / "alone", colour_model)
    assert alone.communicate(timeout=120)[0] is None
    expected = content(tmp_path / "alone")
    assert len(expected) == 3 * PHOTOS
    assert len(set(expected.values())) == 3 * PHOTOS
    for index in range(ROUNDS // 2 + 1):
        out = tmp_path / f"both{index}"
        both = [start(many, out, colour_model, *more, "--coco", str(out / "all.json")) for _ in range(2)]
        for process in both:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
        found = content(out)
        assert found.pop("all.json").endswith(b"]}\n")
        assert found == expected
