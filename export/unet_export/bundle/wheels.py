"""Wheels for a device that is not this machine: fetched by pip, the closure of dependencies worked out here.

Why not by pip's own resolver: told of another ``--platform`` it still evaluates environment markers for the machine it
runs on, so a bundle made on Linux for Windows would lack what click needs there alone. Hence pip fetches single wheels
(``--no-deps``), and which ones follows from their metadata, with the device's markers.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from unet_export.errors import ExportError
from unet_runtime.core.errors import OutputError

Say = Callable[[str], object]

_GLIBC_MINOR = 35
"""Newest glibc asked for, 2.x: OpenVINO's aarch64 wheels of today need 2.35, all else 2.28 or older."""

_MANYLINUX_ALIASES = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
"""What tags were called before they named the glibc's minor version."""


@dataclass(frozen=True)
class Platform:
    """A kind of device."""

    tags: tuple[str, ...]
    """Platform tags of wheels that run there; pip prefers the first."""
    markers: dict[str, str]
    """Environment markers (PEP 508) that differ from one platform to another."""


def _linux(machine: str) -> Platform:
    # Ascending, so that of two builds the one for the older system is taken: it runs on more devices.
    minors = range(5, _GLIBC_MINOR + 1)
    tags = [f"manylinux_2_{minor}_{machine}" for minor in minors]
    tags += [f"{alias}_{machine}" for minor, alias in _MANYLINUX_ALIASES.items()]
    return Platform(tuple(tags), _markers("posix", "linux", "Linux", machine))


def _markers(os_name: str, sys_platform: str, system: str, machine: str) -> dict[str, str]:
    return {"os_name": os_name, "sys_platform": sys_platform, "platform_system": system, "platform_machine": machine}


PLATFORMS = {
    "linux-x86_64": _linux("x86_64"),
    "linux-aarch64": _linux("aarch64"),
    "windows-x86_64": Platform(("win_amd64",), _markers("nt", "win32", "Windows", "AMD64")),
    # NumPy and ONNX Runtime ask for 14; pip accepts tags of older systems with it.
    "macos-arm64": Platform(("macosx_14_0_arm64",), _markers("posix", "darwin", "Darwin", "arm64")),
}
"""Devices that a bundle can be made for. Linux means glibc: the engines publish no wheels for musl."""


class PipError(ExportError):
    """pip failed; ``unreachable`` says whether for want of a connection."""

    def __init__(self, message: str, *, unreachable: bool) -> None:
        super().__init__(message)
        self.unreachable = unreachable


def pip(*arguments: str) -> None:
    """Run this environment's pip, with whatever indexes it is configured to use.

    Raises:
        PipError: with the last line that pip wrote.
        OutputError: the disk is full.
    """
    command = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", *arguments]
    ended = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if ended.returncode == 0:
        return
    lines = [line.strip() for line in ended.stderr.splitlines() if line.strip()] or [f"exit {ended.returncode}"]
    if "[Errno 28]" in ended.stderr:
        raise OutputError(f"pip {arguments[0]}: {lines[-1]}: free space")
    unreachable = "connection broken" in ended.stderr
    hint = "no index can be reached: connect this machine" if unreachable else "see `pip config list` for its indexes"
    raise PipError(f"pip {arguments[0]}: {lines[-1].removeprefix('ERROR: ')}: {hint}", unreachable=unreachable)


class Wheelhouse:
    """A folder of wheels for one platform that holds with each wheel all that it needs.

    Args:
        folder: gets the wheels; exists.
        platform: of ``PLATFORMS``.
        python: CPython's version, such as ``3.11``.
        say: receives one line of progress at a time.
    """

    def __init__(self, folder: Path, platform: str, python: str, say: Say) -> None:
        self.folder, self.platform, self.python = folder, platform, python
        self._say = say
        self._wheels: dict[str, Path] = {}
        self._ranges: dict[str, SpecifierSet] = {}

    @property
    def wheels(self) -> dict[str, Path]:
        """Path of each wheel, by its project's canonical name."""
        return dict(sorted(self._wheels.items()))

    def add(self, wheel: Path, extras: Iterable[str]) -> None:
        """Take ``wheel``, which lies in the folder, and fetch all that it needs with ``extras``.

        Versions are those installed here, which are what this project is tested with; one that is not installed, or has
        no wheel for the platform, is the newest in range, and said.

        Raises:
            ExportError: a wheel cannot be fetched, does not run on ``python``, or contradicts another.
            OutputError: the disk is full.
        """
        self._take(wheel)
        todo = [Requirement(f"{_name(wheel)}[{','.join(extras)}]")]
        done: set[tuple[str, str]] = set()
        while todo:
            self._fetch(todo)
            pairs = {(canonicalize_name(need.name), extra) for need in todo for extra in ("", *need.extras)} - done
            todo = [need for pair in sorted(pairs) for need in self._needs(*pair)]
            done |= pairs
        self._check()

    def fetch(self, name: str) -> Path:
        """Fetch one wheel, without what it needs; errors as of ``add``.

        Returns:
            Its path.
        """
        self._fetch([Requirement(name)])
        return self._wheels[canonicalize_name(name)]

    def _take(self, path: Path) -> None:
        self._wheels[_name(path)] = path

    def _needs(self, name: str, extra: str) -> list[Requirement]:
        """What a wheel of the folder asks for: with no extra, or because of ``extra`` alone."""
        markers = {
            **PLATFORMS[self.platform].markers,
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "extra": extra,
        }
        needs = [Requirement(line) for line in _metadata(self._wheels[name]).requires or ()]
        return [need for need in needs if need.marker is None or need.marker.evaluate(markers)]

    def _fetch(self, needs: Iterable[Requirement]) -> None:
        """Those that are not there yet: all at once, one by one where a version has no wheel for the platform."""
        missing: dict[str, str] = {}
        for need in needs:
            name = str(canonicalize_name(need.name))
            self._ranges[name] = self._ranges.get(name, SpecifierSet()) & need.specifier
            if name not in self._wheels:
                missing[name] = self._pin(name)
        if not missing:
            return
        self._say(f"fetching for {self.platform}: {', '.join(missing.values())}")
        try:
            self._download(missing.values())
        except PipError as error:
            if error.unreachable:
                raise
            for name, pinned in missing.items():
                self._download_alone(name, pinned)
        for path in self.folder.glob("*.whl"):
            self._take(path)

    def _pin(self, name: str) -> str:
        """``numpy==2.4.6``, as installed here; ``numpy<3,>=1.26`` where that is not in range."""
        allowed = self._ranges[name]
        try:
            installed = Version(importlib.metadata.version(name)).public
        except importlib.metadata.PackageNotFoundError:
            self._say(f"{name} is not installed here: taking the newest in range, untested: {name}{allowed}")
            return f"{name}{allowed}"
        if allowed.contains(installed, prereleases=True):
            return f"{name}=={installed}"
        self._say(f"{name} {installed}, installed here, is out of range: taking the newest in it: {name}{allowed}")
        return f"{name}{allowed}"

    def _download_alone(self, name: str, pinned: str) -> None:
        in_range = f"{name}{self._ranges[name]}"
        try:
            self._download([pinned])
        except PipError as error:
            if error.unreachable or pinned == in_range:
                raise
            self._say(f"{pinned}, installed here, has no wheel for {self.platform}: taking the newest of {in_range}")
            self._download([in_range])

    def _download(self, requirements: Iterable[str]) -> None:
        tags = [f"--platform={tag}" for tag in PLATFORMS[self.platform].tags]
        abi = f"--abi=cp{self.python.replace('.', '')}"  # pip adds abi3 and none
        target = ["--only-binary=:all:", f"--python-version={self.python}", "--implementation=cp", abi, *tags]
        pip("download", "--quiet", "--no-deps", f"--dest={self.folder}", *target, *requirements)

    def _check(self) -> None:
        """No resolver chose the versions together: so look whether they fit."""
        for name, path in self.wheels.items():
            version, python = _metadata(path).version, _metadata(path).metadata["Requires-Python"]
            if not self._ranges.get(name, SpecifierSet()).contains(version, prereleases=True):
                raise ExportError(
                    f"{path.name}: other wheels of the bundle need {name}{self._ranges[name]}: install a version here "
                    "that suits all of them, it is taken first"
                )
            if python and not SpecifierSet(python).contains(f"{self.python}.0"):
                raise ExportError(f"{path.name} needs Python {python}, the bundle is for {self.python}")


def oldest_system(wheels: Iterable[Path]) -> dict[str, str]:
    """What the wheels ask of the device's system: ``{"glibc": "2.28"}``, ``{"macos": "14.0"}`` or nothing."""
    newest: dict[str, tuple[int, int]] = {}
    for wheel in wheels:
        systems = [found for tag in parse_wheel_filename(wheel.name)[3] if (found := _system(tag.platform))]
        for kind, version in sorted(systems)[:1]:  # of a wheel's several tags the oldest system will do
            newest[kind] = max(newest.get(kind, (0, 0)), version)
    return {kind: ".".join(map(str, version)) for kind, version in newest.items()}


def _system(tag: str) -> tuple[str, tuple[int, int]] | None:
    for minor, alias in _MANYLINUX_ALIASES.items():
        if tag.startswith(f"{alias}_"):
            return "glibc", (2, minor)
    if found := re.match(r"(manylinux|macosx)_(\d+)_(\d+)_", tag):
        return {"manylinux": "glibc", "macosx": "macos"}[found[1]], (int(found[2]), int(found[3]))
    return None


def wheel_version(path: Path) -> str:
    """The version that a wheel's metadata states."""
    return _metadata(path).version


def _name(path: Path) -> str:
    return canonicalize_name(parse_wheel_filename(path.name)[0])


def _metadata(wheel: Path) -> importlib.metadata.Distribution:
    return next(iter(importlib.metadata.distributions(path=[str(wheel)])))
