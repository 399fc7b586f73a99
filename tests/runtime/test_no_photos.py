"""Files that are no photos: what each is called, and what a folder of them does to a run."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.paths import REPOSITORY
from unet_runtime import ImageError
from unet_runtime.core.install import pip_command
from unet_runtime.core.photo import open_photo, photo_size

NO_PHOTOS = {
    "is empty": b"",
    "is an HTML page": b"<html><body>404 Not Found</body></html>",
    "is an HTML page, ": b"\xef\xbb\xbf\r\n  <!DOCTYPE HTML PUBLIC>",
    "is an HTML page, not": "\ufeff<html lang='en'>".encode("utf-16-le"),
    "is an HTML page, not an": b'<?xml version="1.0"?><!DOCTYPE html><html xmlns="">',
    "is an XML document": b'<?xml version="1.0"?>\n<Error><Code>NoSuchKey</Code></Error>',
    "is an SVG drawing": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "not an image but text, which begins with": b'{"error": "not found"}',
    "is a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "is a PDF document": b"%PDF-1.7",
    "is a PostScript file": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n{} loop\n",
    "is a PostScript file, ": b"\xc5\xd0\xd3\xc6"
    + struct.pack("<II", 32, 60)
    + bytes(20)
    + b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "is a ZIP archive": b"PK\x03\x04" + bytes(40),
    "is a video": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(40),
    "begins with nothing but zeros": bytes(4096),
    "not an image of a kind that is read": bytes(range(200, 256)) * 20,
}


@pytest.mark.parametrize("text", NO_PHOTOS)
def test_what_is_no_photo_is_called_what_it_is(text: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(NO_PHOTOS[text])
    with pytest.raises(ImageError, match=rf"photo\.jpg: {text}"):
        open_photo(path)
    assert photo_size(path) is None
    with pytest.raises(ImageError, match=rf"input: {text}"):
        open_photo(io.BytesIO(NO_PHOTOS[text]))


def test_no_other_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not after ``Image.init``, which registers the decoder that runs Ghostscript."""
    Image.init()

    def refuse(*args: object, **_: object) -> None:
        raise AssertionError(f"runs {args}")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(os, "system", refuse)
    for name in ("photo.jpg", "photo.eps", "photo.ps"):
        (tmp_path / name).write_bytes(NO_PHOTOS["is a PostScript file"])
        with pytest.raises(ImageError, match="is a PostScript file"):
            open_photo(tmp_path / name)


def run(*arguments: object, without: str = "") -> subprocess.CompletedProcess[str]:
    """unet-run in a process of its own, where the modules of ``without`` are not installed."""
    hide = f"import sys; sys.modules.update(dict.fromkeys({without.split()!r}))\n" if without else ""
    code = f"{hide}from unet_runtime.cli.run import main\nmain()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=120)


def test_a_folder_says_what_it_leaves_out(sample_photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(sample_photo, folder / "a.jpg")
    for name in ("b.heic", "c.HEIC", "d.jxl", "e.dng", "f.NEF", "g.svg", "notes.txt", "._h.heic"):
        (folder / name).write_bytes(b"x")
    done = run(folder, "-o", tmp_path / "out", "--json", without="pillow_heif pillow_jxl")
    assert done.returncode == 0
    lines = [line for line in done.stderr.splitlines() if "left out" in line]
    install = pip_command("heif")
    assert lines == [
        f"warning: left out: HEIC, 2 files ({folder}/b.heic, ...): needs the package pillow-heif: {install}",
        f"warning: left out: JPEG XL, 1 file ({folder}/d.jxl): needs the package pillow-jxl-plugin: {install}",
        f"warning: left out: camera raw, 2 files ({folder}/e.dng, ...): the picture inside is a preview only: develop "
        "them to TIFF, PNG or JPEG first (darktable, RawTherapee)",
        f"warning: left out: SVG, 1 file ({folder}/g.svg): no photo format that is read: convert them to PNG or JPEG",
    ]
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    left_out = sorted(Path(item["photo"]).name for item in reports if "left_out" in item)
    assert left_out == ["b.heic", "c.HEIC", "d.jxl", "e.dng", "f.NEF", "g.svg"]
    assert [Path(item["photo"]).name for item in reports if "results" in item] == ["a.jpg"]


def test_a_folder_of_nothing_else_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "only.heic").write_bytes(b"x")
    done = run(tmp_path, without="pillow_heif")
    assert done.returncode == 1
    assert "no photo in this folder that can be read (left out: HEIC, 1 file" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_bad_file_of_each_kind_does_not_end_the_run(sample_photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(sample_photo, folder / "good.jpg")
    content = (folder / "good.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    for index, text in enumerate(NO_PHOTOS):
        (folder / f"{index}.jpg").write_bytes(NO_PHOTOS[text])
    done = run(folder, "-q", "-o", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.count("error: ") == len(NO_PHOTOS) + 1
    assert len(done.stderr.splitlines()) == len(NO_PHOTOS) + 2
    assert (tmp_path / "out" / "good.mask.png").exists()
