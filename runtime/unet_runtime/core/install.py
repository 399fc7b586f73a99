"""What to install for a feature: pip commands that work as typed."""

from __future__ import annotations

from pathlib import Path

from unet_runtime.core.errors import MissingDependencyError

_DISTRIBUTION = "unet-edge-runtime"


def pip_command(extra: str, distribution: str = _DISTRIBUTION) -> str:
    """The command that installs what an extra of a package brings: ``pip install "onnxruntime<2,>=1.20"``.

    The packages themselves are named, as the installed metadata lists them: unet-edge is on no index, and a package of
    its name that somebody puts there is not this one. Run from its source folder, that folder is named.
    """
    from importlib import metadata  # 20 ms that only an error message needs

    try:
        listed = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:  # run from its source folder
        listed = []
    packages: list[str] = []
    for requirement in listed:
        package, _, marker = requirement.partition(";")
        if f'extra == "{extra}"' in marker.replace("'", '"'):
            packages.append(f'"{package.strip()}"')
    return "pip install " + (" ".join(packages) or f'"{_source(distribution)}[{extra}]"')


def _source(distribution: str) -> str:
    """The folder that a package which is not installed is run from."""
    root = Path(__file__).parents[3]
    return str(root / distribution.removeprefix("unet-edge-"))


def missing(purpose: str, package: str, extra: str, distribution: str = _DISTRIBUTION) -> MissingDependencyError:
    """The error to raise where a package is not installed.

    Args:
        purpose: what needs it, as the subject of the message: ``a camera``.
        package: its name for people: ``OpenCV``.
        extra: the extra of ``distribution`` that brings it.
        distribution: the package of unet-edge that needs it.
    """
    command = pip_command(extra, distribution)
    return MissingDependencyError(f"{purpose} needs {package}, which is not installed: {command}")
