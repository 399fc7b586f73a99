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

from tests.helpers.full_disk import disk_full_after
from tests.helpers.tiny import SOFTMAX_FILE
from tests.helpers.trained import TINY, unet_train
from unet_runtime.core.datasets import Sample, open_dataset, read_split
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
def photos(data: Path) -> list[Sample]:
    return read_split(open_dataset(data), "official", "trainval")


@pytest.fixture
def cache(tmp_path: Path) -> PhotoCache:
    return PhotoCache(tmp_path / "kept" / "here")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pairs that were read, in any order."""
    names: list[str] = []
    original = pairs.open_pair

    def counted(item: Sample) -> object:
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
    photos: list[Sample], cache: PhotoCache, opened: list[str], logged: list[str]
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
    assert logged == [f"23 prepared photos are kept in {cache.folder}, which may be deleted at any time"]


def test_batches_are_taken_as_from_memory(photos: list[Sample], cache: PhotoCache) -> None:
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
        lambda photos: _touch(photos[3].labels.path),
        lambda photos: photos[3].photo.write_bytes(photos[4].photo.read_bytes()),
        lambda photos: photos[3].labels.path.unlink(),
        lambda photos: photos.pop(),
        lambda photos: photos.reverse(),
    ],
)
def test_other_files_have_another_key(photos: list[Sample], change: Callable[[list[Sample]], object]) -> None:
    before = key(photos, SPEC)
    assert key(photos, SPEC) == before
    change(photos)
    assert key(photos, SPEC) != before


def test_other_settings_have_another_key(photos: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [SPEC, InputSpec(48, 32), InputSpec(64, 64), InputSpec(32, 48, fit="letterbox")]
    keys = {key(photos, spec) for spec in specs}
    monkeypatch.setattr(caching, "FORMAT", caching.FORMAT + 1)
    keys.add(key(photos, SPEC))
    monkeypatch.setattr(caching.PIL, "__version__", "99")
    keys.add(key(photos, SPEC))
    assert len(keys) == len(specs) + 2


def test_a_changed_photo_is_seen(photos: list[Sample], cache: PhotoCache) -> None:
    load(photos, SPEC, cache)
    photos[3].photo.write_bytes(b"no picture any more")
    _same(load(photos, SPEC, cache), load(photos, SPEC))


def _cut(content: bytes) -> bytes:
    return content[:-100]


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        lambda content: b"",
        lambda content: b"\0" * len(content),
        lambda content: content.replace(b"synthetic_0001", b"synthetic_9999"),
        lambda content: content.replace(b'"synthetic_0001", ', b""),
    ],
)
def test_a_damaged_entry_is_made_anew(
    photos: list[Sample], cache: PhotoCache, opened: list[str], damage: Callable[[bytes], bytes]
) -> None:
    load(photos, SPEC, cache)
    (entry,) = _entries(cache)
    before = entry.read_bytes()
    entry.write_bytes(damage(before))
    opened.clear()
    _same(load(photos, SPEC, cache), load(photos, SPEC))
    assert len(opened) == 48  # both
    assert _entries(cache) == [entry]
    assert entry.read_bytes() == before


def test_on_a_full_disk_training_goes_on_in_memory(
    photos: list[Sample], cache: PhotoCache, opened: list[str], logged: list[str]
) -> None:
    with disk_full_after(5000):
        data = load(photos, SPEC, cache)
    assert len(opened) == 24  # once
    assert _entries(cache) == []
    (warning,) = logged
    assert warning.startswith(f"{cache.folder}: prepared photos cannot be kept, ")
    assert "--no-cache" in warning
    _same(data, load(photos, SPEC))


def test_a_folder_that_cannot_be_is_a_warning(photos: list[Sample], tmp_path: Path, logged: list[str]) -> None:
    (tmp_path / "file").touch()
    assert len(load(photos, SPEC, PhotoCache(tmp_path / "file" / "cache"))) == 23
    assert "(Not a directory)" in logged[0]


LOAD = """
import os, sys, time
from pathlib import Path
from unet_runtime.core.datasets import open_dataset, read_split
from unet_runtime.core.spec import InputSpec
from unet_training.data.cache import PhotoCache
replace = os.replace
def hang(temporary, entry):  # once the arrays are written, before they have their name
    print("written", flush=True)
    time.sleep(600)
def wait(temporary, entry):  # until the other one has written too
    print("written", flush=True)
    sys.stdin.readline()
    replace(temporary, entry)
os.replace = hang if sys.argv[3] == "hang" else wait
photos = read_split(open_dataset(sys.argv[1]), "official", "trainval")
data = PhotoCache(Path(sys.argv[2])).load(photos, InputSpec(32, 48))
print(len(data), int(data.photos.sum()), int(data.masks.sum()), type(data.photos).__name__)
"""


def _process(data: Path, folder: Path, mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", LOAD, str(data), str(folder), mode]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _until_written(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"


def test_two_processes_at_once_make_one_good_entry(
    data: Path, photos: list[Sample], cache: PhotoCache, opened: list[str]
) -> None:
    with _process(data, cache.folder, "race") as one, _process(data, cache.folder, "race") as other:
        for process in (one, other):
            _until_written(process)
        outs = [process.communicate("go\n", timeout=180)[0] for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0)
    whole = load(photos, SPEC)
    expected = f"23 {whole.photos.sum()} {whole.masks.sum()} memmap"
    assert [out.splitlines()[-1] for out in outs] == [expected] * 2
    assert [entry.name for entry in _entries(cache)] == [f"{key(photos, SPEC)}.photos"]
    opened.clear()
    _same(load(photos, SPEC, cache), whole)
    assert opened == []


def _age(path: Path, hours: float) -> None:
    changed = time.time() - hours * 3600
    os.utime(path, (changed, changed))


def test_a_kill_in_the_middle_leaves_nothing_that_is_taken_for_photos(
    data: Path, photos: list[Sample], cache: PhotoCache
) -> None:
    entry = cache.folder / f"{key(photos, SPEC)}.photos"
    with _process(data, cache.folder, "hang") as process:
        _until_written(process)
        _same(load(photos, SPEC, cache), load(photos, SPEC))  # beside a living one
        assert len(_entries(cache)) == 2
        process.send_signal(signal.SIGKILL)
    entry.unlink()
    (leftover,) = _entries(cache)
    _age(leftover, hours=25)
    _same(load(photos, SPEC, cache), load(photos, SPEC))
    assert _entries(cache) == [entry]


@pytest.mark.parametrize(
    ("name", "hours", "kept"),
    [
        (".unet-edge.0123456789abcdef.part", 0, True),
        (".unet-edge.0123456789abcdef.part", 25, False),
        ("mine.part", 25, True),
    ],
)
def test_unfinished_entries_are_removed_after_a_day(
    photos: list[Sample], cache: PhotoCache, name: str, hours: int, kept: bool
) -> None:
    cache.folder.mkdir(parents=True)
    path = cache.folder / name
    path.touch()
    _age(path, hours)
    load(photos, SPEC, cache)
    assert path.exists() is kept


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
    arguments = ("--data", pictures, "--output", "output", "--preset", "demo", *TINY, *options)
    for _ in range(2):  # refused when the photos have been read
        assert "of another architecture" in unet_train(*arguments, "--weights", SOFTMAX_FILE).err
    found = [
        str(path.relative_to(tmp_path)) for path in (tmp_path / "kept", tmp_path / "output" / "cache") if path.exists()
    ]
    assert found == ([] if folder is None else [folder])
    assert len(opened) == (48 if folder is None else 24)
