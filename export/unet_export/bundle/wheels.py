"""Wheels for a device that is not this machine: uv chooses the versions, pip fetches the files.

pip's resolver evaluates environment markers for the interpreter it runs on, whatever ``--platform`` says
(https://github.com/pypa/pip/issues/6117): a bundle made on Linux for Windows would lack what click needs there alone.
uv resolves for another platform, but does not download wheels.
"""

from __future__ import annotations

import ast
import importlib.metadata
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from unet_export.errors import ExportError
from unet_runtime.core.errors import OutputError

logger = logging.getLogger(__name__)

_GLIBC_MINOR = 35
"""Newest glibc allowed, 2.x: today's aarch64 wheels of OpenVINO need 2.35, all others 2.28 or older."""

_MACOS = "14.0"
"""Oldest macOS supported: NumPy and ONNX Runtime need it."""

_MANYLINUX_ALIASES = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
"""Names of the tags from before they contained the glibc's minor version."""

_UV_OPTIONS = {
    "index-url": "--index-url",
    "extra-index-url": "--extra-index-url",
    "find-links": "--find-links",
    "trusted-host": "--allow-insecure-host",
    "constraint": "--constraint",
}
"""pip's settings that decide where packages come from, and uv's options for them."""


PlatformName = Literal["linux-x86_64", "linux-aarch64", "windows-x86_64", "macos-arm64"]


@dataclass(frozen=True)
class Platform:
    """A kind of device."""

    system: str
    """Value of ``platform.system()`` there."""
    machine: str
    """Value of ``platform.machine()`` there."""
    uv_name: str
    """Name for uv's ``--python-platform``."""
    tags: tuple[str, ...]
    """Platform tags of wheels that run there; pip prefers the first."""


def _linux(machine: str) -> Platform:
    # Ascending: of two builds the one for the older system is taken, because it runs on more devices.
    names = [*map("manylinux_2_{}".format, range(5, _GLIBC_MINOR + 1)), *_MANYLINUX_ALIASES.values()]
    tags = tuple(f"{name}_{machine}" for name in names)
    return Platform("Linux", machine, f"{machine}-manylinux_2_{_GLIBC_MINOR}", tags)


PLATFORMS: dict[PlatformName, Platform] = {
    "linux-x86_64": _linux("x86_64"),
    "linux-aarch64": _linux("aarch64"),
    "windows-x86_64": Platform("Windows", "AMD64", "x86_64-pc-windows-msvc", ("win_amd64",)),
    # pip accepts the tags of older systems along with this one.
    "macos-arm64": Platform("Darwin", "arm64", "aarch64-apple-darwin", ("macosx_14_0_arm64",)),
}
"""Devices that a bundle can be made for. Linux means glibc: the engines publish no wheels for musl."""


class WheelError(ExportError):
    """A wheel cannot be fetched."""


def pip(*arguments: str) -> str:
    """Run this environment's pip, with the indexes that it is configured to use; returns what it printed.

    Raises WheelError, with the last line that it wrote, or OutputError where the disk is full.
    """
    return _run("pip", "--no-input", "--disable-pip-version-check", *arguments)


def _run(tool: str, *arguments: str, **settings: Any) -> str:
    """Run a Python module as a command, with ``settings`` of ``subprocess.run``. Errors as of ``pip``."""
    command = [sys.executable, "-m", tool, *arguments]
    ended: subprocess.CompletedProcess[str] = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=False, **settings
    )
    if ended.returncode == 0:
        return ended.stdout
    lines = list(filter(None, map(str.strip, ended.stderr.splitlines()))) or [f"exit code {ended.returncode}"]
    # pip's last line says it all, uv explains itself in several.
    reason = lines[-1].removeprefix("ERROR: ") if tool == "pip" else " ".join(lines).removeprefix("error: ")
    if "Errno 28" in ended.stderr or "os error 28" in ended.stderr:
        raise OutputError(f"{tool}: {reason}: free space")
    unreachable = "connection broken" in ended.stderr or "client error (Connect)" in ended.stderr
    hint = "no index can be reached: connect this machine" if unreachable else "see `pip config list` for the indexes"
    raise WheelError(f"{tool}: {reason}: {hint}")


class Wheelhouse:
    """A folder of wheels for one platform, and for one version of CPython, such as ``3.11``."""

    def __init__(self, folder: Path, platform: PlatformName, python: str) -> None:
        self.folder, self.platform, self.python = folder, platform, python

    @property
    def wheels(self) -> dict[str, Path]:
        """Path of each wheel, by its project's canonical name."""
        return {parse_wheel_filename(path.name)[0]: path for path in sorted(self.folder.glob("*.whl"))}

    def fetch_dependencies(self, wheel: Path, extras: Iterable[str]) -> None:
        """Fetch everything that ``wheel``, which lies in the folder, needs with ``extras``.

        The versions installed here are preferred, because this project is tested with them. Where one is not
        installed, or does not suit the platform, the newest in range is taken and a warning logged.

        Raises:
            WheelError: a wheel cannot be fetched, does not run on ``python``, or contradicts another.
            OutputError: the disk is full.
        """
        name = parse_wheel_filename(wheel.name)[0]
        installed = _installed_versions()
        requirement = f"{name}[{','.join(extras)}] @ {wheel.absolute().as_uri()}"
        with tempfile.TemporaryDirectory() as folder:
            pins = Path(folder) / "requirements.txt"
            # Where it can, uv keeps to the versions that the file it is about to write holds already.
            lines = map("{0[0]}=={0[1]}\n".format, installed.items())
            pins.write_text("".join(lines), encoding="utf-8")
            options = [f"--python-platform={PLATFORMS[self.platform].uv_name}", f"--python-version={self.python}"]
            options += [f"--no-emit-package={name}", f"--output-file={pins}"]
            _resolve(requirement, *options)
            found = re.findall(r"^([\w.-]+)==(\S+)", pins.read_text(encoding="utf-8"), re.MULTILINE)
            for project, version in found:
                logger.info("fetching for %s: %s %s", self.platform, project, version)
                here = installed.get(project, version)
                if project not in installed:
                    logger.warning("%s is not installed here: the bundle gets %s, untested", project, version)
                elif here != version:
                    message = "%s %s, installed here, does not suit %s: the bundle gets %s, untested"
                    logger.warning(message, project, here, self.platform, version)
            if found:
                self._download(f"--requirement={pins}")

    def fetch(self, requirement: str) -> Path:
        """Fetch the wheel of ``pip==25.0``, say, without its dependencies; errors as of ``fetch_dependencies``."""
        self._download(requirement)
        return self.wheels[canonicalize_name(requirement.partition("==")[0])]

    def _download(self, *what: str) -> None:
        tags = map("--platform={}".format, PLATFORMS[self.platform].tags)
        abi = f"--abi=cp{self.python.replace('.', '')}"  # pip adds abi3 and none
        target = ["--only-binary=:all:", f"--python-version={self.python}", "--implementation=cp", abi, *tags]
        pip("download", "--quiet", "--no-deps", f"--dest={self.folder}", *target, *what)


def _installed_versions() -> dict[str, str]:
    """Version of every project installed here, by canonical name, without local parts such as ``+cpu``."""
    versions: dict[str, str] = {}
    for found in importlib.metadata.distributions():
        versions.setdefault(canonicalize_name(found.name), Version(found.version).public)
    return versions


def _resolve(requirement: str, *options: str) -> None:
    """Run ``uv pip compile`` on one requirement, with the indexes that pip is configured to use."""
    settings: dict[str, str] = {}
    # Reversed, pip's list is in order of precedence: global, download, :env:.
    for line in reversed(pip("config", "list").splitlines()):
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in ("global", "download", ":env:"):
            settings[name] = ast.literal_eval(value)
    command = ["pip", "compile", "--quiet", "--no-config", "--no-cache", "--no-header", "--no-annotate"]
    command += ["--only-binary=:all:", "--index-strategy=unsafe-best-match"]
    for name, option in _UV_OPTIONS.items():
        for value in settings.get(name, "").split():
            # pip only warns of a folder that is not there.
            if name != "find-links" or "://" in value or Path(value).exists():
                command += [option, value]
    if settings.get("no-index", "0").lower() in ("1", "true", "yes", "on"):
        command.append("--no-index")
    environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": _MACOS, "UV_HTTP_RETRIES": settings.get("retries", "5")}
    if "cert" in settings:
        environment["SSL_CERT_FILE"] = settings["cert"]
    _run("uv", *command, *options, "-", input=requirement, env=environment)


def oldest_system(wheels: Iterable[Path]) -> dict[str, str]:
    """The oldest system that ``wheels`` run on: ``{"glibc": "2.28"}``, ``{"macos": "14.0"}`` or nothing."""
    needed: dict[str, tuple[int, int]] = {}
    for wheel in wheels:
        systems = sorted(filter(None, map(_system, parse_wheel_filename(wheel.name)[3])))
        if systems:  # one of the wheel's tags is enough
            kind, version = systems[0]
            needed[kind] = max(needed.get(kind, version), version)
    return {kind: "{}.{}".format(*version) for kind, version in needed.items()}


def _system(tag: Tag) -> tuple[str, tuple[int, int]] | None:
    """Kind and oldest version of a tag's system: ``("glibc", (2, 28))``; None for one that names none."""
    for minor, alias in _MANYLINUX_ALIASES.items():
        if tag.platform.startswith(f"{alias}_"):
            return "glibc", (2, minor)
    if found := re.match(r"(manylinux|macosx)_(\d+)_(\d+)_", tag.platform):
        kind = "glibc" if found[1] == "manylinux" else "macos"
        return kind, (int(found[2]), int(found[3]))
    return None


def wheel_version(path: Path) -> str:
    """The version in a wheel's file name."""
    return str(parse_wheel_filename(path.name)[1])
