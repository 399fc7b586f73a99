"""Install what lies beside this file: Python alone is needed, no network, no pip.

This file travels in every bundle that ``unet-export bundle`` writes. It keeps to the standard library and to what an
old Python can parse: it is the one that has to say that the Python is too old.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ON_WINDOWS = os.name == "nt"

_DIGITS = 64  # of a SHA-256


def main() -> None:
    options = _options()
    listed = _check_files()
    about = json.loads((HERE / "bundle.json").read_text(encoding="utf-8"))
    _check_listed([about["pip"], *about["models"]], listed)
    _check_device(about)
    try:
        scripts = _install(about, options)
    except OSError as error:
        sys.exit(f"error: {error}: free space, or choose another place with --venv or --target")
    except KeyboardInterrupt:
        sys.exit(130)
    _print_usage(about, scripts, options.target)


def _install(about: dict[str, Any], options: argparse.Namespace) -> Path:
    """Install where the options say, or in the active environment, or in a new one beside this file.

    Returns:
        The folder that holds unet-run now.
    """
    if options.target:
        _pip(about, sys.executable, "--upgrade", "--target", str(options.target))
        return Path(options.target) / "bin"
    if options.venv is None and sys.prefix != sys.base_prefix:
        _pip(about, sys.executable)
        return Path(sys.prefix) / ("Scripts" if ON_WINDOWS else "bin")
    return _install_in_new(options.venv or HERE / "venv", about)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Install unet-run and its engines from this bundle, offline.")
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--venv",
        type=Path,
        metavar="FOLDER",
        help="make this virtual environment (default: the active one, else venv beside install.py)",
    )
    place.add_argument("--target", type=Path, metavar="FOLDER", help="put the packages there, without an environment")
    options = parser.parse_args()
    for name in ("venv", "target"):
        if getattr(options, name):
            setattr(options, name, getattr(options, name).resolve())
    return options


def _check_files() -> dict[str, str]:
    """Check that every file is as it was bundled, and that none is used here which was not.

    It finds damage and what does not belong here. Who can change the bundle can change SHA256SUMS, too.

    Returns:
        name -> SHA-256 of each file of the bundle.
    """
    listed = _read_sums()
    used = ["bundle.json", "install.py", "requirements.txt"]
    for path in sorted((HERE / "wheels").rglob("*")):
        if not path.is_dir():
            used.append(path.relative_to(HERE).as_posix())
    _check_listed(used, listed)
    for name, expected in listed.items():
        path = HERE / name
        if not path.is_file():
            sys.exit(f"error: {name} is missing: unpack the whole bundle again")
        digest = hashlib.sha256()
        with path.open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
        if digest.hexdigest() != expected:
            sys.exit(f"error: {name} is damaged: its SHA-256 is not the one of SHA256SUMS: copy the bundle again")
    return listed


def _read_sums() -> dict[str, str]:
    try:
        lines = (HERE / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        sys.exit("error: SHA256SUMS is missing: unpack the whole bundle again")
    except (OSError, ValueError) as error:
        sys.exit(f"error: SHA256SUMS cannot be read ({error}): unpack the whole bundle again")
    listed = {}
    for line in lines:
        expected, _, name = line.partition("  ")
        if len(expected) != _DIGITS or not name:
            sys.exit(f"error: SHA256SUMS is damaged at {line[:80]!r}: unpack the whole bundle again")
        listed[name] = expected
    return listed


def _check_listed(names: list[str], listed: dict[str, str]) -> None:
    for name in names:
        if name not in listed:
            sys.exit(f"error: {name} is not in SHA256SUMS: unpack the whole bundle again, into an empty folder")


def _check_device(about: dict[str, Any]) -> None:
    """Check that the wheels run here: pip would only say that none of them is supported."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}
    here = platform.system(), machine.get(platform.machine().lower(), platform.machine().lower())
    wanted = about["system"], machine.get(about["machine"].lower(), about["machine"].lower())
    if here != wanted or sys.maxsize <= 2**32:
        bits = 64 if sys.maxsize > 2**32 else 32
        sys.exit(f"error: this is {' '.join(here)} with a {bits}-bit Python, the bundle is for {about['platform']}")
    python = "{}.{}".format(*sys.version_info[:2])
    if python != about["python"] or platform.python_implementation() != "CPython":
        sys.exit(
            f"error: this is {platform.python_implementation()} {python}, the bundle is for CPython {about['python']}: "
            f"start install.py with that one, or bundle again with --python {python}"
        )
    for kind, needed in about["needs"].items():
        found = platform.mac_ver()[0] if kind == "macos" else _glibc()
        if _numbers(found) < _numbers(needed):
            sys.exit(f"error: {kind} {found or 'not found'}, the wheels need {needed} or newer")


def _glibc() -> str:
    """Version of glibc; empty on a system with another C library, such as Alpine's musl."""
    name, version = platform.libc_ver()
    return version if name == "glibc" else ""


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


def _install_in_new(folder: Path, about: dict[str, Any]) -> Path:
    """Make a virtual environment and install into it; one that cannot be finished is removed.

    Returns:
        Its folder of commands.
    """
    existed = folder.exists()
    scripts = folder / ("Scripts" if ON_WINDOWS else "bin")
    try:
        # Without a pip of its own: Debian's python3 has no ensurepip (https://github.com/pypa/packaging.python.org/issues/399),
        # and the bundle brings pip.
        venv.EnvBuilder(symlinks=not ON_WINDOWS).create(str(folder))
        _pip(about, str(scripts / ("python.exe" if ON_WINDOWS else "python")))
    except BaseException:
        if not existed:
            shutil.rmtree(str(folder), ignore_errors=True)
        raise
    return scripts


def _pip(about: dict[str, Any], python: str, *place: str) -> None:
    """Run the bundle's pip, out of its wheel, with ``python``."""
    command = [python, str(HERE / about["pip"] / "pip"), "--isolated", "--disable-pip-version-check"]
    command += ["install", "--quiet", "--root-user-action=ignore", "--no-index", "--find-links", str(HERE / "wheels")]
    command += ["--require-hashes", "--requirement", str(HERE / "requirements.txt")]
    # The device's own configuration of pip must not add another source or another place.
    code = subprocess.call([*command, *place], env=dict(os.environ, PIP_CONFIG_FILE=os.devnull))
    if code:
        sys.exit(f"error: pip failed with exit code {code}, its reason is above")


def _print_usage(about: dict[str, Any], scripts: Path, target: Path | None) -> None:
    command = [str(scripts / "unet-run"), "--model", str(HERE / about["models"][0])]
    line = subprocess.list2cmdline(command) if ON_WINDOWS else " ".join(map(shlex.quote, command))
    if target and ON_WINDOWS:
        line = f'set "PYTHONPATH={target}" & {line}'
    elif target:
        line = f"PYTHONPATH={shlex.quote(str(target))} {line}"
    print(f"installed, with {len(about['models'])} models in {HERE / 'models'}. Try:\n{line} PHOTO.jpg")


if __name__ == "__main__":
    main()
