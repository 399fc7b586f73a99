"""Requests that no client means: each gets a status of 4xx, and the service goes on without a traceback."""

from __future__ import annotations

import os
import random
import re

import pytest

from tests.helpers.serving import Running, form

COUNT = int(os.environ.get("SERVE_MALFORMED", "300"))
HOST = b"Host: localhost\r\n"


def request(path: bytes, body: bytes, headers: bytes = b"", method: bytes = b"POST") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return method + b" " + path + b" HTTP/1.1\r\n" + HOST + length + headers + b"Connection: close\r\n\r\n" + body


@pytest.mark.parametrize(
    "content",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n" + HOST + b"\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n",
        b"POST /segment HTTP/1.1\r\n" + HOST + b"Content-Length: ten\r\n\r\n",
        b"POST /segment HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n",
        b"POST /segment HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"POST /segment HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999\r\n\r\n",
        b"POST /segment HTTP/1.1\r\n" + HOST + b"Content-Length: 500\r\n\r\nshort",
        b"POST /segment HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /segment HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"POST /segment HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: rot13\r\n\r\n",
        request(b"/%2e%2e/%2e%2e/etc/passwd", b"", method=b"GET"),
        request(b"/segment?model=%00", b"x"),
        request(b"/segment?" + b"a=1&" * 5000, b"x"),
        request(b"/segment?save=" + b"%ff" * 100, b"x"),
        request(b"/v2/models/%00/infer", b"{}"),
        request(b"/v2/models/colours/versions/" + b"9" * 5000, b"", method=b"GET"),
        request(b"/segment", b"x", b"Content-Type: multipart/form-data; boundary=" + b"b" * 5000 + b"\r\n"),
        request(b"/segment", b"x", b"Content-Type: \xff\xff\r\n"),
        request(b"/segment", b"x", b"Accept: " + b"a/b;q=nan," * 500 + b"\r\n"),
        request(b"/segment", b"x", b"Upgrade: websocket\r\n"),
        request(b"/segment", b"x", method=b"BREW"),
        b"CONNECT example.org:443 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://169.254.169.254/latest HTTP/1.1\r\n" + HOST + b"\r\n",
    ],
    ids=range(30),
)
def test_each_is_refused(service: Running, content: bytes) -> None:
    assert re.match(rb"HTTP/1\.1 4\d\d ", service.raw(content))


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Cut off, bytes changed, a piece twice, or a piece left out."""
    kind = rng.randrange(4)
    position = rng.randrange(1, len(content))
    other = min(len(content), position + rng.randrange(1, 40))
    if kind == 0:
        return content[:position]
    if kind == 1:
        changed = bytearray(content)
        for _ in range(rng.randrange(1, 8)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
    if kind == 2:
        return content[:other] + content[position:]
    return content[:position] + content[other:]


def test_random_damage(service: Running, photo: bytes) -> None:
    rng = random.Random(0)
    body, kind = form(photo, save="mask")
    tensor = b'{"inputs":[{"name":"image","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":%d}}]}'
    text = tensor % (len(photo) + 4)
    behind = len(photo).to_bytes(4, "little") + photo
    whole = (
        request(b"/segment?save=json", photo),
        request(b"/segment", body, f"Content-Type: {kind}\r\n".encode()),
        request(b"/v2/models/colours/infer", text + behind, b"Inference-Header-Content-Length: %d\r\n" % len(text)),
    )
    for content in whole:
        assert service.raw(content, ends=False).startswith(b"HTTP/1.1 200 ")
    for index in range(COUNT):
        sent = damaged(whole[index % len(whole)], rng)
        answer = service.raw(sent)
        # Some damage does no harm, as within a picture's text; nothing is answered where nothing was asked.
        assert re.match(rb"HTTP/1\.1 (200|4\d\d) ", answer), (index, sent[:200], answer[:200])
    assert service.get("/health").json["status"] == "ok"
    assert "Traceback" not in service.log()
    assert "internal error" not in service.log()
