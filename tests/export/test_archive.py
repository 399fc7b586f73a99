"""The archive of a bundle: its bytes follow from its files alone."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pytest

from unet_export.bundle.archive import write_archive
from unet_runtime.io.stamps import is_ours


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_the_same_files_give_the_same_archive(tmp_path: Path, suffix: str) -> None:
    written = []
    for order in (["b", "a.sh"], ["a.sh", "b"]):
        folder = tmp_path / "".join(order) / "root"
        (folder / "deep").mkdir(parents=True)
        for age, name in enumerate(order):
            (folder / "deep" / name).write_text(name * 1000)
            os.utime(folder / "deep" / name, (age, age + len(written) * 1e9))
        (folder / "deep" / "b").chmod(0o600 if written else 0o777)
        path = folder.parent / f"archive{suffix}"
        write_archive(folder, path)
        written.append(path.read_bytes())
    assert written[0] == written[1]
    assert is_ours(path, "unet-export")
    if suffix == ".tar.gz":
        with tarfile.open(path) as archive:
            modes = {entry.name: entry.mode for entry in archive}
        assert modes == {"root/deep/a.sh": 0o755, "root/deep/b": 0o644}
    shutil.unpack_archive(path, tmp_path / "unpacked", filter="data" if suffix == ".tar.gz" else None)
    assert (tmp_path / "unpacked" / "root" / "deep" / "b").read_text() == "b" * 1000
