"""What to install for a feature: pip commands that work as typed."""

from __future__ import annotations

from unet_runtime.core.errors import MissingDependencyError

_DISTRIBUTION = "unet-edge-runtime"


def pip_command(extra: str, distribution: str = _DISTRIBUTION) -> str:
    """The command that installs what an extra of a package brings: ``pip install "onnxruntime<2,>=1.20"``.

    The packages themselves are named, as the installed metadata lists them: the extra could not be installed by its
    name from an index that does not have unet-edge.
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
    return "pip install " + (" ".join(packages) or f'"{distribution}[{extra}]"')


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
