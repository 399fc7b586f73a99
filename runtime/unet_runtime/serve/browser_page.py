"""The page that runs a served model in the browser: a folder of ``unet-export --formats web`` beside the model's file.

Only files that its SHA256SUMS lists are ever sent, and only of a folder that is whole when the service begins.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import threading
import zipfile
from pathlib import Path

from starlette.responses import FileResponse, Response

from unet_runtime.core.spec import ModelSpec
from unet_runtime.serve.refusals import NOT_FOUND, RefusalError

logger = logging.getLogger(__name__)

_SUMS, _MODELS, _FIRST = "SHA256SUMS", "models.json", "index.html"
_KINDS = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".txt": "text/plain",
}
_BINARY = "application/octet-stream"
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'; "
        "worker-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; connect-src 'self' data: blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
"""The page has scripts in files, and compiles WebAssembly; it loads nothing from elsewhere either."""


class BrowserPage:
    """A folder that a browser can use, and take along.

    Args:
        folder: whole, see ``find_page``.
        names: of its files.
    """

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self._folder = folder
        self._names = names
        self._lock = threading.Lock()
        self._packed = b""

    def answer(self, name: str) -> Response:
        """A file; without a name the page itself.

        Raises:
            RefusalError: the folder has no such file.
        """
        name = name or _FIRST
        path = self._folder / name
        if name not in self._names or not path.is_file():
            raise RefusalError(NOT_FOUND, f"no file {name[:100]!r} in the page of this model")
        return FileResponse(path, headers=_HEADERS, media_type=_KINDS.get(path.suffix, _BINARY))

    def archive(self) -> Response:
        """The folder as a ZIP, for any other server; may take a second, the first time."""
        with self._lock:  # made once: every download sends the same bytes
            self._packed = self._packed or self._pack()
        disposition = f'attachment; filename="{self._folder.name}.zip"'
        return Response(self._packed, media_type="application/zip", headers={"Content-Disposition": disposition})

    def _pack(self) -> bytes:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:  # not compressed: its large files are
            for name in self._names:
                archive.write(self._folder / name, f"{self._folder.stem}/{name}")
        return content.getvalue()


def find_page(model: Path | None, spec: ModelSpec) -> BrowserPage | None:
    """The page with the same weights beside a model's file; None where there is none, or it is damaged."""
    weights = spec.provenance.weights_sha256
    if model is None or not weights:
        return None
    for folder in sorted(model.parent.glob("*.web")):
        try:
            if weights not in _weights(folder):
                continue
            names = _checked(folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s: not offered as a page for browsers: %s", folder, error)
            continue
        return BrowserPage(folder, names)
    return None


def _weights(folder: Path) -> set[str]:
    models = json.loads((folder / _MODELS).read_text(encoding="utf-8"))["models"]
    return {entry["spec"]["provenance"]["weights_sha256"] for entry in models}


def _checked(folder: Path) -> tuple[str, ...]:
    """Names of the files, whose digests are right. Raises ValueError, OSError."""
    names = [_SUMS]
    for line in (folder / _SUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if Path(name).name != name or hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise ValueError(f"{name} is damaged: export it again")
        names.append(name)
    if _FIRST not in names:
        raise ValueError(f"{_FIRST} is missing: export it again")
    return tuple(names)
