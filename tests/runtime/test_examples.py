"""Every script of docs/examples runs as its docstring says, in a process of its own, and does what it says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.colours import colour_spec, write_colour_model
from tests.helpers.paths import REPOSITORY

EXAMPLES = REPOSITORY / "docs" / "examples"


def run(name: str, *arguments: object) -> str:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "COLUMNS": "120"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.fixture
def photos(tmp_path: Path, sample_photo: Path) -> list[Path]:
    """Two photos of different sizes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(sample_photo, folder / "cat.jpg")
    Image.open(sample_photo).resize((200, 320)).save(folder / "tall.png")
    return [folder / "cat.jpg", folder / "tall.png"]


def test_every_example_is_tested() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f'run("{path.name}"' in source, path
        assert f"python docs/examples/{path.name} " in path.read_text(encoding="utf-8"), path


def test_panel(sample_photo: Path, tmp_path: Path) -> None:
    run("panel.py", sample_photo, tmp_path / "panel.jpg")
    assert size_of(tmp_path / "panel.jpg") == (3 * 451 + 2 * 12, 300)


def test_cutout_sheet(photos: list[Path], tmp_path: Path) -> None:
    run("cutout_sheet.py", tmp_path / "sheet.jpg", *photos)
    assert size_of(tmp_path / "sheet.jpg") == (2 * 4 * (361 + 6), 240 + 6)


def test_two_engines(sample_photo: Path, tmp_path: Path) -> None:
    output = run("two_engines.py", sample_photo, tmp_path / "results")
    assert len(list((tmp_path / "results").glob("chelsea.*.png"))) == 6
    share = float(output.rsplit("to ", 1)[1].partition("%")[0])
    assert share > 95


def test_stream_folder_skips_what_is_no_photo(photos: list[Path], tmp_path: Path) -> None:
    (photos[0].parent / "broken.jpg").write_bytes(photos[0].read_bytes()[:3000])
    output = run("stream_folder.py", photos[0].parent, tmp_path / "cutouts")
    assert "broken.jpg: damaged or truncated" in output
    assert "2 cut-outs" in output
    sizes = {path.name: size_of(path) for path in (tmp_path / "cutouts").iterdir()}
    assert sizes == {"cat.png": (451, 300), "tall.png": (200, 320)}


def test_threads(photos: list[Path]) -> None:
    lines = run("threads.py", *photos, *photos).splitlines()
    assert len(lines) == 4
    assert lines[:2] == lines[2:]
    assert lines[0].startswith(f"{photos[0]}: ")
    assert lines[0].endswith("% pet")


def test_server(photos: list[Path]) -> None:
    lines = run("asyncio_server.py", *photos, *photos).splitlines()
    assert len(lines) == 5
    assert lines[0].startswith(f"{photos[0]}: ")
    assert lines[0].endswith("% pet")
    assert lines[:2] == lines[2:4]
    assert int(lines[4].split()[0]) > 0  # the loop went on meanwhile


def test_batch(photos: list[Path]) -> None:
    assert run("batch.py", *photos).startswith("2 photos on ")
    assert [size_of(Path(f"{photo}.overlay.png")) for photo in photos] == [(451, 300), (200, 320)]


def test_large_photo_whole_and_in_tiles(photos: list[Path], tmp_path: Path) -> None:
    own = write_colour_model(tmp_path / "own.onnx", colour_spec(64))
    for model in ([], [own]):
        run("large_photo.py", photos[0], tmp_path / "results", *model)
        mask = np.asarray(Image.open(tmp_path / "results" / "cat.mask.png"))
        probabilities = np.load(tmp_path / "results" / "cat.npy")
        assert probabilities.shape == (300, 451, 3)
        assert np.array_equal(probabilities.argmax(-1), mask)
