"""Atomic writing: whole or not at all, whoever else writes in the same folder."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from unet_runtime.core.errors import OutputError
from unet_runtime.core.files import publish, replacing, temporary_sibling, write_text


def test_a_file_takes_its_place_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_block_that_fails_leaves_all_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")

    def write_half() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_text(path, "x")
    assert path.read_text() == "x"


def test_two_writers_with_one_process_id_never_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    path = tmp_path / "a.bin"

    def write(letter: bytes) -> None:
        for _ in range(50):
            with replacing(path, durable=False) as file:
                file.write(letter * 1000)
                file.write(letter * 1000)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = path.read_bytes()
    assert len(content) == 2000
    assert len(set(content)) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_a_foreign_writer_publishes_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    temporary = temporary_sibling(path, ".png")
    temporary.write_bytes(b"picture")
    publish(temporary, path)
    assert path.read_bytes() == b"picture"
    assert not temporary.exists()


def test_an_error_names_the_target_and_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match=r"a\.txt: cannot be written .*: see --output-dir"):
        write_text(tmp_path / "file" / "a.txt", "x", "see --output-dir")
