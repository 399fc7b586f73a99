"""The packages as people install them: built, checked, with what they must carry, at one version."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

import unet_export
import unet_runtime
import unet_training
from tests.helpers.paths import REPOSITORY

PACKAGES = {"runtime": unet_runtime, "export": unet_export, "training": unet_training}


def project(folder: str) -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_three_packages_have_one_version_each_in_one_place() -> None:
    versions = {package.__version__ for package in PACKAGES.values()}
    assert len(versions) == 1
    (version,) = versions
    for folder in PACKAGES:
        assert project(folder)["dynamic"] == ["version"]
        text = (REPOSITORY / folder / "README.md").read_text(encoding="utf-8")
        named = re.findall(r"unet_edge_\w+-([\d.]+)-py3", text)
        assert named
        assert set(named) == versions
        for requirement in project(folder)["dependencies"]:
            if requirement.startswith("unet-edge-"):
                assert requirement.endswith(f"=={version.rpartition('.')[0]}.*")


@pytest.mark.parametrize("folder", PACKAGES)
@pytest.mark.parametrize("name", ["LICENSE", "NOTICE.md"])
def test_each_package_carries_licence_and_notice(folder: str, name: str) -> None:
    """A package's folder cannot refer to a file outside it: an sdist would lack it."""
    assert (REPOSITORY / folder / name).read_bytes() == (REPOSITORY / name).read_bytes()
    assert name in project(folder)["license-files"]


@pytest.mark.parametrize("folder", PACKAGES)
def test_classifiers_and_range_agree(folder: str) -> None:
    found = project(folder)
    prefix = "Programming Language :: Python :: "
    named = [entry.removeprefix(prefix) for entry in found["classifiers"] if entry.startswith(prefix)]
    allowed = SpecifierSet(found["requires-python"])
    assert named
    assert f">={named[0]}" in found["requires-python"].split(",")
    assert all(version in allowed for version in named)
    assert ("3.14" in allowed) == (folder == "runtime"), "TensorFlow has no wheel for 3.14"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels and source archives of the three packages, made and checked by ``make dist``."""
    folder = tmp_path_factory.mktemp("dist")
    environment = Path(sys.executable).parents[1]  # the one that ``make setup`` made: nothing is installed again
    command = ["make", "--directory", REPOSITORY, "dist", f"VENV={environment}", f"DIST={folder}"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600, check=False)
    if "No matching distribution found for hatchling" in done.stdout + done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 6  # by ``twine check --strict``
    return folder


def metadata(content: bytes) -> Message:
    return email.message_from_string(content.decode())


@pytest.mark.network
def test_wheels_and_archives_of_the_three_packages_are_made(dist: Path) -> None:
    names = sorted(path.name.split("-")[0] for path in dist.iterdir())
    assert names == [*sorted(2 * [f"unet_edge_{name}" for name in PACKAGES])]
    (training,) = dist.glob("unet_edge_training-*.whl")
    with zipfile.ZipFile(training) as wheel:
        assert "unet_training/templates/report.html.j2" in wheel.namelist()


@pytest.mark.network
def test_wheels_say_whose_weights_they_carry(dist: Path) -> None:
    notice = (REPOSITORY / "NOTICE.md").read_bytes()
    for path in sorted(dist.glob("*.whl")):
        with zipfile.ZipFile(path) as wheel:
            (found,) = (name for name in wheel.namelist() if name.endswith("licenses/NOTICE.md"))
            assert wheel.read(found) == notice
            (name,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
            about = metadata(wheel.read(name))
            has_weights = any(name.endswith((".onnx", ".keras", ".tflite")) for name in wheel.namelist())
            assert any(name.endswith("py.typed") for name in wheel.namelist())
        assert about["License-Expression"].startswith("Apache-2.0")
        assert ("LicenseRef-Oxford-IIIT-Pet-weights" in about["License-Expression"]) == has_weights
        assert about["Description-Content-Type"] == "text/markdown"
        assert about.get_all("Project-URL")


@pytest.mark.network
def test_a_source_archive_gives_the_same_wheel(dist: Path, tmp_path: Path) -> None:
    """It holds all that the package needs, and nothing of the machine that made it."""
    for path in sorted(dist.glob("*.tar.gz")):
        with tarfile.open(path) as archive:
            names = [name.partition("/")[2] for name in archive.getnames()]
        assert {"LICENSE", "NOTICE.md", "README.md", "PKG-INFO", "pyproject.toml"} <= set(names)
        assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, path]
        subprocess.run([*map(str, command)], check=True, timeout=600, capture_output=True)
    for path in sorted(dist.glob("*.whl")):
        with zipfile.ZipFile(path) as made, zipfile.ZipFile(tmp_path / path.name) as again:
            assert sorted(made.namelist()) == sorted(again.namelist())
