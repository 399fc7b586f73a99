"""Fixtures for every test: the real photos, and a model whose right output is known by looking; what takes long."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.colours import colour_spec, write_colour_model
from tests.helpers.paths import REPOSITORY
from unet_runtime.cli import exits

# A shell's background job ignores SIGINT, and so would every command that a test of it starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# As users have it: else each of the many processes that tests start would compile this project again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


MARKED = {
    "slow": (
        "export/test_artifacts.py",
        "export/test_bundle.py",
        "export/test_cli.py",
        "export/test_diagnose.py",
        "export/test_equalize.py",
        "export/test_finetune.py",
        "export/test_foreign.py",
        "export/test_foreign_files.py",
        "export/test_foreign_outputs.py",
        "export/test_heat_maps.py",
        "export/test_new_format.py",
        "export/test_onnx.py",
        "export/test_onnx_reduced.py",
        "export/test_page.py",
        "export/test_panels.py",
        "export/test_parity.py",
        "export/test_pipeline.py",
        "export/test_repair.py",
        "export/test_rounding.py",
        "export/test_sigmoid.py",
        "export/test_tflite.py",
        "export/test_tflite_formats.py",
        "export/test_tflite_micro.py",
        "export/test_triton.py",
        "export/test_web.py",
        "runtime/bench",
        "runtime/live/test_command.py",
        "runtime/live/test_loop.py",
        "runtime/serve/test_load.py",
        "runtime/serve/test_malformed.py",
        "runtime/serve/test_workers.py",
        "runtime/test_annotations.py",
        "robustness",
        "runtime/test_bench.py",
        "runtime/test_cases.py",
        "runtime/test_coco_set.py",
        "runtime/test_colour.py::test_memory",
        "runtime/test_fork.py",
        "runtime/test_formats.py::test_jpeg_xl_tells_its_size",
        "runtime/test_info.py",
        "runtime/test_large.py",
        "runtime/test_manifest.py",
        "runtime/test_many.py",
        "runtime/test_matting.py::test_memory_is_bounded",
        "runtime/test_new_engine.py",
        "runtime/test_places.py",
        "runtime/test_properties.py",
        "runtime/test_readers.py",
        "runtime/test_remote.py",
        "runtime/test_resume.py",
        "runtime/test_run.py",
        "runtime/test_service.py",
        "runtime/test_sinks.py::test_large_results",
        "runtime/test_two_processes.py",
        "runtime/test_video.py",
        "runtime/test_video_ffmpeg.py",
        "runtime/test_video_stalled.py",
        "training/compare/test_command.py",
        "training/compare/test_result.py::test_the_plot",
        "training/test_backends.py",
        "training/test_build.py",
        "training/test_check.py::test_the_real_dataset",
        "training/test_classes.py",
        "training/test_cli.py",
        "training/test_distribution.py",
        "training/test_encoder_weights.py",
        "training/test_evaluate.py",
        "training/test_events.py",
        "training/test_lite.py",
        "training/test_models.py",
        "training/test_own_data.py",
        "training/test_new_architecture.py",
        "training/test_progress.py",
        "training/test_report.py",
        "training/test_resume.py",
        "training/test_synthetic.py",
        "training/test_train.py",
        "training/test_unet.py",
    ),
    "e2e": ("e2e",),
    "window": (
        "export/test_web.py",
        "export/test_web_pixels.py",
        "runtime/live/test_window.py",
        "runtime/live/test_web_page.py",
        "runtime/live/test_playback.py",
        "runtime/serve/test_page.py",
    ),
    "network": ("export/test_bundle.py", "export/test_web.py", "export/test_wheels.py", "e2e/test_device.py"),
}
"""Marker -> test folders, modules and tests, below tests/, that have it; ``make test-fast`` leaves all of them out."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent
    is_wanted = "aarch64" in config.getoption("markexpr")
    for item in items:
        if item.get_closest_marker("aarch64") and not is_wanted:
            item.add_marker(pytest.mark.skip(reason="minutes of emulation: pytest -m aarch64"))
        place = f"{item.path.relative_to(tests).as_posix()}::{item.name}"
        for marker, places in MARKED.items():
            if place.startswith(places):
                item.add_marker(marker)


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """A command that a test runs in this process leaves its handlers, and remembers the signals that came."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    exits._received.clear()


@pytest.fixture(autouse=True)
def _no_pets_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands' default must not depend on who runs the tests."""
    monkeypatch.delenv("PETS_DIR", raising=False)


@pytest.fixture(scope="session")
def pets_dir() -> Path:
    """Oxford-IIIT Pet, as PETS_DIR names it."""
    path = Path(os.environ.get("PETS_DIR", REPOSITORY / "data" / "oxford-iiit-pet"))
    if not (path / "images").is_dir():
        pytest.skip(f"no dataset in {path}: set PETS_DIR to Oxford-IIIT Pet's folder")
    return path


@pytest.fixture(scope="session")
def sample_photo() -> Path:
    return REPOSITORY / "runtime" / "unet_runtime" / "samples" / "chelsea.jpg"


@pytest.fixture(scope="session")
def colour_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colour_model(tmp_path_factory.mktemp("model") / "colours.onnx", colour_spec())


@pytest.fixture(scope="session")
def chromium() -> Path:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium: apt install chromium")
    return Path(program)


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its event loop leaves some behind
        with api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=str(chromium),
                args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--allow-file-access-from-files"],
                timeout=180_000,
            )
            yield browser
            browser.close()


@pytest.fixture
def stripes() -> np.ndarray:
    """uint8 (40, 60, 3): left third red, middle green, right blue."""
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:, :20, 0] = 255
    picture[:, 20:40, 1] = 255
    picture[:, 40:, 2] = 255
    return picture
