"""Which models there are, by name and version; micro-batches."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.serving import serving
from unet_runtime import BackendError, ModelFileError, Segmenter
from unet_runtime.serve.batches import Batches
from unet_runtime.serve.models import Models, Named, find_models, load_models
from unet_runtime.serve.refusals import RefusalError


def load(path: Path | None, threads: int | None) -> Segmenter:
    return Segmenter(path, threads=threads)


@pytest.fixture
def repository(tmp_path: Path, colour_model: Path) -> Path:
    """Folders as Triton has them, and a file of its own."""
    for place in ("cats/1/model.onnx", "cats/12/model.onnx", "dogs/3/x.onnx", "Größe 5.onnx"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(colour_model, tmp_path / place)
    (tmp_path / "cats/config.pbtxt").write_text('name: "cats"')
    (tmp_path / "notes").mkdir()
    return tmp_path


def test_a_folder_is_a_repository(repository: Path) -> None:
    found = [(entry.name, entry.version) for entry in find_models([str(repository)])]
    assert sorted(found) == [("Gr--e-5", "1"), ("cats", "1"), ("cats", "12"), ("dogs", "3")]


def test_a_folder_of_versions_may_have_a_name(repository: Path) -> None:
    found = find_models([f"felines={repository / 'cats'}", str(repository / "dogs")])
    assert [(entry.name, entry.version) for entry in found] == [("felines", "1"), ("felines", "12"), ("dogs", "3")]


def test_the_highest_version_is_the_default(repository: Path) -> None:
    models = load_models(find_models([str(repository)]), load, 1, 1)
    assert models.find("cats").version == "12"
    assert models.find("cats", "1").version == "1"
    assert models.versions("cats") == ["1", "12"]
    with pytest.raises(RefusalError, match="expected one of 1, 12"):
        models.find("cats", "2")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("absent.onnx", "no such file"),
        ("a/b=absent.onnx", "expected up to 100 letters"),
        ("cats=notes", "expected the versions of cats"),
        ("notes", "expected .onnx or .tflite"),
    ],
)
def test_what_is_no_model(repository: Path, monkeypatch: pytest.MonkeyPatch, given: str, says: str) -> None:
    monkeypatch.chdir(repository)
    with pytest.raises(ModelFileError, match=says):
        find_models([given])


def test_two_of_one_name_are_refused(colour_model: Path) -> None:
    with pytest.raises(ModelFileError, match="NAME=FILE"):
        load_models([Named("a", "1", colour_model), Named("a", "1", colour_model)], load, 1, 1)


def test_a_damaged_model_is_refused(tmp_path: Path, colour_model: Path) -> None:
    content = bytearray(colour_model.read_bytes())
    content[40] ^= 1
    (tmp_path / "damaged.onnx").write_bytes(content)
    with pytest.raises(ModelFileError):
        load_models(find_models([str(tmp_path / "damaged.onnx")]), load, 1, 1)


def test_several_models_are_served(repository: Path, photo: bytes, tmp_path: Path) -> None:
    (repository / "Größe 5.onnx").unlink()
    with serving(tmp_path, "--model", repository) as service:
        assert service.post("/segment?model=dogs", photo).headers["x-model"] == "dogs/3"
        assert service.post("/segment?model=cats&version=1", photo).headers["x-model"] == "cats/1"
        assert service.get("/v2/models/cats").json["versions"] == ["1", "12"]
        assert service.get("/v2/models/cats/versions/12/ready").status == 200
        assert len(service.get("/models").json["models"]) == 3


def test_a_failing_engine_is_not_ready(colour_model: Path) -> None:
    models: Models = load_models([Named("a", "1", colour_model)], load, 1, 1)
    model = models.find()
    with pytest.raises(BackendError):
        model.infer(np.zeros((1, 5, 5, 3), np.uint8))
    assert not model.state()["ready"]
    model.infer(np.zeros((1, 32, 32, 3), np.uint8))
    assert model.state()["ready"]


def test_each_caller_of_a_batch_gets_its_own() -> None:
    sizes = []
    first_runs, may_end = threading.Event(), threading.Event()

    def infer(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        first_runs.set()
        may_end.wait(60)
        return images.astype(np.float32)

    batches = Batches(infer, most=4)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batches.infer, np.full((1, 2, 2, 3), 99, np.uint8))
        assert first_runs.wait(60)
        others = [pool.submit(batches.infer, np.full((1, 2, 2, 3), value, np.uint8)) for value in range(6)]
        while len(batches._waiting) < 6:
            pass
        may_end.set()
        assert first.result(60).max() == 99
        assert [other.result(60).max() for other in others] == list(range(6))
    assert sizes == [1, 4, 2]


def test_an_error_reaches_all_of_a_batch() -> None:
    def infer(images: np.ndarray) -> np.ndarray:
        raise BackendError("the device is gone")

    batches = Batches(infer)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(batches.infer, np.zeros((1, 2, 2, 3), np.uint8)) for _ in range(4)]
        for call in calls:
            with pytest.raises(BackendError):
                call.result(60)
