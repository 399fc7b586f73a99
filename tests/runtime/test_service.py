"""What a service meets: the commands of docs/devices.md, typed as they stand there, and its unit for systemd."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from tests.helpers.paths import REPOSITORY

PAGE = REPOSITORY / "docs" / "devices.md"
UNIT = REPOSITORY / "docs" / "examples" / "unet-serve.service"
TOOLS = ("setsid", "prlimit", "taskset", "setpriv", "unshare", "nohup", "systemd-run")
AS_ROOT = ("setpriv", "unshare")


class Condition(NamedTuple):
    title: str
    command: str
    end: str


def conditions() -> list[Condition]:
    section = PAGE.read_text(encoding="utf-8").partition("## As a service")[2].partition("\n## ")[0]
    found = []
    for title, command, end in re.findall(r"^\| (.+?) \| `(.+)` \| (\d.*?) \|$", section, re.MULTILINE):
        found.append(Condition(title, command.replace(r"\|", "|"), end))
    return found


CONDITIONS = conditions()


def test_the_page_has_them() -> None:
    assert len(CONDITIONS) >= 15


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that everybody may read, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def commands(place: Path) -> Path:
    """A folder with unet-run and unet-serve, as an installation has them."""
    folder = place / "bin"
    folder.mkdir()
    for name in ("run", "serve"):
        script = folder / f"unet-{name}"
        paths = [path for path in sys.path if path]
        script.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path[:] = {paths!r}\n"
            f"from unet_runtime.cli.{name} import main\nmain()\n"
        )
        script.chmod(0o755)
    return folder


def refuses(*words: str | Path) -> bool:
    return subprocess.run(words, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: condition.title)
def test_a_condition(condition: Condition, commands: Path, place: Path, sample_photo: Path) -> None:
    for tool in TOOLS:
        if re.search(rf"\b{tool}\b", condition.command) and shutil.which(tool) is None:
            pytest.skip(f"no {tool} here")
    if any(tool in condition.command for tool in AS_ROOT) and os.geteuid() != 0:
        pytest.skip("needs root")
    if "systemd-run" in condition.command and not Path("/run/systemd/system").is_dir():
        pytest.skip("systemd does not run here: tests of core/cores.py have the files of control groups")
    if "unshare" in condition.command and refuses("unshare", "--net", "true"):
        pytest.skip("namespaces are not allowed here")
    if "setpriv" in condition.command and refuses(
        *shlex.split("setpriv --reuid=65534 --regid=65534 --clear-groups"), commands / "unet-run", "--version"
    ):
        pytest.skip("nobody may not read this Python")
    for name in ("photo.jpg", "caf\u00e9.jpg"):
        shutil.copy(sample_photo, place / name)
    (place / "mask.png").unlink(missing_ok=True)
    environment = {"PATH": f"{commands}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(place)}
    done = subprocess.run(
        ["sh", "-c", condition.command], cwd=place, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == int(condition.end.split(",")[0]), done.stderr
    assert "Traceback" not in done.stderr
    if done.returncode == 0 and "unet-run" in condition.command:
        with Image.open(place / "mask.png") as mask:
            assert mask.size == (451, 300)
    else:
        assert not (place / "mask.png").exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_takes_the_unit(commands: Path, tmp_path: Path) -> None:
    text = UNIT.read_text(encoding="utf-8").replace("/opt/unet-edge/bin", str(commands))
    unit = tmp_path / UNIT.name
    unit.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    unit.write_text(text.replace("Restart=on-failure", "Restart=sometimes"))
    broken = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert "sometimes" in broken.stderr
