"""Which wheels a device needs, resolved on another machine. Wheels are made here, uv and pip see no index."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from unet_export.bundle.wheels import PLATFORMS, WheelError, Wheelhouse, oldest_system

MakeWheel = Callable[..., Path]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that uv and pip have wheels from."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def wheel(index: Path) -> MakeWheel:
    """(name, version, requirements) -> an empty package's wheel in the index."""

    def make(
        name: str, version: str, *needs: str, tag: str = "py3-none-any", headers: str = "", content: int = 0
    ) -> Path:
        path = index / f"{name}-{version}-{tag}.whl"
        requires = "".join(f"Requires-Dist: {need}\n" for need in needs)
        with zipfile.ZipFile(path, "w") as archive:
            info = f"{name}-{version}.dist-info"
            head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            archive.writestr(f"{info}/METADATA", head + headers + requires)
            archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
            archive.writestr(f"{info}/RECORD", "")
            archive.writestr(f"{name}.py", "#" * content)
        return path

    return make


@pytest.fixture
def house(tmp_path: Path) -> Callable[..., Wheelhouse]:
    """(platform) -> an empty wheelhouse for Python 3.11."""

    def make(platform: str = "linux-aarch64") -> Wheelhouse:
        folder = tmp_path / f"wheels-{platform}"
        folder.mkdir()
        return Wheelhouse(folder, platform, "3.11")

    return make


def add(house: Wheelhouse, path: Path, *extras: str) -> list[str]:
    """Put the wheel into the folder and fetch its dependencies; names of all that are there then."""
    place = Path(shutil.copy(path, house.folder))
    house.fetch_dependencies(place, extras)
    return list(house.wheels)


def test_what_the_device_alone_needs_is_fetched_and_what_this_machine_needs_is_not(
    wheel: MakeWheel, house: Callable[..., Wheelhouse]
) -> None:
    wheel("onwindows", "1.0")
    wheel("onarm", "1.0")
    wheel("onold", "1.0")
    own = wheel(
        "own",
        "1.0",
        'onwindows; sys_platform == "win32"',
        'onarm; platform_machine == "aarch64"',
        'onold; python_version < "3.11"',
    )
    assert add(house("windows-x86_64"), own) == ["onwindows", "own"]
    assert add(house("linux-aarch64"), own) == ["onarm", "own"]
    assert add(house("macos-arm64"), own) == ["own"]


def test_needs_of_needs_and_their_extras_are_followed(wheel: MakeWheel, house: Callable[..., Wheelhouse]) -> None:
    wheel("engine", "2.0", "base", 'driver>=3; extra == "gpu"', 'docs; extra == "docs"')
    wheel("base", "1.0", "engine")  # a circle
    wheel("driver", "3.1")
    wheel("driver", "2.9")
    own = wheel("own", "1.0", 'engine[gpu]; extra == "cuda"', 'other; extra == "other"')
    made = house()
    assert add(made, own, "cuda") == ["base", "driver", "engine", "own"]
    assert made.wheels["driver"].name == "driver-3.1-py3-none-any.whl"


def test_versions_are_those_installed_here_else_the_newest_in_range_with_a_warning(
    wheel: MakeWheel, house: Callable[..., Wheelhouse], caplog: pytest.LogCaptureFixture
) -> None:
    here = importlib.metadata.version("click")
    wheel("click", here)
    wheel("click", "8.99")
    wheel("numpy", "1.26.4", tag="cp311-cp311-manylinux2014_aarch64")  # the one installed here has no wheel there
    wheel("numpy", "1.27.0", tag="cp311-cp311-manylinux2014_x86_64")  # of another machine
    wheel("elsewhere", "1.5")
    wheel("elsewhere", "1.10")
    wheel("elsewhere", "2.0")
    made = house()
    add(made, wheel("own", "1.0", "click>=8", "numpy>=1.26,<3", "elsewhere<2"))
    assert [path.name for path in made.wheels.values()] == [
        f"click-{here}-py3-none-any.whl",
        "elsewhere-1.10-py3-none-any.whl",
        "numpy-1.26.4-cp311-cp311-manylinux2014_aarch64.whl",
        "own-1.0-py3-none-any.whl",
    ]
    warnings = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING]
    assert warnings == [
        "elsewhere is not installed here: the bundle gets 1.10, untested",
        f"numpy {importlib.metadata.version('numpy')}, installed here, does not suit linux-aarch64: "
        "the bundle gets 1.26.4, untested",
    ]


def test_of_two_builds_the_one_for_the_older_system_is_taken(
    wheel: MakeWheel, house: Callable[..., Wheelhouse]
) -> None:
    for glibc in (34, 28):
        wheel("built", "1.0", tag=f"cp311-cp311-manylinux_2_{glibc}_aarch64")
    wheel("built", "1.0", tag="cp311-cp311-musllinux_1_2_aarch64")
    wheel("legacy", "1.0", tag="py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64")
    made = house()
    add(made, wheel("own", "1.0", "built"))
    assert made.wheels["built"].name == "built-1.0-cp311-cp311-manylinux_2_28_aarch64.whl"
    assert oldest_system(made.wheels.values()) == {"glibc": "2.28"}
    older = house("linux-x86_64")
    add(older, wheel("own", "1.0", "legacy"))
    assert oldest_system(older.wheels.values()) == {"glibc": "2.12"}


def test_a_wheel_that_is_not_there_is_named_with_the_reason(wheel: MakeWheel, house: Callable[..., Wheelhouse]) -> None:
    own = wheel("own", "1.0", "nowhere>=2")
    with pytest.raises(
        WheelError, match=r"^uv: No solution found.* nowhere was not found .* `pip config list`"
    ) as caught:
        add(house(), own)
    assert "no index can be reached" not in str(caught.value)


def test_an_index_out_of_reach_is_reported_as_such(
    wheel: MakeWheel, house: Callable[..., Wheelhouse], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = wheel("own", "1.0", "nowhere>=2")
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # the discard port: nobody answers
    monkeypatch.setenv("PIP_RETRIES", "1")
    for fetch in (lambda: add(house(), own), lambda: house("macos-arm64").fetch("nowhere==2")):
        with pytest.raises(WheelError, match="no index can be reached") as caught:
            fetch()
        assert "no index can be reached" in str(caught.value)


def test_of_needs_that_exclude_versions_one_that_suits_all_is_taken(
    wheel: MakeWheel, house: Callable[..., Wheelhouse]
) -> None:
    wheel("shared", "1.0")
    wheel("shared", "2.0")
    wheel("late", "1.0", "shared<2")
    made = house()
    add(made, wheel("own", "1.0", "shared>=1", "late"))
    assert made.wheels["shared"].name == "shared-1.0-py3-none-any.whl"
    with pytest.raises(WheelError, match=r"No solution found.*shared"):
        add(house("windows-x86_64"), wheel("own", "1.0", "shared>=2", "late"))


def test_a_wheel_for_a_newer_python_is_refused(wheel: MakeWheel, house: Callable[..., Wheelhouse]) -> None:
    own = wheel("own", "1.0", headers="Requires-Python: >=3.12\n")
    with pytest.raises(WheelError, match=r"requested Python version .*Python>=3.12"):
        add(house(), own)


def test_a_full_disk_is_no_missing_wheel(wheel: MakeWheel, tmp_path: Path) -> None:
    """A real one of 64 KiB, in a mount namespace of its own."""
    big = wheel("big", "1.0", content=1 << 17)
    place = tmp_path / "disk"
    place.mkdir()
    script = f"""
from pathlib import Path
from unet_export.bundle.wheels import Wheelhouse
from unet_runtime.core.errors import OutputError
try:
    Wheelhouse(Path({str(place)!r}), "linux-aarch64", "3.11").fetch("big==1.0")
except OutputError as error:
    print("OutputError:", error)
"""
    mount = f"mount -t tmpfs -o size=64k tmpfs {shlex.quote(str(place))}"
    apart = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*apart, mount], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a small disk (user namespaces)")
    command = f"{mount} && exec {shlex.quote(sys.executable)} -c {shlex.quote(script)}"
    ended = subprocess.run([*apart, command], capture_output=True, text=True, timeout=180)
    assert "OutputError: pip: " in ended.stdout, ended.stderr
    assert "No space left" in ended.stdout
    assert big.stat().st_size > 1 << 17


def test_the_tags_of_a_platform_are_of_its_machine() -> None:
    for platform in PLATFORMS.values():
        assert all(tag.endswith(f"_{platform.machine.lower()}") for tag in platform.tags)
