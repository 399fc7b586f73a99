"""onnxruntime-web, the engine of a browser: fetched once by npm, proven by its digest, kept for later exports."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from unet_export.errors import ExportError
from unet_runtime.core.errors import MissingDependencyError
from unet_runtime.core.files import write_bytes
from unet_runtime.core.text import one_line

logger = logging.getLogger(__name__)

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
SCRIPT, BINARY = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
"""Its files, the smallest that run on a processor: 73 kB and 14 MB."""
GPU_SCRIPT, GPU_BINARY = "ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"
"""Those for WebGPU, in browsers of every maker: 118 kB and 27 MB."""

_ARCHIVE = f"{PACKAGE}-{VERSION}.tgz"
_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""SHA-512 of the archive in base64, as npm writes it into lock files."""

_SECONDS = 600


def web_engine() -> dict[str, bytes]:
    """Content of the four files, by name.

    From the user's cache, or from the registry that npm is configured to use here.

    Raises:
        MissingDependencyError: not in the cache, and there is no npm.
        ExportError: npm cannot fetch it, or the archive has another digest.
        OutputError: the cache cannot be written.
    """
    place = cache_folder() / _ARCHIVE
    if not place.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(place, _fetched(place.parent))
    archive = place.read_bytes()
    if not _is_genuine(archive):
        raise ExportError(f"{place}: damaged, or another archive than {PACKAGE} {VERSION}: remove it, and export again")
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        return {name: _content(members, name) for name in (SCRIPT, BINARY, GPU_SCRIPT, GPU_BINARY)}


def cache_folder() -> Path:
    """Where the archive is kept: ``$XDG_CACHE_HOME/unet-edge``, by default in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unet-edge"


def _fetched(place: Path) -> bytes:
    npm = shutil.which("npm")
    advice = f"copy {_ARCHIVE}, from a machine where `npm pack {PACKAGE}@{VERSION}` works, to {place}"
    if npm is None:
        raise MissingDependencyError(
            f"the format web needs {PACKAGE} {VERSION}, which npm fetches, and npm is not installed: install it "
            f"(apt install npm), or {advice}"
        )
    logger.info("fetching %s %s with npm, once", PACKAGE, VERSION)
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--ignore-scripts", "--silent", f"{PACKAGE}@{VERSION}"]
        try:
            ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False)
            reason = one_line(ended.stderr) or f"exit code {ended.returncode}"
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = one_line(str(error))
        try:
            archive = (Path(folder) / _ARCHIVE).read_bytes()
        except FileNotFoundError:
            raise ExportError(f"npm cannot fetch {PACKAGE} {VERSION} ({reason}): connect it, or {advice}") from None
    if not _is_genuine(archive):
        raise ExportError(f"npm gives another {PACKAGE} {VERSION} than the one that is pinned: do not use it; {advice}")
    return archive


def _is_genuine(archive: bytes) -> bool:
    return base64.b64encode(hashlib.sha512(archive).digest()).decode() == _SHA512


def _content(members: tarfile.TarFile, name: str) -> bytes:
    file = members.extractfile(f"package/dist/{name}")
    assert file is not None, name
    return file.read()
