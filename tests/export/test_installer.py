"""The installer of a bundle, before it installs anything: which files it trusts."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.paths import REPOSITORY

INSTALLER = REPOSITORY / "export" / "unet_export" / "bundle" / "device" / "install.py"
PIP = "wheels/pip-26.0-py3-none-any.whl"
MODEL = "models/pets.onnx"


def _write_sums(folder: Path) -> None:
    lines = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "SHA256SUMS":
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            lines.append(f"{digest}  {path.relative_to(folder).as_posix()}\n")
    (folder / "SHA256SUMS").write_text("".join(lines))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle that is for another machine: what is refused for its files is refused before that."""
    folder = tmp_path / "bundle"
    for name in (PIP, MODEL, "requirements.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    shutil.copy(INSTALLER, folder)
    machine = {"system": "Plan 9", "machine": "mips", "platform": "plan9-mips", "python": "3.11", "needs": {}}
    (folder / "bundle.json").write_text(json.dumps(machine | {"pip": PIP, "models": [MODEL]}))
    _write_sums(folder)
    return folder


def _install(folder: Path) -> str:
    ended = subprocess.run([sys.executable, folder / "install.py"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert len(ended.stderr.splitlines()) == 1
    return ended.stderr


def test_a_whole_bundle_passes(bundle: Path) -> None:
    (bundle / "venv").mkdir()
    (bundle / "venv" / "of-an-installation-before").write_text("")
    assert "the bundle is for plan9-mips" in _install(bundle)


def _without(folder: Path, name: str) -> None:
    path = folder / "SHA256SUMS"
    path.write_text(
        "".join(line for line in path.read_text().splitlines(keepends=True) if not line.endswith(name + "\n"))
    )


def _add_wheel(folder: Path) -> None:
    (folder / "wheels" / "numpy-99.0-py3-none-any.whl").write_text("not of the bundle")


def _name_another_model(folder: Path) -> None:
    about = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(about | {"models": ["models/other.onnx"]}))
    _write_sums(folder)


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda folder: (folder / "SHA256SUMS").write_text(""), "bundle.json is not in SHA256SUMS"),
    "absent": (lambda folder: (folder / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
    "no text": (lambda folder: (folder / "SHA256SUMS").write_bytes(b"\xff\xfe"), "SHA256SUMS cannot be read"),
    "no sums": (lambda folder: (folder / "SHA256SUMS").write_text("hello\n"), "SHA256SUMS is damaged at 'hello'"),
    "without pip": (lambda folder: _without(folder, PIP), f"{PIP} is not in SHA256SUMS"),
    "without requirements": (lambda folder: _without(folder, "requirements.txt"), "requirements.txt is not in SHA256"),
    "without installer": (lambda folder: _without(folder, "install.py"), "install.py is not in SHA256SUMS"),
    "without model": (lambda folder: _without(folder, MODEL), f"{MODEL} is not in SHA256SUMS"),
    "another wheel": (_add_wheel, "wheels/numpy-99.0-py3-none-any.whl is not in SHA256SUMS"),
    "another model": (_name_another_model, "models/other.onnx is not in SHA256SUMS"),
    "changed": (lambda folder: (folder / MODEL).write_text("changed"), f"{MODEL} is damaged"),
    "gone": (lambda folder: (folder / MODEL).unlink(), f"{MODEL} is missing"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_as_it_was_bundled_is_refused(bundle: Path, case: str) -> None:
    change, expected = CASES[case]
    change(bundle)
    assert f"error: {expected}" in _install(bundle)
