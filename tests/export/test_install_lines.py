"""Install lines of docs/devices.md: every one names a folder, and its packages can be had for the board."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.helpers.arm import unpack
from tests.helpers.paths import REPOSITORY
from unet_export.bundle import wheels
from unet_export.bundle.wheels import PLATFORMS, PlatformName, WheelError

PAGE = REPOSITORY / "docs" / "devices.md"
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
NAMES = ("unet-edge-runtime", "unet-edge-export", "unet-edge-training")
SLOW = pytest.mark.skipif(not os.environ.get("SLOW_TESTS"), reason="some minutes: set SLOW_TESTS=1")


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
    """(board, line) of what is resolved: each line for each system and processor."""
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


def resolved(board: str, line: str, pins: Path) -> str:
    """What uv resolves a line to for the board's system and processor, wheels alone; or why it cannot."""
    settings = PLATFORMS[platform(board)]
    requirements = []
    for word in shlex.split(line):
        found = re.fullmatch(r"\./runtime(\[\w+\])?", word)
        folder = (REPOSITORY / "runtime").as_uri()
        requirements.append(f"unet-edge-runtime{found[1] or ''} @ {folder}" if found else word)
    options = [f"--python-platform={settings.uv_name}", "--python-version=3.12", f"--output-file={pins}"]
    try:
        wheels._resolve("\n".join(requirements), *options, "--no-binary=unet-edge-runtime")
    except WheelError as error:
        return str(error)
    return pins.read_text(encoding="utf-8")


@SLOW
@pytest.mark.network
def test_what_the_lines_install_can_be_had(tmp_path: Path) -> None:
    """Lines are resolved at the same time, because each waits for the index."""
    lines = different()
    with ThreadPoolExecutor(len(lines)) as pool:
        started = [pool.submit(resolved, *entry, tmp_path / f"{number}.txt") for number, entry in enumerate(lines)]
    for (board, line), future in zip(lines, started, strict=True):
        packages = future.result()
        if "no index can be reached" in packages:
            pytest.skip(packages)
        for name in ("numpy", "pillow", "click"):
            assert f"{name}==" in packages, f"{board}: {line}\n{packages}"


# --- typed, in a system of its own -----------------------------------------------------------------

SYSTEMS = {"bookworm": "Debian 12", "trixie": "Debian 13"}
PACKAGES = ("base-files", "bash", "ca-certificates", "coreutils", "dash", "libc-bin", "libstdc++6", "python3-venv")
TYPED = ("onnx", "tflite", "openvino")
"""Extras that are installed; CUDA's are gigabytes, and resolved above."""


class System:
    """A Debian in a folder, entered by ``chroot`` with this machine's network, indexes, /dev and /proc."""

    def __init__(self, folder: Path, suite: str) -> None:
        self.root = unpack(folder, "amd64", (*PACKAGES, "python3-pip"), suite)
        for name in ("dev", "proc", "tmp", "work"):
            (self.root / name).mkdir(exist_ok=True)
        for name in ("resolv.conf", "hosts", "pip.conf", "ssl/certs/ca-certificates.crt"):
            if (Path("/etc") / name).exists():
                (self.root / "etc" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(Path("/etc") / name, self.root / "etc" / name)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / "runtime", self.root / "work" / "runtime", ignore=ignored)
        shutil.copy(REPOSITORY / "runtime/unet_runtime/samples/chelsea.jpg", self.root / "work" / "photo.jpg")

    def type(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a line of a shell in /work; what is mounted for it goes with its process."""
        mounts = f"mount --rbind /dev {self.root}/dev && mount --rbind /proc {self.root}/proc"
        inside = f"{mounts} && exec chroot {self.root} /bin/bash -c {shlex.quote(f'cd /work && {line}')}"
        kept = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
        for setting in ("index-url", "extra-index-url", "trusted-host"):
            value = subprocess.run(
                [sys.executable, "-m", "pip", "config", "get", f"global.{setting}"], capture_output=True, text=True
            ).stdout
            if value.strip():
                kept[f"PIP_{setting.replace('-', '_').upper()}"] = value.strip()
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", **kept}
        return subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", inside],
            env=environment,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )


@pytest.fixture(scope="module", params=SYSTEMS, ids=SYSTEMS.get)
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> System:
    if os.geteuid() or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("chroot and unshare are root's")
    return System(tmp_path_factory.mktemp("debian") / request.param, request.param)


@SLOW
@pytest.mark.network
def test_pip_is_refused_outside_an_environment(system: System) -> None:
    done = system.type('pip install "./runtime[onnx]"')
    assert done.returncode == 1
    assert "externally-managed-environment" in done.stderr


@SLOW
@pytest.mark.network
@pytest.mark.parametrize("extra", TYPED)
def test_a_line_as_typed_installs_what_runs(extra: str, system: System) -> None:
    line = f'pip install "./runtime[{extra}]"'
    assert line in PAGE.read_text(encoding="utf-8")
    done = system.type(
        f"python3 -m venv /tmp/{extra} && /tmp/{extra}/bin/{line} && "
        f"/tmp/{extra}/bin/unet-run --backend {extra} photo.jpg --overwrite && ls photo.mask.png"
    )
    assert done.returncode == 0, done.stderr
