"""ensure_dataset against a server on this machine: whole or not at all."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.live import closed_port
from tests.helpers.trained import unet_train
from unet_training.data import dataset
from unet_training.errors import DatasetError


def _pack(source: Path, folder: str, target: Path) -> str:
    with tarfile.open(target, "w:gz") as archive:
        archive.add(source / folder, arcname=folder)
    return _checksum(target)


def _checksum(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Generated pictures as the two archives, at the address and with the checksums the downloader uses."""
    folder = tmp_path / "served"
    folder.mkdir()
    archives = {
        f"{name}.tar.gz": _pack(pictures, name, folder / f"{name}.tar.gz") for name in ("images", "annotations")
    }
    handler = functools.partial(_Silent, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        monkeypatch.setattr(dataset, "BASE_URL", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setattr(dataset, "ARCHIVES", archives)
        yield folder
        server.shutdown()
        thread.join()


@pytest.fixture
def dead_server(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port of this machine where nobody listens."""
    monkeypatch.setattr(dataset, "BASE_URL", f"http://127.0.0.1:{closed_port()}/")


def _files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_missing_dataset_is_downloaded_and_unpacked(served: Path, pictures: Path, tmp_path: Path) -> None:
    root = tmp_path / "data" / "pets"
    dataset.ensure_dataset(root)
    expected = {name: content for name, content in _files(pictures).items() if "/" in name}
    assert _files(root) == expected
    assert [path.name for path in root.parent.iterdir()] == ["pets"]


def test_a_dataset_that_is_there_needs_no_network(dead_server: None, pictures: Path) -> None:
    dataset.ensure_dataset(pictures)


def test_an_empty_folder_is_filled(served: Path, tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    dataset.ensure_dataset(tmp_path / "pets")
    assert (tmp_path / "pets" / "annotations" / "trainval.txt").is_file()


def test_a_wrong_checksum_is_refused_and_nothing_is_unpacked(served: Path, tmp_path: Path) -> None:
    (served / "annotations.tar.gz").write_bytes(b"something else")
    root = tmp_path / "pets"
    with pytest.raises(DatasetError, match=r"(?s)annotations\.tar\.gz.*hash.*PETS_DIR"):
        dataset.ensure_dataset(root)
    assert not root.exists()


def _member(kind: str, outside: Path) -> tarfile.TarInfo:
    names = {"parent": "../escaped.txt", "deep": "annotations/../../../escaped.txt", "absolute": str(outside)}
    member = tarfile.TarInfo(names.get(kind, "annotations/escaped.txt"))
    member.size = 2 if kind in names else 0
    if kind in ("symbolic", "symbolic inside"):
        member.type, member.linkname = tarfile.SYMTYPE, str(outside) if kind == "symbolic" else "list.txt"
    elif kind == "hard":
        member.type, member.linkname = tarfile.LNKTYPE, "../../escaped.txt"
    elif kind == "pipe":
        member.type = tarfile.FIFOTYPE
    return member


@pytest.mark.parametrize("kind", ["parent", "deep", "absolute", "symbolic", "symbolic inside", "hard", "pipe"])
def test_an_archive_that_leads_elsewhere_is_refused(served: Path, tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "escaped.txt"
    archive = served / "annotations.tar.gz"
    with tarfile.open(archive, "w:gz") as written:
        member = _member(kind, outside)
        written.addfile(member, io.BytesIO(b"x" * member.size))
    dataset.ARCHIVES["annotations.tar.gz"] = _checksum(archive)
    with pytest.raises(DatasetError, match=r"archive's member '.*escaped\.txt' .*not unpacked"):
        dataset.ensure_dataset(tmp_path / "deep" / "pets")
    assert not outside.exists()
    assert not list(tmp_path.rglob("escaped.txt"))
    assert not (tmp_path / "deep" / "pets").exists()


def test_an_archive_that_is_none_is_an_error_of_the_dataset(served: Path, tmp_path: Path) -> None:
    (served / "annotations.tar.gz").write_bytes(b"no archive")
    dataset.ARCHIVES["annotations.tar.gz"] = _checksum(served / "annotations.tar.gz")
    with pytest.raises(DatasetError, match="cannot download Oxford-IIIT Pet"):
        dataset.ensure_dataset(tmp_path / "pets")


def test_after_a_failure_the_next_call_goes_on(served: Path, pictures: Path, tmp_path: Path) -> None:
    good = (served / "annotations.tar.gz").read_bytes()
    (served / "annotations.tar.gz").write_bytes(good[: len(good) // 2])
    with pytest.raises(DatasetError):
        dataset.ensure_dataset(tmp_path / "pets")
    # What a killed unpacking leaves behind: a file that is there, and half of it.
    half = next((tmp_path / ".pets.download" / "unpacked" / "images").iterdir())
    half.write_bytes(half.read_bytes()[:10])
    (served / "annotations.tar.gz").write_bytes(good)
    (served / "images.tar.gz").unlink()  # not asked for again
    dataset.ensure_dataset(tmp_path / "pets")
    name = f"images/{half.name}"
    assert _files(tmp_path / "pets")[name] == _files(pictures)[name]


def test_without_network_the_error_says_what_to_do(
    dead_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the default folder, which alone is downloaded, is below the current one
    ended = unet_train("--output", tmp_path / "output", "--preset", "unet-small")
    assert ended.code == 1
    assert ended.err.startswith("error: cannot download Oxford-IIIT Pet from http://127.0.0.1:")
    assert "--data or the environment variable PETS_DIR" in ended.err
    assert not (tmp_path / "data" / "oxford-iiit-pet").exists()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_something_else_is_neither_used_nor_touched(served: Path, tmp_path: Path, kind: str) -> None:
    root = tmp_path / "mine"
    if kind == "folder":
        root.mkdir()
        (root / "notes.txt").write_text("mine")
    else:
        root.write_text("mine")
    with pytest.raises(DatasetError, match=r"expected images/ and annotations/trimaps/.*(notes\.txt|a file).*PETS_DIR"):
        dataset.ensure_dataset(root)
    assert (root / "notes.txt" if kind == "folder" else root).read_text() == "mine"


def test_the_download_command_downloads(served: Path, tmp_path: Path) -> None:
    ended = unet_train("download", tmp_path / "pets")
    assert (ended.code, ended.out) == (0, f"Oxford-IIIT Pet is in {tmp_path / 'pets'}\n")
    assert (tmp_path / "pets" / "images" / "synthetic_0001.jpg").is_file()
