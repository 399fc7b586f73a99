"""POST /segment: what it takes, what it gives, and what it says where it cannot."""

from __future__ import annotations

import gzip
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.helpers.serving import Running, form
from unet_runtime import Segmenter


def picture(body: bytes) -> Image.Image:
    return Image.open(io.BytesIO(body))


def png_of(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels, and has a few."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100_000)), (b"IEND", b"")):
        checksum = zlib.crc32(kind + content)
        parts.append(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum))
    return b"".join(parts)


def test_a_photo_as_body_gives_its_cutout(service: Running, photo: bytes) -> None:
    answer = service.post("/segment", photo)
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    assert picture(answer.body).mode == "RGBA"
    assert answer.headers["x-model"] == "colours/1"
    assert answer.headers["x-size"] == "60x40"


@pytest.mark.parametrize("save", ["mask", "palette", "overlay", "cutout", "probabilities", "json"])
def test_each_result_is_that_of_the_library(service: Running, photo: bytes, save: str, colour_model: str) -> None:
    answer = service.post(f"/segment?save={save}", photo)
    assert answer.status == 200
    result = Segmenter(colour_model)(photo)
    if save == "json":
        assert answer.json["areas"]["red"]["pixels"] == int((result.mask == 0).sum())
    elif save == "probabilities":
        assert np.load(io.BytesIO(answer.body))["probabilities"].shape == (40, 60, 3)
    else:
        own = {"mask": result.mask_image, "palette": result.palette_image, "overlay": result.overlay}
        expected = own.get(save, result.cutout)()
        assert np.array_equal(np.asarray(picture(answer.body).convert(expected.mode)), np.asarray(expected))


def test_a_form_gives_the_same(service: Running, photo: bytes) -> None:
    body, kind = form(photo, "../../etc/cat.png", save="json")
    answer = service.post("/segment", body, Content_Type=kind)
    assert answer.status == 200
    assert answer.json["images"][0]["file_name"] == "cat.png"


@pytest.mark.parametrize(
    ("accept", "query", "media_type"),
    [
        ("image/webp", "", "image/webp"),
        ("image/png;q=0.5, image/webp", "", "image/webp"),
        ("application/json", "", "application/json"),
        ("text/html, image/*;q=0.8", "?save=overlay", "image/png"),
        ("image/jpeg", "?save=overlay", "image/jpeg"),
        ("*/*", "?save=overlay&format=webp", "image/webp"),
        ("", "?save=mask&format=tiff", "image/tiff"),
    ],
)
def test_accept_and_format_choose(service: Running, photo: bytes, accept: str, query: str, media_type: str) -> None:
    answer = service.post(f"/segment{query}", photo, Accept=accept)
    assert (answer.status, answer.headers["content-type"]) == (200, media_type)


def test_nothing_found_is_a_result(service: Running, photo: bytes, stripes: np.ndarray) -> None:
    answer = service.post("/segment?save=mask", photo)
    assert answer.headers["x-found"] == '["red"]'
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(stripes[:, 20:40])).save(file, "PNG")
    answer = service.post("/segment", file.getvalue())
    assert (answer.status, answer.headers["x-found"]) == (200, "[]")
    assert picture(answer.body).getextrema()[3] == (0, 0)


def test_edges_may_follow_the_photo(service: Running, photo: bytes, colour_model: str) -> None:
    answer = service.post("/segment?refine=true", photo)
    expected = Segmenter(colour_model)(photo).refined().cutout()
    assert np.array_equal(np.asarray(picture(answer.body)), np.asarray(expected))


def test_a_turned_photo_is_upright(service: Running, stripes: np.ndarray) -> None:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stripes).save(file, "JPEG", exif=exif)
    assert picture(service.post("/segment?save=mask", file.getvalue()).body).size == (40, 60)


def test_a_compressed_body_is_unpacked(service: Running, photo: bytes) -> None:
    assert service.post("/segment", gzip.compress(photo), Content_Encoding="gzip").status == 200
    assert service.post("/segment", zlib.compress(photo), Content_Encoding="deflate").status == 200


def test_no_length_is_needed(service: Running, photo: bytes) -> None:
    head = b"POST /segment?save=mask HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    head += b"Connection: close\r\n\r\n"
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(photo), photo)
    assert service.raw(head + chunks, ends=False).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("query", "headers", "status", "says"),
    [
        ("?save=mesk", {}, 400, "expected one of mask, palette"),
        ("?format=bmp", {}, 400, "can be had as png, webp, tif"),
        ("?colour=red", {}, 400, "expected some of save, format"),
        ("?refine=perhaps", {}, 400, "expected true or false"),
        ("?min_score=2", {}, 400, "from 0 to 1"),
        ("?min_share=nan", {}, 400, "from 0 to 1"),
        ("?model=dogs", {}, 404, "expected one of colours"),
        ("?model=../../etc/passwd", {}, 404, "expected one of colours"),
        ("?version=7", {}, 404, "expected one of 1"),
        ("?save=mask", {"Accept": "image/webp"}, 406, "can be had as image/png, image/tiff"),
        ("", {"Content-Encoding": "br"}, 415, "expected none, gzip or deflate"),
        ("", {"Content-Encoding": "gzip"}, 400, "no gzip"),
        ("", {"Content-Type": "application/json"}, 415, "expected a photo's bytes"),
        ("", {"Content-Type": "multipart/form-data"}, 400, "no boundary"),
        ("", {"Content-Type": "multipart/form-data; boundary=edge"}, 400, "form"),
    ],
)
def test_what_cannot_be_is_said(
    service: Running, photo: bytes, query: str, headers: dict[str, str], status: int, says: str
) -> None:
    answer = service.ask("POST", "/segment" + query, photo, headers)
    assert answer.status == status
    assert says in answer.error


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (b"", 400, "is empty"),
        (b"<html><body>Sign in</body></html>", 400, "HTML page"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 50, 400, ""),
        (png_of(60_000, 60_000), 413, "send a smaller photo"),
        (b"\0" * 51_000_000, 413, "at most 50,000,000"),
    ],
    ids=["empty", "html", "damaged", "bomb", "large"],
)
def test_a_bad_photo_is_the_clients(service: Running, content: bytes, status: int, says: str) -> None:
    answer = service.post("/segment", content)
    assert answer.status == status
    assert says in answer.error


def test_a_bomb_of_gzip_is_not_unpacked(service: Running) -> None:
    answer = service.post("/segment", gzip.compress(b"\0" * 60_000_000, 9), Content_Encoding="gzip")
    assert answer.status == 413


def test_forms_that_are_none(service: Running, photo: bytes) -> None:
    body, kind = form(photo)
    assert "cut off" in service.post("/segment", body[:-20], Content_Type=kind).error
    assert "0 files" in service.post("/segment", b"--edge--\r\n", Content_Type=kind).error
    twice = body.replace(b"--edge--\r\n", b"") + body
    assert "2 files" in service.post("/segment", twice, Content_Type=kind).error
    many = body.replace(b"--edge--\r\n", b"") * 20
    assert "16 parts" in service.post("/segment", many, Content_Type=kind).error
    long = form(photo, save="x" * 2000)[0]
    assert "1000 bytes" in service.post("/segment", long, Content_Type=kind).error


def test_addresses_that_there_are_not(service: Running) -> None:
    assert "no such address" in service.get("/nothing").error
    assert service.get("/segment").status == 405
    assert service.get("/..%2f..%2fetc/passwd").status == 404
    assert service.raw(b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", ends=False)[
        :12
    ] == (b"HTTP/1.1 404")


def test_health_models_and_metrics_tell_the_truth(service: Running, photo: bytes) -> None:
    service.post("/segment", photo)
    health = service.get("/health").json
    assert health["status"] == "ok"
    assert health["models"][0]["device"] == "cpu"
    assert health["models"][0]["engine"].startswith("ONNX Runtime")
    spec = service.get("/models").json["models"][0]["spec"]
    assert [entry["name"] for entry in spec["classes"]] == ["red", "green", "blue"]
    text = service.get("/metrics").body.decode()
    assert 'unet_requests_total{code="200",route="/segment"}' in text
    for stage in ("body", "queue", "decode", "infer", "encode"):
        assert f'unet_stage_seconds_count{{stage="{stage}"}}' in text
    assert 'unet_model_ready{device="cpu"' in text


def test_the_page_is_there(service: Running) -> None:
    answer = service.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
