"""Open Inference Protocol v2, by an independent client (tritonclient), and what its requests may not be."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image

from tests.helpers.serving import TIMEOUT, Running
from unet_runtime import Segmenter

NAME = "colours"
INFER = f"/v2/models/{NAME}/infer"


@pytest.fixture(scope="module")
def client(service: Running) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{service.port}", network_timeout=TIMEOUT) as made:
        yield made


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    """uint8 (2, 32, 32, 3)."""
    return np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(NAME)
    assert client.is_model_ready(NAME, "1")
    assert client.get_server_metadata()["extensions"][0] == "binary_tensor_data"
    metadata = client.get_model_metadata(NAME)
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}]
    assert [entry["name"] for entry in metadata["outputs"]] == ["probabilities", "labels"]
    assert client.get_model_metadata(NAME, "1") == metadata
    assert client.get_model_config(NAME)["input"][0]["dims"] == [32, 32, 3]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_raw_tensors(
    client: Any, batch: np.ndarray, colour_model: str, binary_in: bool, binary_out: bool, compression: str | None
) -> None:
    image = triton.InferInput("image", list(batch.shape), "UINT8")
    image.set_data_from_numpy(batch, binary_data=binary_in)
    wanted = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("probabilities", "labels")]
    result = client.infer(NAME, [image], outputs=wanted, request_id="7", request_compression_algorithm=compression)
    expected = Segmenter(colour_model).infer(batch)
    assert np.array_equal(result.as_numpy("probabilities"), expected)
    assert np.array_equal(result.as_numpy("labels"), expected.argmax(-1))
    assert result.get_response()["id"] == "7"


def test_all_outputs_where_none_is_named(client: Any, batch: np.ndarray) -> None:
    image = triton.InferInput("image", list(batch.shape), "UINT8")
    image.set_data_from_numpy(batch)
    result = client.infer(NAME, [image], model_version="1")
    assert result.as_numpy("probabilities").shape == (2, 32, 32, 3)
    assert result.as_numpy("labels").shape == (2, 32, 32)


def test_encoded_photos(client: Any, photo: bytes, colour_model: str) -> None:
    photos = np.array([photo, photo], dtype=np.object_)
    image = triton.InferInput("image", [2], "BYTES")
    image.set_data_from_numpy(photos)
    names = ("probabilities", "labels", "mask", "json")
    result = client.infer(NAME, [image], outputs=[triton.InferRequestedOutput(name) for name in names])
    expected = Segmenter(colour_model)(photo)
    assert np.array_equal(result.as_numpy("probabilities")[1], expected.probabilities)
    mask = Image.open(io.BytesIO(result.as_numpy("mask")[0]))
    assert np.array_equal(np.asarray(mask), expected.mask)
    assert json.loads(result.as_numpy("json")[1])["images"][0]["width"] == 60


def test_the_client_gets_our_message(client: Any) -> None:
    image = triton.InferInput("image", [1, 8, 8, 3], "UINT8")
    image.set_data_from_numpy(np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(triton.InferenceServerException, match=r"expected \[-1, 32, 32, 3\]"):
        client.infer(NAME, [image])


def tensor(**changed: Any) -> dict[str, Any]:
    entry = {"name": "image", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": [7] * 3072}
    return {"inputs": [{**entry, **changed}]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "no list of one input"),
        ({"inputs": []}, "no list of one input"),
        ([1], "no JSON object"),
        ({**tensor(), "id": 5}, "id"),
        (tensor(name="photo"), "expected 'image'"),
        (tensor(datatype="FP32"), "expected UINT8"),
        (tensor(datatype="BYTES", shape=[1], data=["%%"]), "base64"),
        (tensor(datatype="BYTES", shape=[2], data=["aGFsbG8="]), "1 photos, the shape says 2"),
        (tensor(datatype="BYTES", shape=[1], data=["aGFsbG8="]), "not an image"),
        (tensor(datatype="BYTES", shape=[100_000], data=[]), "at most 64"),
        (tensor(shape=[1, 32, 32]), "expected [-1, 32, 32, 3]"),
        (tensor(shape=[65, 32, 32, 3]), "at most 64"),
        (tensor(shape=[True, 32, 32, 3]), "shape"),
        (tensor(shape=[-1, 32, 32, 3]), "shape"),
        (tensor(shape="huge"), "shape"),
        (tensor(data=[7] * 3071), "expected 3072"),
        (tensor(data=[300] * 3072), "expected 0..255"),
        (tensor(data=[-1] * 3072), "expected 0..255"),
        (tensor(data=[1.5] * 3072), "whole numbers"),
        (tensor(data=[10**30] * 3072), "whole numbers"),
        (tensor(data=["a"] * 3072), "whole numbers"),
        (tensor(data=[[1, 2], [3]]), "no tensor"),
        (tensor(data=None), "0 bytes of tensor"),
        (tensor(parameters={"binary_data_size": 9}), "0 bytes behind"),
        (tensor(parameters={"shared_memory_region": "x"}), "shared memory"),
        ({**tensor(), "outputs": [{"name": "depth"}]}, "there are probabilities, labels"),
        ({**tensor(), "outputs": [{"name": "mask"}]}, "of tensors there are"),
        ({**tensor(), "outputs": [{"name": "labels", "parameters": {"classification": 3}}]}, "classification"),
        ({**tensor(), "outputs": 5}, "outputs"),
    ],
)
def test_requests_that_are_none(service: Running, content: Any, says: str) -> None:
    answer = service.post(INFER, json.dumps(content).encode())
    assert answer.status == 400
    assert says in answer.error


@pytest.mark.parametrize(
    ("body", "header"),
    [(b"", None), (b"{", None), (b"[" * 100_000, None), (b"\xff\xfe", None), (b"{}", "9"), (b"{}", "-1"), (b"{}", "x")],
    ids=range(7),
)
def test_bodies_that_are_none(service: Running, body: bytes, header: str | None) -> None:
    headers = {} if header is None else {"Inference-Header-Content-Length": header}
    assert service.ask("POST", INFER, body, headers).status == 400


@pytest.mark.parametrize("rest", [b"\x05", b"\x05\0\0\0ab", b"\xff\xff\xff\xff"])
def test_cut_off_photos(service: Running, rest: bytes) -> None:
    entry = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(rest)}}
    text = json.dumps({"inputs": [entry]}).encode()
    answer = service.post(INFER, text + rest, Inference_Header_Content_Length=str(len(text)))
    assert answer.status == 400


def test_models_that_there_are_not(service: Running) -> None:
    assert service.get("/v2/models/dogs").status == 404
    assert service.get(f"/v2/models/{NAME}/versions/2").status == 404
    assert service.get("/v2/models/..%2f..%2fetc").status == 404
    assert service.post("/v2/models/dogs/infer", b"{}").status == 404
