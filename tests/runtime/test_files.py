"""Atomic writing: whole or not at all, whoever else writes in the same folder."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from unet_runtime.core.errors import OutputError
from unet_runtime.core.files import (
    is_stream,
    publish,
    remove_leftovers,
    replacing,
    temporary_sibling,
    write_bytes,
    write_text,
)


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


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    link = tmp_path / "link"
    link.symlink_to(pipe)
    for path in (pipe, link):
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        write_bytes(path, b"all")
        assert os.read(reader, 10) == b"all"
        os.close(reader)
        assert path.is_fifo()
    temporary = temporary_sibling(pipe)
    temporary.write_bytes(b"x")
    with pytest.raises(OutputError, match=r"is a device, a pipe or an open file"):
        publish(temporary, pipe)
    assert pipe.is_fifo()
    assert not temporary.exists()


@pytest.mark.skipif(not hasattr(os, "mknod") or os.geteuid() != 0, reason="only root makes device nodes")
def test_a_device_stays_a_device(tmp_path: Path) -> None:
    """On a node of our own: a mistake here must not cost the machine's /dev/null."""
    node = tmp_path / "null"
    try:
        os.mknod(node, 0o666 | 0o020000, os.makedev(1, 3))
        write_bytes(node, b"x")
    except (PermissionError, OutputError):  # a container without devices
        pytest.skip("no device nodes here")
    assert node.is_char_device()


def test_a_full_device_is_an_error() -> None:
    if Path("/dev/full").is_char_device():
        with pytest.raises(OutputError, match="No space left"):
            write_bytes(Path("/dev/full"), b"x")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names of open files are Linux's")
def test_names_of_open_files_are_written_into(tmp_path: Path) -> None:
    """``/dev/stdout`` is a link to the file that a shell redirects to; as root, the link itself could be replaced."""
    script = (
        "import sys; from pathlib import Path; from unet_runtime.core.files import write_bytes;"
        "write_bytes(Path(sys.argv[1]), b'written')"
    )
    for index, name in enumerate(("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")):
        target = tmp_path / f"{index}.txt"
        with target.open("wb") as file:
            subprocess.run([sys.executable, "-c", script, name], stdout=file, check=True, timeout=180)
        assert target.read_bytes() == b"written"
        assert Path(name).is_symlink()


def test_links_and_files_are_no_streams(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "broken").symlink_to("gone")
    for name in ("file", "link", "loop", "broken", "absent", ".", "nul\0"):
        assert not is_stream(tmp_path / name)


def test_what_a_user_names_like_a_temporary_file_is_not_touched(tmp_path: Path) -> None:
    kept = ["new.a.txt", "a.txt.new", "a.txt.part", ".a.txt.swp", ".unet-edge.0123456789abcdef.part", "a.txt~"]
    for name in kept:
        (tmp_path / name).write_text(name)
    write_text(tmp_path / "a.txt", "x")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        **{name: name for name in kept},
        "a.txt": "x",
    }


def test_what_killed_processes_left_goes_after_a_day_and_nothing_else(tmp_path: Path) -> None:
    old = time.time() - 25 * 60 * 60
    left = [".unet-edge.0123456789abcdef.part", ".unet-edge.0123456789abcdef.part.mp4"]
    kept = [".unet-edge.notes.part", ".unet-edge.0123456789abcdef", "a.part", "a.txt"]
    for name in (*left, *kept):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (old, old))
    in_work = tmp_path / ".unet-edge.aaaaaaaaaaaaaaaa.part"
    in_work.write_text("of another process")
    (tmp_path / ".unet-edge.bbbbbbbbbbbbbbbb.part").mkdir()
    os.utime(tmp_path / ".unet-edge.bbbbbbbbbbbbbbbb.part", (old, old))
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "absent")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {*kept, in_work.name, ".unet-edge.bbbbbbbbbbbbbbbb.part"}
