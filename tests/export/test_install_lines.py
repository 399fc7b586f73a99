"""Install lines of docs/devices.md: every one names a folder, and its packages can be had for the board."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.helpers.paths import REPOSITORY
from unet_export.bundle import wheels
from unet_export.bundle.wheels import PLATFORMS, PlatformName, WheelError

PAGE = REPOSITORY / "docs" / "devices.md"
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
NAMES = ("unet-edge-runtime", "unet-edge-export", "unet-edge-training")


def boards() -> list[tuple[str, str]]:
    """(board, install line without ``pip install``) of the table."""
    section = PAGE.read_text(encoding="utf-8").partition("\n## Boards")[2].partition("\n## ")[0]
    return re.findall(r"^\| ([^|]+) \| .*?`pip install ([^`]+)` \|", section, re.MULTILINE)


def platform(board: str) -> PlatformName:
    if "Raspberry" in board or "Jetson" in board or board == "the same, ONNX Runtime":
        return "linux-aarch64"
    if "Mac" in board:
        return "macos-arm64"
    return "windows-x86_64" if "Windows" in board else "linux-x86_64"


def different() -> list[tuple[str, str]]:
    """The first board of each system and processor that a line is for."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for board, line in boards():
        found.setdefault((platform(board), line), (board, line))
    return list(found.values())


def test_the_table_has_lines() -> None:
    assert len(boards()) >= 12


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_no_line_installs_a_name_that_nobody_owns(page: Path) -> None:
    for line in re.findall(r"pip install ([^`\n]+)", page.read_text(encoding="utf-8")):
        for word in line.split():
            assert not word.strip("\"'").startswith(NAMES), f"{page}: {line}"


@pytest.mark.network
@pytest.mark.parametrize(("board", "line"), different(), ids=lambda text: text[:40])
def test_what_a_line_installs_can_be_had(board: str, line: str, tmp_path: Path) -> None:
    """uv resolves it for the board's system and processor, wheels alone."""
    settings = PLATFORMS[platform(board)]
    requirements = []
    for word in shlex.split(line):
        found = re.fullmatch(r"\./runtime(\[\w+\])?", word)
        folder = (REPOSITORY / "runtime").as_uri()
        requirements.append(f"unet-edge-runtime{found[1] or ''} @ {folder}" if found else word)
    pins = tmp_path / "pins.txt"
    options = [f"--python-platform={settings.uv_name}", "--python-version=3.12", f"--output-file={pins}"]
    try:
        wheels._resolve("\n".join(requirements), *options, "--no-binary=unet-edge-runtime")
    except WheelError as error:
        if "no index can be reached" in str(error):
            pytest.skip(str(error))
        raise
    packages = pins.read_text(encoding="utf-8")
    for name in ("numpy", "pillow", "click"):
        assert f"{name}==" in packages
