"""Files that describe themselves, and damage found before an engine sees it."""

from __future__ import annotations

import random
from pathlib import Path

import onnx
import onnxruntime
import pytest

from tests.conftest import colour_spec
from unet_runtime import ModelFileError
from unet_runtime.core.artifact import (
    append_to_tflite,
    read_artifact,
    read_saved_model_spec,
    write_keras,
    write_saved_model_spec,
)

TRIES = 200


def damaged(content: bytes, seed: int) -> bytes:
    """One flipped bit, a cut, an added byte, or a swapped block."""
    rng = random.Random(seed)
    data = bytearray(content)
    position = rng.randrange(len(data))
    match seed % 4:
        case 0:
            data[position] ^= 1 << rng.randrange(8)
        case 1:
            del data[position:]
        case 2:
            data.insert(position, rng.randrange(256))
        case _:
            data[position : position + 8] = rng.randbytes(8)
    return bytes(data)


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_every_damage_is_refused(suffix: str, colour_model: Path, tmp_path: Path) -> None:
    content = colour_model.read_bytes() if suffix == ".onnx" else append_to_tflite(bytes(5000), colour_spec())
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    assert read_artifact(path).spec == colour_spec()
    for seed in range(TRIES):
        path.write_bytes(damaged(content, seed))
        with pytest.raises(ModelFileError, match=str(path)):
            read_artifact(path)


def test_onnx_stays_onnx(colour_model: Path) -> None:
    model = onnx.load(colour_model)
    onnx.checker.check_model(model)
    assert {entry.key for entry in model.metadata_props} == {"unet_edge", "unet_edge.sha256"}
    meta = onnxruntime.InferenceSession(colour_model).get_modelmeta()
    assert meta.custom_metadata_map["unet_edge"] == colour_spec().to_json()


def test_same_input_same_bytes() -> None:
    assert append_to_tflite(b"flatbuffer", colour_spec()) == append_to_tflite(b"flatbuffer", colour_spec())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.onnx", None, "no such model file"),
        ("empty.onnx", b"", "0 bytes"),
        ("text.onnx", b"hello", "do not end in a SHA-256"),
        ("model.pt", b"x" * 100, "suffix '.pt'"),
    ],
)
def test_no_model(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        read_artifact(path)


def test_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_artifact(tmp_path / "model.onnx")


def test_onnx_of_another_tool(colour_model: Path, tmp_path: Path) -> None:
    model = onnx.load(colour_model)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "plain.onnx")
    with pytest.raises(ModelFileError, match="not made by unet-export"):
        read_artifact(tmp_path / "plain.onnx")


def test_failed_save_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(b"old")

    def fail(name: str) -> None:
        Path(name).write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_keras(fail, path, colour_spec())
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.keras"]


def test_saved_model_folder(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    (tmp_path / "variables" / "data").write_bytes(b"weights")
    write_saved_model_spec(tmp_path, colour_spec())
    assert read_saved_model_spec(tmp_path) == colour_spec()
    (tmp_path / "variables" / "data").write_bytes(b"weightz")
    with pytest.raises(ModelFileError, match="variables/data"):
        read_saved_model_spec(tmp_path)
    with pytest.raises(ModelFileError, match="no SavedModel"):
        read_saved_model_spec(tmp_path / "variables")
