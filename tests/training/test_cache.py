"""Prepared photos: found again, never out of date, whole whatever happens to who makes them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import TINY, unet_train
from tests.training.test_train import _disk_full_after
from unet_runtime.core.datasets.oxford_pets import LabelledPhoto, read_split
from unet_runtime.core.spec import InputSpec
from unet_training.data import cache as caching
from unet_training.data import pairs
from unet_training.data.cache import PhotoCache, key
from unet_training.data.dataset import load
from unet_training.data.pairs import Labelled

SPEC = InputSpec(32, 48)


@pytest.fixture
def data(pictures: Path, tmp_path: Path) -> Path:
    """A copy whose last photo is broken."""
    root = Path(shutil.copytree(pictures, tmp_path / "data"))
    (root / "images" / "synthetic_0024.jpg").write_text("no picture")
    return root


@pytest.fixture
def photos(data: Path) -> list[LabelledPhoto]:
    return read_split(data, "official", "trainval")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, said: list[str]) -> PhotoCache:
    return PhotoCache(tmp_path / "kept" / "here", said.append)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pairs that were read, in any order."""
    names: list[str] = []
    original = pairs.open_pair

    def counted(item: LabelledPhoto) -> object:
        names.append(item.name)
        return original(item)

    monkeypatch.setattr(pairs, "open_pair", counted)
    return names


def _same(one: Labelled, other: Labelled) -> None:
    assert (one.names, one.problems) == (other.names, other.problems)
    np.testing.assert_array_equal(one.photos, other.photos)
    np.testing.assert_array_equal(one.masks, other.masks)


def _entries(cache: PhotoCache) -> list[Path]:
    return sorted(cache.folder.iterdir())


def test_the_second_time_nothing_is_decoded(
    photos: list[LabelledPhoto], cache: PhotoCache, opened: list[str], said: list[str]
) -> None:
    first = load(photos, SPEC, cache)
    assert len(opened) == 24
    second = load(photos, SPEC, cache)
    assert len(opened) == 24
    assert isinstance(second.photos, np.memmap)  # on the disk, not in memory
    assert (len(second), len(second.problems)) == (23, 1)
    whole = load(photos, SPEC)
    _same(first, whole)
    _same(second, whole)
    assert said == [f"23 prepared photos are kept in {cache.folder}, which may be deleted at any time"]


def test_batches_are_taken_as_from_memory(photos: list[LabelledPhoto], cache: PhotoCache) -> None:
    chosen = np.array([5, 1, 1, 20])
    batch = load(photos, SPEC, cache).photos[chosen]
    assert type(batch) is np.ndarray
    batch[:] = 0  # the batch's own bytes
    np.testing.assert_array_equal(load(photos, SPEC, cache).photos[chosen], load(photos, SPEC).photos[chosen])


def _touch(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


@pytest.mark.parametrize(
    "change",
    [
        lambda photos: _touch(photos[3].photo),
        lambda photos: _touch(photos[3].trimap),
        lambda photos: photos[3].photo.write_bytes(photos[4].photo.read_bytes()),
        lambda photos: photos[3].trimap.unlink(),
        lambda photos: photos.pop(),
        lambda photos: photos.reverse(),
    ],
)
def test_other_files_have_another_key(
    photos: list[LabelledPhoto], change: Callable[[list[LabelledPhoto]], object]
) -> None:
    before = key(photos, SPEC)
    assert key(photos, SPEC) == before
    change(photos)
    assert key(photos, SPEC) != before


def test_other_settings_have_another_key(photos: list[LabelledPhoto], monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [SPEC, InputSpec(48, 32), InputSpec(64, 64), InputSpec(32, 48, fit="letterbox")]
    keys = {key(photos, spec) for spec in specs}
    monkeypatch.setattr(caching, "FORMAT", caching.FORMAT + 1)
    keys.add(key(photos, SPEC))
    monkeypatch.setattr(caching.PIL, "__version__", "99")
    keys.add(key(photos, SPEC))
    assert len(keys) == len(specs) + 2


def test_a_changed_photo_is_seen(photos: list[LabelledPhoto], cache: PhotoCache) -> None:
    load(photos, SPEC, cache)
    photos[3].photo.write_bytes(b"no picture any more")
    _same(load(photos, SPEC, cache), load(photos, SPEC))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _other_shape(path: Path) -> None:
    """As many bytes, said to lie otherwise."""
    path.write_bytes(path.read_bytes().replace(b"(23, 32, 48", b"(23, 48, 32"))


def _other_name(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"synthetic_0001", b"synthetic_9999"))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("photos.npy", _cut),
        ("masks.npy", _cut),
        ("index.json", _cut),
        ("index.json.sha256", _cut),
        ("photos.npy", Path.unlink),
        ("index.json", Path.unlink),
        ("photos.npy", lambda path: path.write_bytes(b"\0" * path.stat().st_size)),
        ("masks.npy", _other_shape),
        ("index.json", _other_name),
    ],
)
def test_a_damaged_entry_is_made_anew(
    photos: list[LabelledPhoto], cache: PhotoCache, opened: list[str], name: str, damage: Callable[[Path], object]
) -> None:
    load(photos, SPEC, cache)
    (entry,) = _entries(cache)
    before = (entry / name).read_bytes()
    damage(entry / name)
    opened.clear()
    _same(load(photos, SPEC, cache), load(photos, SPEC))
    assert len(opened) == 48  # both
    assert _entries(cache) == [entry]
    assert (entry / name).read_bytes() == before


def test_on_a_full_disk_training_goes_on_in_memory(
    photos: list[LabelledPhoto], cache: PhotoCache, opened: list[str], said: list[str]
) -> None:
    with _disk_full_after(5000):
        data = load(photos, SPEC, cache)
    assert len(opened) == 24  # once
    assert _entries(cache) == []
    (warning,) = said
    assert warning.startswith(f"warning: {cache.folder}: prepared photos cannot be kept (")
    assert "--no-cache" in warning
    _same(data, load(photos, SPEC))


def test_a_folder_that_cannot_be_is_a_warning(photos: list[LabelledPhoto], tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "file").touch()
    assert len(load(photos, SPEC, PhotoCache(tmp_path / "file" / "cache", said.append))) == 23
    assert "(Not a directory)" in said[0]


LOAD = """
import sys, time
from pathlib import Path
from unet_runtime.core.datasets.oxford_pets import read_split
from unet_runtime.core.spec import InputSpec
from unet_training import cache
if sys.argv[3] == "hang":  # once the arrays are written, before they have their name
    write = cache._write
    def hang(data, folder):
        write(data, folder)
        print("written", flush=True)
        time.sleep(600)
    cache._write = hang
if sys.argv[3] == "race":  # until the other one has written too
    write = cache._write
    def wait(data, folder):
        write(data, folder)
        print("written", flush=True)
        sys.stdin.readline()
    cache._write = wait
data = cache.PhotoCache(Path(sys.argv[2]), print).load(
    read_split(sys.argv[1], "official", "trainval"), InputSpec(32, 48))
print(len(data), int(data.photos.sum()), int(data.masks.sum()), type(data.photos).__name__)
"""


def _process(data: Path, folder: Path, mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", LOAD, str(data), str(folder), mode]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _until_written(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"


def test_two_processes_at_once_make_one_good_entry(
    data: Path, photos: list[LabelledPhoto], cache: PhotoCache, opened: list[str]
) -> None:
    with _process(data, cache.folder, "race") as one, _process(data, cache.folder, "race") as other:
        for process in (one, other):
            _until_written(process)
        outs = [process.communicate("go\n", timeout=60)[0] for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0)
    whole = load(photos, SPEC)
    expected = f"23 {whole.photos.sum()} {whole.masks.sum()} memmap"
    assert [out.splitlines()[-1] for out in outs] == [expected] * 2
    assert [entry.name for entry in _entries(cache)] == [key(photos, SPEC)]
    opened.clear()
    _same(load(photos, SPEC, cache), whole)
    assert opened == []


def test_an_entry_that_comes_at_the_last_moment_is_used(
    photos: list[LabelledPhoto], cache: PhotoCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last look and the rename, where only the file system can tell."""
    other = PhotoCache(tmp_path / "other", lambda line: None)
    load(photos, SPEC, other)
    monkeypatch.setattr(caching, "_move_away", lambda entry: shutil.copytree(other.folder / entry.name, entry))
    _same(load(photos, SPEC, cache), load(photos, SPEC))
    assert [entry.name for entry in _entries(cache)] == [key(photos, SPEC)]


def test_a_kill_in_the_middle_leaves_nothing_that_is_taken_for_photos(
    data: Path, photos: list[LabelledPhoto], cache: PhotoCache
) -> None:
    with _process(data, cache.folder, "hang") as process:
        _until_written(process)
        _same(load(photos, SPEC, cache), load(photos, SPEC))  # beside a living one
        assert len(_entries(cache)) == 2
        process.send_signal(signal.SIGKILL)
    shutil.rmtree(cache.folder / key(photos, SPEC))
    assert len(_entries(cache)) == 1
    _same(load(photos, SPEC, cache), load(photos, SPEC))
    assert [entry.name for entry in _entries(cache)] == [key(photos, SPEC)]


@pytest.mark.parametrize(
    ("name", "age", "kept"),
    [
        ("building-{pid}-{machine}-{unique}", 0, True),
        ("building-{pid}-{machine}-{unique}", 25, False),
        ("building-{gone}-{machine}-{unique}", 0, False),
        ("building-{gone}-{another}-{unique}", 0, True),  # its process runs elsewhere
        ("building-{gone}-{another}-{unique}", 25, False),
        ("building-1-my-house", 25, True),  # a user's own
    ],
)
def test_leftovers_are_removed_when_nobody_builds_them(
    photos: list[LabelledPhoto], cache: PhotoCache, name: str, age: int, kept: bool
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    folder = cache.folder / name.format(
        pid=os.getpid(), gone=ended.pid, machine=caching._machine(), another="0" * 8, unique="0" * 32
    )
    folder.mkdir(parents=True)
    (folder / "photos.npy").touch()
    changed = time.time() - age * 3600
    os.utime(folder, (changed, changed))
    load(photos, SPEC, cache)
    assert folder.exists() is kept


@pytest.mark.usefixtures("small_network")
@pytest.mark.parametrize(
    ("options", "folder"), [((), "output/cache"), (("--cache", "kept"), "kept"), (("--no-cache",), None)]
)
def test_the_command_keeps_photos_where_it_is_told(
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    opened: list[str],
    options: tuple[str, ...],
    folder: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("--data", pictures, "--output", "output", "--preset", "demo", "--epochs", 1, *TINY, *options)
    for _ in range(2):
        assert unet_train(*arguments).code == 0
    found = [
        str(path.relative_to(tmp_path)) for path in (tmp_path / "kept", tmp_path / "output" / "cache") if path.exists()
    ]
    assert found == ([] if folder is None else [folder])
    assert len(opened) == (64 if folder is None else 32)
