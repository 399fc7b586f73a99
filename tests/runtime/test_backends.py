"""Engines: which one is chosen, what is refused before it is imported, threads, whose memory a result is."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import bundled
from unet_runtime import MissingDependencyError, Segmenter
from unet_runtime.core import cores
from unet_runtime.core.artifact import Artifact, read_artifact
from unet_runtime.core.install import pip_command
from unet_runtime.engines import ENGINES, MODELS, import_engine, installed, load, package_file, wheels
from unet_runtime.engines.onnxruntime_cpu import session_options


def artifact(engine: str) -> Artifact:
    return read_artifact(ENGINES[engine].default_model)


def pictures(count: int) -> np.ndarray:
    source = bundled.SPEC.input
    return np.random.default_rng(count).integers(0, 256, (count, source.height, source.width, 3), np.uint8)


def fake(folder: Path, package: str, source: str) -> dict[str, str]:
    """An environment in which ``package`` is a module of one file with ``source``."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text(source)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def in_process(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=180, check=False
    )


LOAD = """
from unet_runtime import Segmenter
try:
    Segmenter(backend='onnx')
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_a_result_belongs_to_the_caller(engine: str) -> None:
    """A later run does not write into an earlier result, nor does any thread's into another's."""
    backend = load(engine, artifact(engine), threads=1)
    images = pictures(4)
    first = backend.run(images[:1])
    kept = first.copy()
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda index: backend.run(images[index % 4 : index % 4 + 1]), range(12)))
    assert np.array_equal(first, kept)
    for index, output in enumerate(outputs):
        np.testing.assert_allclose(output, outputs[index % 4], atol=1e-6)
    assert not np.array_equal(outputs[0], outputs[1])
    together = backend.run(images)
    np.testing.assert_allclose(together, np.concatenate(outputs[:4]), atol=1e-5)
    assert together.dtype == np.float32


def test_int8_logits_are_dequantised() -> None:
    """By hand from the file's own scale, beside the float model's output."""
    backend = load("tflite", artifact("tflite"))
    image = pictures(1)
    output = backend.run(image)
    details = backend._interpreter.get_output_details()[0]  # type: ignore[attr-defined]
    scale, zero_point = details["quantization"]
    raw = backend._interpreter.get_tensor(details["index"])  # type: ignore[attr-defined]
    assert raw.dtype.kind == "i"
    np.testing.assert_allclose(output, (raw.astype(np.float32) - zero_point) * np.float32(scale), atol=1e-7)
    probabilities = Segmenter(backend="tflite").infer(image)
    assert abs(probabilities - load("onnx", artifact("onnx")).run(image)).mean() < 0.05


def test_onnx_runtime_does_not_keep_the_files_bytes() -> None:
    """Its own Python class would hold the whole file for a fallback that is switched off."""
    backend = load("onnx", artifact("onnx"), device="cpu")
    held = [value for value in vars(backend._session).values() if isinstance(value, bytes)]  # type: ignore[attr-defined]
    assert sum(map(len, held)) == 0


def test_threads_are_those_that_were_asked_for() -> None:
    assert session_options(3).intra_op_num_threads == 3
    assert session_options(3).get_session_config_entry("session.force_spinning_stop") == "1"
    assert session_options(None).intra_op_num_threads == (cores.limit() or 0)


def _v1(folder: str, quota: int) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": "100000\n"}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or os.cpu_count() == 1, reason="needs cores to do without")
def test_a_process_that_may_use_one_core_takes_one_thread() -> None:
    """As under taskset; the engines themselves would start a thread for every core of the machine."""
    script = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import numpy as np\n"
        "from unet_runtime import Segmenter; from unet_runtime.core import cores\n"
        "assert (cores.limit(), cores.default_threads()) == (1, 1)\n"
        "import onnxruntime; before = len(os.listdir('/proc/self/task'))\n"
        "model = Segmenter(backend='onnx'); side = model.spec.input.height, model.spec.input.width\n"
        "model.backend.run(np.zeros((1, *side, 3), np.uint8))\n"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    done = in_process(script, dict(os.environ))
    assert done.stdout.strip() == "0", done.stderr


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {"cpu.max": "100000 100000"}, 1),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/", {"cpu.max": "450000 100000"}, 4),
        ("0::/", {"cpu.max": ""}, None),
        # A systemd service: the smallest quota of its group and of the slices around it.
        ("0::/system.slice/x.service", {"system.slice/x.service/cpu.max": "50000 100000"}, 1),
        ("0::/a.slice/x.scope", {"a.slice/cpu.max": "300000 100000", "a.slice/x.scope/cpu.max": "max 100000"}, 3),
        ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "600000 100000"}, 2),
        # Version 1, in a container: its group's name is the host's, its files are at the top.
        ("4:cpu,cpuacct:/docker/12ab", _v1("cpu,cpuacct", 50000), 1),
        ("4:cpuacct,cpu:/kubepods/pod1/c", _v1("cpu,cpuacct/kubepods/pod1", 250000), 2),
        ("1:cpu:/\n0::/", _v1("cpu", -1), None),
        ("3:cpuset:/x\n2:cpu:/x", _v1("cpu/x", 700000), 7),
        ("2:cpuset:/x", _v1("cpu/x", 100000), None),
        (None, {}, None),
        ("0::/../../etc\nnonsense\n\udce9::", {}, None),
    ],
)
def test_a_quota_of_processor_time(
    groups: str | None, files: dict[str, str], quota: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if groups is not None:
        (tmp_path / "group").write_text(groups, errors="surrogateescape")
    for name, text in files.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text(text)
    monkeypatch.setattr(cores, "_GROUPS", tmp_path / "group")
    monkeypatch.setattr(cores, "_CONTROLLERS", tmp_path / "tree")
    monkeypatch.setattr(cores, "_allowed", lambda: set(range(16)))
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert cores.limit() == quota
    assert cores.default_threads() <= min(quota or cores.MOST, cores.MOST)


def test_two_hardware_threads_of_a_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cpu in range(4):
        (tmp_path / f"cpu{cpu}").write_text(f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}\n")
    monkeypatch.setattr(cores, "_SIBLINGS", str(tmp_path / "cpu{}"))
    monkeypatch.setattr(cores, "_allowed", lambda: {0, 1, 2, 3})
    assert cores.physical_cores() == 2
    monkeypatch.setattr(cores, "_SIBLINGS", str(tmp_path / "nothing{}"))
    assert cores.physical_cores() == 4


def test_one_wheel_of_the_engine_is_found_here() -> None:
    package = package_file("onnx")
    assert package is not None
    assert list(wheels.found(package.parent, wheels.ONNXRUNTIME)) == ["onnxruntime"]
    wheels.refuse_several(package.parent, wheels.ONNXRUNTIME)


def test_both_wheels_are_refused_before_they_are_imported(tmp_path: Path) -> None:
    """unet-run ends with exit code 3 and the commands that mend it; the engine's module is never run."""
    environment = fake(tmp_path, "onnxruntime", "raise SystemExit('was imported')")
    for name, version in (("onnxruntime", "1.30.0"), ("onnxruntime_gpu", "1.31.1"), ("onnxruntime_extensions", "1.0")):
        (tmp_path / f"{name}-{version}.dist-info").mkdir()
    done = in_process(LOAD, environment)
    assert done.stdout.startswith("BackendError onnxruntime 1.30.0 and onnxruntime-gpu 1.31.1 are both installed")
    remedy = f"pip uninstall -y onnxruntime onnxruntime-gpu && {pip_command('cuda')}"
    assert done.stdout.strip().endswith(remedy), done.stderr
    (tmp_path / "photo.jpg").write_bytes((MODELS.parent / "samples" / "chelsea.jpg").read_bytes())
    command = f"import sys; sys.argv = ['unet-run', {str(tmp_path / 'photo.jpg')!r}]"
    done = in_process(f"{command}; from unet_runtime.cli.run import main; main()", environment)
    assert done.returncode == 3, done.stderr
    assert remedy in done.stderr


@pytest.mark.parametrize(
    "source",
    ["raise OSError('libgomp.so.1: cannot open shared object file')", "raise ImportError('numpy 1 expected')", "x = 1"],
    ids=["library", "numpy", "half-removed"],
)
def test_a_broken_engine_is_an_error_that_says_how_to_mend_it(source: str, tmp_path: Path) -> None:
    done = in_process(LOAD, fake(tmp_path, "onnxruntime", source))
    assert done.stdout.startswith("BackendError backend onnx: onnxruntime is installed but cannot be imported"), done
    assert f"{pip_command('onnx')} --force-reinstall" in done.stdout


def test_what_an_uninstalled_wheel_leaves_behind_is_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without code; Python would import it as a namespace."""
    (tmp_path / "leftover").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(ENGINES, "tflite", ENGINES["tflite"]._replace(package="leftover"))
    assert not installed("tflite")
    with pytest.raises(MissingDependencyError, match=f"LiteRT, which is not installed: {pip_command('tflite')}"):
        import_engine("tflite")
