"""Folders and files by path, or by an address that fsspec knows (``s3://``, ``gs://``, ``az://``, ``hf://``, ...)."""

from __future__ import annotations

import posixpath
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from unet_runtime.core.errors import MissingDependencyError, OutputError, SourceError
from unet_runtime.core.files import is_stream, remove_leftovers, replacing
from unet_runtime.core.install import missing
from unet_runtime.core.text import one_line

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_HINT = "see --output"
_IN_MEMORY = 8 << 20


def is_address(name: str) -> bool:
    """Whether a name is an address, not a path."""
    return _ADDRESS.match(name) is not None


class Storage(Protocol):
    """A folder of results."""

    name: str
    """Path or address."""

    def folders(self) -> list[str]:
        """Names of the folders in it, sorted; none where it does not exist."""
        ...

    def files(self, folder: str) -> list[str]:
        """Names of the files of a folder in it, sorted; none where it does not exist."""
        ...

    def reading(self, name: str) -> Any:
        """A context with a binary file.

        Raises:
            SourceError: there is none, or it cannot be read.
        """
        ...

    def clean(self, folder: str) -> None:
        """Remove what killed processes left in a folder in it."""
        ...

    def writing(self, name: str, *, durable: bool = True) -> Any:
        """A context with a binary file that appears, whole, when the context ends without an error.

        Args:
            name: of the file.
            durable: see ``files.replacing``.

        Raises:
            OutputError: it cannot be written.
        """
        ...


def storage(name: str) -> Storage:
    """The folder of a path or an address.

    Raises:
        MissingDependencyError: an address needs fsspec, or a package of its own.
        OutputError: fsspec does not know such addresses.
    """
    return _Remote(name) if is_address(name) else _Local(Path(name))


class _Local:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = str(folder)

    def folders(self) -> list[str]:
        return self._names(self._folder, wants_folders=True)

    def files(self, folder: str) -> list[str]:
        return self._names(self._folder / folder, wants_folders=False)

    def _names(self, folder: Path, *, wants_folders: bool) -> list[str]:
        try:
            return sorted(path.name for path in folder.iterdir() if path.is_dir() == wants_folders)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SourceError(f"{folder}: cannot be read ({error.strerror})") from error

    @contextmanager
    def reading(self, name: str) -> Iterator[IO[bytes]]:
        with read_stream(str(self._folder / name), "results of unet-run") as file:
            yield file

    def clean(self, folder: str) -> None:
        remove_leftovers(self._folder / folder)

    @contextmanager
    def writing(self, name: str, *, durable: bool = True) -> Iterator[IO[bytes]]:
        with replacing(self._folder / name, _HINT, durable=durable) as file:
            yield file


class _Remote:
    def __init__(self, address: str) -> None:
        self.name = address.rstrip("/")
        self._system, self._root = _file_system(self.name)

    def folders(self) -> list[str]:
        return self._names(self._root, "directory")

    def files(self, folder: str) -> list[str]:
        return self._names(posixpath.join(self._root, folder), "file")

    def _names(self, folder: str, kind: str) -> list[str]:
        try:
            self._system.invalidate_cache()  # other processes write there, too
            entries = self._system.ls(folder, detail=True)
        except FileNotFoundError:
            return []
        except Exception as error:  # whatever a client raises of its connection
            raise SourceError(f"{self.name}: cannot be read ({one_line(error)})") from error
        found = []
        for entry in entries:
            name = posixpath.basename(entry["name"].rstrip("/"))
            if entry["type"] == kind and entry["name"].rstrip("/") != folder:
                found.append(name)
        return sorted(found)

    @contextmanager
    def reading(self, name: str) -> Iterator[IO[bytes]]:
        with read_stream(posixpath.join(self.name, name), "results of unet-run") as file:
            yield file

    def clean(self, folder: str) -> None:
        """Nothing is left of a file that was not finished."""

    @contextmanager
    def writing(self, name: str, *, durable: bool = True) -> Iterator[IO[bytes]]:
        # Not the store's own file: where the block fails, closing that would keep the half of it.
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
            yield file
            file.seek(0)
            target = posixpath.join(self._root, name)
            try:
                self._system.makedirs(posixpath.dirname(target), exist_ok=True)
                with self._system.open(target, "wb") as remote:
                    while block := file.read(_IN_MEMORY):
                        remote.write(block)
            except Exception as error:
                raise OutputError(f"{self.name}/{name}: cannot be written ({one_line(error)}): {_HINT}") from error


@contextmanager
def read_stream(name: str, expected: str) -> Iterator[IO[bytes]]:
    """The file of a path or an address, to read from its beginning.

    Args:
        name: path or address.
        expected: what it should be, for people.

    Raises:
        SourceError: it cannot be opened.
        MissingDependencyError: see ``storage``.
    """
    try:
        if is_address(name):
            system, path = _file_system(name)
            file = system.open(path, "rb")
        else:
            if is_stream(Path(name)):
                raise SourceError(f"{name}: a pipe or a device, expected {expected}")
            file = Path(name).open("rb")  # noqa: SIM115 - below
    except (SourceError, MissingDependencyError):
        raise
    except FileNotFoundError as error:
        raise SourceError(f"{name}: no such file, expected {expected}") from error
    except Exception as error:  # the system's, or whatever a client raises of its connection
        raise SourceError(f"{name}: cannot be read ({one_line(error)}), expected {expected}") from error
    with file:
        yield file


def read_bytes(address: str, expected: str) -> bytes:
    """The content of the file at an address.

    Raises:
        SourceError: it cannot be read.
    """
    with read_stream(address, expected) as file:
        try:
            content: bytes = file.read()
        except Exception as error:
            raise SourceError(f"{address}: cannot be read ({one_line(error)}), expected {expected}") from error
    return content


def _file_system(address: str) -> tuple[Any, str]:
    """(fsspec's file system, path in it)."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise missing(address, "fsspec", "remote") from error
    try:
        system, path = url_to_fs(address)
    except ImportError as error:  # s3fs, gcsfs, adlfs, ...: fsspec says which
        raise MissingDependencyError(f"{address}: {one_line(error)}") from error
    except Exception as error:
        raise SourceError(f"{address}: no address that can be used ({one_line(error)})") from error
    return system, path
