"""The format triton: a repository that Triton's own schema parses, and whose model unet-serve gives to its client."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import tiny
from tests.helpers.serving import serving
from unet_export.errors import ExportError
from unet_export.formats import FORMATS
from unet_export.formats.triton import config
from unet_export.photos import PhotoSource
from unet_export.pipeline import ExportOptions, export_model
from unet_runtime.core.geometry import model_input
from unet_runtime.core.photo import open_photo
from unet_runtime.core.spec import ModelSpec


@pytest.fixture(scope="module")
def repository(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton") / "out"
    (result,) = export_model(tiny.SOFTMAX_FILE, PhotoSource(data), folder, ExportOptions(("triton",)))
    assert result.passed
    return result.path


def test_its_files_are_those_of_a_model_repository(repository: Path) -> None:
    assert repository.name == f"tiny-{tiny.SIZE}.triton"
    names = {path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file()}
    expected = {"tiny/config.pbtxt", "tiny/labels.txt", "tiny/unet_edge.json", "tiny/1/model.onnx", "SHA256SUMS"}
    assert names == expected
    assert (repository / "tiny" / "labels.txt").read_text().split() == list(tiny.SPEC.class_names)
    assert ModelSpec.from_json((repository / "tiny" / "unet_edge.json").read_text()).classes == tiny.SPEC.classes


def test_tritons_own_schema_parses_its_configuration(repository: Path) -> None:
    text_format = pytest.importorskip("google.protobuf.text_format")
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    found = text_format.Parse((repository / "tiny" / "config.pbtxt").read_text(), schema.ModelConfig())
    assert (found.name, found.platform, found.max_batch_size) == ("tiny", "onnxruntime_onnx", 16)
    assert (found.input[0].name, list(found.input[0].dims)) == ("image", [tiny.SIZE, tiny.SIZE, 3])
    assert (found.output[0].name, list(found.output[0].dims)) == ("probabilities", [tiny.SIZE, tiny.SIZE, 3])
    assert found.output[0].label_filename == "labels.txt"


def test_a_file_that_an_optimiser_gets_wrong_is_not_optimised() -> None:
    """Triton knows levels alone; 2 is none of them."""
    text_format = pytest.importorskip("google.protobuf.text_format")
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    for disabled in ((), ("Pad_Fusion",), ("all",)):
        text = config(replace(tiny.SPEC, disabled_optimizers=disabled))
        found = text_format.Parse(text, schema.ModelConfig())
        assert found.optimization.graph.level == (2 if disabled else 0)


def test_a_triton_client_gets_its_model_from_unet_serve(repository: Path, data: Path, tmp_path: Path) -> None:
    triton = pytest.importorskip("tritonclient.http")
    photo = next((data / "images").glob("test*.jpg"))
    images = model_input(open_photo(photo), tiny.SPEC.input)
    with serving(tmp_path, "--model", repository) as service:
        client = triton.InferenceServerClient(f"127.0.0.1:{service.port}")
        image = triton.InferInput("image", list(images.shape), "UINT8")
        image.set_data_from_numpy(images)
        probabilities = client.infer("tiny", [image], model_version="1").as_numpy("probabilities")
        client.close()
    assert np.allclose(probabilities.sum(axis=-1), 1, atol=1e-5)


def test_a_changed_repository_fails_its_check(repository: Path) -> None:
    FORMATS["triton"].check(repository)
    labels = repository / "tiny" / "labels.txt"
    before = labels.read_text()
    labels.write_text("cat\n")
    with pytest.raises(ExportError, match="SHA256SUMS"):
        FORMATS["triton"].check(repository)
    labels.write_text(before)


@pytest.mark.parametrize("option", ["dynamic", "labels"])
def test_options_of_other_files_are_refused(option: str, data: Path, tmp_path: Path) -> None:
    options: Any = {option: True}
    with pytest.raises(ExportError, match="leave out --dynamic and --labels"):
        export_model(tiny.SOFTMAX_FILE, PhotoSource(data), tmp_path / "out", ExportOptions(("triton",), **options))
