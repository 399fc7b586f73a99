"""Files that describe themselves, and damage found before an engine sees it."""

from __future__ import annotations

import hashlib
import io
import os
import random
import time
import zipfile
from pathlib import Path

import onnx
import onnxruntime
import pytest

from tests.helpers.colours import colour_model_bytes, colour_spec
from tests.helpers.memory import traced_peak
from unet_runtime import ModelFileError
from unet_runtime.core.artifact import (
    append_to_onnx,
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


def _with_digest(body: bytes) -> bytes:
    return body + hashlib.sha256(body).hexdigest().encode()


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("a.onnx", b"\x80" * 3_000_000, "protobuf number"),
        ("a.onnx", b"\x0a\xff\xff\xff\xff\x7f" + b"x" * 100, "longer than the file"),
        ("a.onnx", b"\x0b" * 100, "wire type 3"),
        ("a.onnx", b"\x08\x01" * 400_000, "protobuf|carries no model spec"),
        ("a.tflite", b"PK\x05\x06" + bytes(18), "carries no model spec"),
    ],
)
def test_lengths_that_lie(name: str, body: bytes, message: str, tmp_path: Path) -> None:
    """In little time of this thread: a number of three million bytes took 75 seconds and 2 GB."""
    (tmp_path / name).write_bytes(_with_digest(body))
    start = time.thread_time()
    with pytest.raises(ModelFileError, match=message):
        read_artifact(tmp_path / name)
    assert time.thread_time() - start < 5


@pytest.mark.parametrize("suffix", [".tflite", ".keras"])
def test_a_spec_that_unpacks_to_gigabytes_is_not_unpacked(suffix: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("unet_edge.json", "w", force_zip64=True) as entry:
            for _ in range(300):
                entry.write(bytes(1 << 20))
        archive.comment = bytes(64)
    path = tmp_path / f"bomb{suffix}"
    path.write_bytes(_with_digest(buffer.getvalue()[:-64]))
    with pytest.raises(ModelFileError, match=r"unet_edge\.json has more than"):
        read_artifact(path)
    setup = "from unet_runtime import ModelFileError\nfrom unet_runtime.core.artifact import read_artifact"
    work = "try:\n    read_artifact(Path(sys.argv[1]))\nexcept ModelFileError:\n    pass"
    assert traced_peak(setup, work, path) < 20e6


def test_only_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "zero.onnx").symlink_to("/dev/zero")
    (tmp_path / "loop.onnx").symlink_to("loop.onnx")
    for name in ("pipe.onnx", "zero.onnx", "loop.onnx", "x" * 300 + ".onnx", "a\0b.onnx"):
        with pytest.raises(ModelFileError, match="model file cannot be read"):
            read_artifact(tmp_path / name)


def test_a_file_larger_than_any_model(tmp_path: Path) -> None:
    with (tmp_path / "huge.onnx").open("wb") as file:
        file.truncate(1 << 40)  # a hole
    with pytest.raises(ModelFileError, match="expected fewer than"):
        read_artifact(tmp_path / "huge.onnx")


def _external(kind: str) -> bytes:
    """A model with a tensor whose values are in weights.bin: an initializer, or deep in a branch of an If."""
    tensor = onnx.TensorProto(data_type=1, dims=[3], name="w", data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights.bin")
    model = onnx.load_from_string(colour_model_bytes(colour_spec()))
    if kind == "initializer":
        model.graph.initializer.append(tensor)
    elif kind == "sparse":
        model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    elif kind == "function":
        constant = onnx.helper.make_node("Constant", [], ["w"], value=tensor)
        model.functions.append(onnx.helper.make_function("own", "F", [], ["w"], [constant], []))
    else:
        constant = onnx.helper.make_node("Constant", [], ["w"], value=tensor)
        branch = onnx.helper.make_graph([constant], "branch", [], [])
        model.graph.node.append(onnx.helper.make_node("If", ["c"], ["w"], then_branch=branch, else_branch=branch))
    content: bytes = model.SerializeToString()
    return content


@pytest.mark.parametrize("kind", ["initializer", "sparse", "branch", "function"])
def test_weights_in_another_file_are_refused(kind: str, tmp_path: Path) -> None:
    """An engine would read them from the working directory, and no digest covers them."""
    (tmp_path / "model.onnx").write_bytes(append_to_onnx(_external(kind), colour_spec()))
    with pytest.raises(ModelFileError, match="external data"):
        read_artifact(tmp_path / "model.onnx")


def test_names_like_those_of_external_data_are_allowed(tmp_path: Path) -> None:
    model = onnx.load_from_string(colour_model_bytes(colour_spec()))
    model.graph.initializer[0].doc_string = "its location: here"
    (tmp_path / "model.onnx").write_bytes(append_to_onnx(model.SerializeToString(), colour_spec()))
    assert read_artifact(tmp_path / "model.onnx").spec == colour_spec()


@pytest.mark.parametrize("sums", ["[]", "3", '["' * 200_000, "{", '{"a": 3}'])
def test_a_saved_model_whose_sums_are_none(sums: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    write_saved_model_spec(tmp_path, colour_spec())
    (tmp_path / "assets.extra" / "SHA256SUMS").write_text(sums)
    with pytest.raises(ModelFileError):
        read_saved_model_spec(tmp_path)
