"""``bundle``: one archive that installs and runs without network, and holds what was proven, nothing else.

Real wheels, a real installation: the tests that fetch are skipped where pip reaches no index.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.exported import Export
from tests.helpers.paths import REPOSITORY
from unet_export.bundle import wheels
from unet_export.bundle.bundle import bill_path, bundle
from unet_export.bundle.wheels import PLATFORMS, WheelError
from unet_export.errors import ExportError
from unet_runtime import Segmenter
from unet_runtime.core.errors import ModelFileError, OutputError

PYTHON = "{}.{}".format(*sys.version_info[:2])
HERE = "linux-x86_64"
NO_ROUTE = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9))"
"""Raises where there is no network: the address is one of documentation, nothing is sent."""

on_this_platform = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64", reason=f"installs a bundle for {HERE}"
)


def fetched(export: Path, platform: str, folder: Path, names: list[str], runtime: Path | None = None) -> Path:
    """A bundle, unpacked with nothing but Python into a folder with spaces in its name; returns its root."""
    folder.mkdir()
    try:
        archive = bundle(export, platform, folder, python=PYTHON, models=names, runtime=runtime)
    except WheelError as error:
        if "no index can be reached" in str(error):
            pytest.skip(str(error))
        raise
    place = folder / "on the device"
    place.mkdir()
    subprocess.run([sys.executable, "-m", "tarfile", "-e", archive, place], check=True, capture_output=True)
    bill = json.loads(bill_path(archive).read_text(encoding="utf-8"))
    assert bill["metadata"]["component"]["hashes"][0]["content"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    archive.unlink()
    (root,) = place.iterdir()
    return root


@pytest.fixture(scope="module")
def names(exported: Export) -> list[str]:
    """One ONNX and one TFLite model of the export."""
    return [sorted(path.name for path in exported.folder.glob(f"*{suffix}"))[0] for suffix in (".onnx", ".tflite")]


@pytest.fixture(scope="module")
def unpacked(exported: Export, names: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("x86")
    yield fetched(exported.folder, HERE, place / "bundle", names)
    shutil.rmtree(place)  # with its environment half a gigabyte, which pytest would keep


@pytest.fixture(scope="module")
def unpacked_arm(
    exported: Export, unpacked: Path, names: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A bundle of the ONNX model alone; the runtime's wheel is the one that the other bundle has built."""
    (runtime,) = (unpacked / "wheels").glob("unet_edge_runtime-*.whl")
    place = tmp_path_factory.mktemp("arm")
    yield fetched(exported.folder, "linux-aarch64", place / "bundle", names[:1], runtime)
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def offline() -> list[str]:
    """Command words that take the network from the command behind them."""
    for words in (["unshare", "--user", "--map-root-user", "--net"], ["unshare", "--net"]):
        if shutil.which("unshare") and not subprocess.run([*words, "true"], capture_output=True).returncode:
            return words
    pytest.skip("neither user namespaces nor root here: the network cannot be switched off")


@pytest.fixture
def device(offline: list[str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a shell line as on the device: no network, an empty home, this Python but none of its packages."""
    home = tmp_path / "home"
    home.mkdir()
    path = os.pathsep.join([str(Path(sys.base_prefix) / "bin"), os.defpath])
    environment = {"PATH": path, "HOME": str(home), "PIP_NO_INDEX": "1", "LANG": "C.UTF-8"}

    def run(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*offline, "sh", "-c", line], cwd=home, env=environment, capture_output=True, text=True, timeout=300
        )

    assert "unreachable" in run(f"{shlex.quote(sys.executable)} -c {shlex.quote(NO_ROUTE)}").stderr
    return run


@on_this_platform
def test_a_bundle_installs_without_network_and_gives_the_masks_of_this_machine(
    unpacked: Path,
    names: list[str],
    data: Path,
    tmp_path: Path,
    device: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    installed = device(f"sh {shlex.quote(str(unpacked / 'install.sh'))}")
    assert installed.returncode == 0, installed.stderr
    line = installed.stdout.splitlines()[-1]
    assert str(unpacked / "venv") in line
    photo = tmp_path / "photo.jpg"
    shutil.copy(next((data / "images").glob("test_*.jpg")), photo)
    for name in names:
        command = line.replace(names[0], name).replace("PHOTO.jpg", shlex.quote(str(photo)))
        ran = device(command)
        assert ran.returncode == 0, ran.stderr
        with Image.open(tmp_path / "photo.mask.png") as mask:
            there = np.asarray(mask)
        here = Segmenter(unpacked / "models" / name)(photo).mask
        assert len(np.unique(here)) > 1
        np.testing.assert_array_equal(there, here)
        (tmp_path / "photo.mask.png").unlink()


@on_this_platform
def test_a_changed_wheel_is_not_installed_whoever_changed_it(
    unpacked: Path, tmp_path: Path, device: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(unpacked, copy, copy_function=os.link, ignore=shutil.ignore_patterns("venv"))
    (wheel,) = (copy / "wheels").glob("click-*.whl")
    content = bytearray(wheel.read_bytes())
    content[len(content) // 2] ^= 1
    wheel.unlink()  # and not written over: it is a link
    wheel.write_bytes(content)
    refused = device(f"sh {shlex.quote(str(copy / 'install.sh'))}")
    assert refused.returncode == 1
    assert refused.stderr == (
        f"error: wheels/{wheel.name} is damaged: its SHA-256 is not the one of SHA256SUMS: copy the bundle again\n"
    )
    sums = (copy / "SHA256SUMS").read_text()
    (copy / "SHA256SUMS").unlink()
    changed = re.sub(rf"\w+  wheels/{wheel.name}", f"{hashlib.sha256(content).hexdigest()}  wheels/{wheel.name}", sums)
    assert changed != sums
    (copy / "SHA256SUMS").write_text(changed)
    refused = device(f"sh {shlex.quote(str(copy / 'install.sh'))}")
    assert refused.returncode == 1
    assert "HASH" in refused.stderr.upper()
    assert refused.stderr.endswith("error: pip failed with exit code 1, its reason is above\n")
    assert not (copy / "venv").exists()


def test_every_file_of_a_bundle_is_listed_pinned_and_for_the_device(
    unpacked_arm: Path, exported: Export, names: list[str]
) -> None:
    found = [path.name for path in (unpacked_arm / "wheels").iterdir()]
    assert all(name.endswith(("aarch64.whl", "-any.whl")) for name in found), found
    assert any(name.startswith(f"onnxruntime-{importlib.metadata.version('onnxruntime')}-") for name in found)
    assert not any(name.startswith("ai_edge_litert-") for name in found)  # no TFLite model, no TFLite engine
    pinned = re.findall(r"^\S+==\S+ --hash=sha256:(\w{64})$", (unpacked_arm / "requirements.txt").read_text(), re.M)
    assert len(pinned) == len(found) - 1  # pip installs, and is not installed
    for path in (unpacked_arm / "wheels").iterdir():
        assert (hashlib.sha256(path.read_bytes()).hexdigest() in pinned) != path.name.startswith("pip-")
    files = {str(path.relative_to(unpacked_arm)) for path in unpacked_arm.rglob("*") if path.is_file()}
    listed = dict(line.split("  ")[::-1] for line in (unpacked_arm / "SHA256SUMS").read_text().splitlines())
    assert listed.keys() | {"SHA256SUMS"} == files
    model = f"models/{names[0]}"
    assert listed[model] == hashlib.sha256((exported.folder / names[0]).read_bytes()).hexdigest()
    assert {name for name in files if name.startswith("models/")} == {model, "models/parity.json"}
    for name in ("LICENSE", "NOTICE.md"):
        assert (unpacked_arm / name).read_bytes() == (REPOSITORY / name).read_bytes()
    assert len((unpacked_arm / "README.txt").read_text().splitlines()) == 2


@on_this_platform
def test_a_bundle_for_another_machine_says_so(unpacked_arm: Path) -> None:
    answer = subprocess.run([sys.executable, unpacked_arm / "install.py"], capture_output=True, text=True)
    assert answer.returncode == 1
    assert answer.stderr == ("error: this is Linux x86_64 with a 64-bit Python, the bundle is for linux-aarch64\n")


# --- what is refused, before anything is fetched ---------------------------------------------------


@pytest.fixture
def copied(exported: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the export to spoil; uv and pip are out of reach."""

    def fetched(*arguments: str, **settings: object) -> None:
        raise AssertionError(f"called: {arguments}")

    monkeypatch.setattr(wheels, "_run", fetched)
    return Path(shutil.copytree(exported.folder, tmp_path / "copied"))


def refusal(copied: Path, kind: type[Exception] = ExportError, platform: str = HERE, **options: object) -> str:
    """The message; nothing may have been written."""
    output = copied.parent / "out"
    output.mkdir(exist_ok=True)
    with pytest.raises(kind) as caught:
        bundle(copied, platform, output, **options)  # type: ignore[arg-type]
    assert list(output.iterdir()) == []
    return str(caught.value)


def edit(copied: Path, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    report = json.loads((copied / "parity.json").read_text())
    change(report)
    (copied / "parity.json").write_text(json.dumps(report))


def test_a_folder_that_was_never_accepted_is_refused(copied: Path) -> None:
    edit(copied, lambda report: report.update(passed=False))
    assert "the gate did not pass" in refusal(copied)
    edit(copied, lambda report: report.update(accepted=[], refused=[{"file": "other.onnx"}]))
    assert "the gate did not pass" in refusal(copied)
    (copied / "parity.json").write_text("{}")
    assert "no report of unet-export" in refusal(copied)
    (copied / "parity.json").unlink()
    assert "not there" in refusal(copied)


def test_a_model_that_is_not_the_proven_one_is_refused(copied: Path, names: list[str]) -> None:
    whole = (copied / names[0]).read_bytes()
    (copied / names[0]).write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    assert "damaged" in refusal(copied, ModelFileError)
    (copied / names[0]).write_bytes(whole)
    edit(copied, lambda report: [entry.update(sha256="0" * 64) for entry in report["artifacts"]])
    assert "changed since the gate accepted it" in refusal(copied, models=names[:1])
    (copied / names[0]).unlink()
    assert "no such model file" in refusal(copied, ModelFileError)


def test_a_model_that_failed_beside_others_that_passed_is_left_out(copied: Path, names: list[str]) -> None:
    edit(copied, lambda report: [entry.update(passed=entry["file"] != names[0]) for entry in report["artifacts"]])
    message = refusal(copied, models=names)
    assert message.startswith(f"{names[0]}: not accepted in {copied}, expected some of ")
    assert names[1] in message


def test_an_export_of_a_saved_model_alone_is_refused(copied: Path) -> None:
    def keep(report: dict) -> None:  # type: ignore[type-arg]
        report["artifacts"] = [entry for entry in report["artifacts"] if entry["file"] == "saved_model"]
        assert report["artifacts"]

    edit(copied, keep)
    assert "no accepted .onnx or .tflite model" in refusal(copied)


def test_wrong_choices_name_the_right_ones(copied: Path, names: list[str], tmp_path: Path) -> None:
    assert ", ".join(PLATFORMS) in refusal(copied, platform="solaris")
    assert "such as 3.11" in refusal(copied, python="three")
    assert "onnx, tflite, openvino, cuda" in refusal(copied, engines=["torch"])
    assert "choose cuda alone" in refusal(copied, engines=["onnx", "cuda", "tflite"])
    assert f"{names[1]}: engines onnx do not read it" in refusal(copied, models=names, engines=["onnx"])
    assert "expected some of" in refusal(copied, models=["absent.onnx"])
    with pytest.raises(ExportError, match=r"expected \.tar\.gz or \.zip"):
        bundle(copied, HERE, tmp_path / "bundle.rar")
    assert "neither a wheel nor a source folder" in refusal(copied, runtime=tmp_path / "absent")


def test_an_engine_that_the_gate_did_not_try_is_refused(copied: Path, names: list[str]) -> None:
    def forget(report: dict) -> None:  # type: ignore[type-arg]
        for entry in report["artifacts"]:
            entry["engines"] = [
                {"backend": "onnx", "verdict": "not checked"},
                {"backend": "tflite", "verdict": "passed"},
            ]

    edit(copied, forget)
    assert f"{names[0]}: not proven on onnx, which would run it on the device" in refusal(copied, models=names)


# --- what goes wrong on the way --------------------------------------------------------------------


def test_without_network_the_reason_of_pip_is_given_and_nothing_is_left(
    exported: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    output = tmp_path / "out.zip"
    output.write_bytes(b"the previous one")
    with pytest.raises(WheelError, match="no index can be reached"):
        bundle(exported.folder, HERE, output, overwrite=True)
    assert output.read_bytes() == b"the previous one"
    assert list(tmp_path.iterdir()) == [output]


def test_a_disk_that_takes_no_more_is_an_output_error_and_nothing_is_left(copied: Path) -> None:
    """The limit on a file's size stands for it: the same writes fail, with another number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        message = refusal(copied, OutputError)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.strerror(errno.EFBIG) in message


def test_ctrl_c_leaves_nothing(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: str, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(wheels, "_run", interrupted)
    output = copied.parent / "out"
    output.mkdir()
    with pytest.raises(KeyboardInterrupt):
        bundle(copied, HERE, output)
    assert list(output.iterdir()) == []
