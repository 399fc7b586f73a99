"""The command unet-run in a process of its own, and what it leaves in a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

UNET_RUN = str(Path(sys.executable).with_name("unet-run"))


def unet_run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    command = [UNET_RUN, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def content(folder: Path) -> dict[str, bytes]:
    """Path below the folder -> content of each file."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
