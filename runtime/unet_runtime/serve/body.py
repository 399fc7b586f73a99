"""Receive a request's body: within limits of length and time, and of all bodies together."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter

from starlette.requests import ClientDisconnect, Request

from unet_runtime.serve.limits import Limits
from unet_runtime.serve.metrics import Metrics
from unet_runtime.serve.refusals import (
    BAD_REQUEST,
    TIMEOUT,
    TOO_LARGE,
    TOO_MANY,
    UNSUPPORTED,
    GoneError,
    RefusalError,
)

_RETRY = 2  # seconds
_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class Bodies:
    """All bodies in memory, of requests and of responses: a request finds room for at most ``limits.all_bodies`` bytes.

    Responses count because slow clients may leave many of them untaken.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._held = 0

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request, whose bytes count for the length of the block.

        Raises:
            RefusalError: too long, too slow, wrongly compressed, or no room for it now.
            GoneError: the client has hung up.
        """
        start = perf_counter()
        content = bytearray()
        try:
            try:
                async with asyncio.timeout(self._limits.body_seconds):
                    await self._fill(content, request)
            except TimeoutError as error:
                self._metrics.refuse("slow body")
                raise RefusalError(TIMEOUT, f"no whole body within {self._limits.body_seconds:g} seconds") from error
            except ClientDisconnect as error:
                raise GoneError from error
            self._metrics.add("body", perf_counter() - start)
            body = bytes(content)
            encoding = request.headers.get("content-encoding", "identity").strip().lower()
            yield body if encoding == "identity" else self._unpacked(body, encoding)
        finally:
            self._held -= len(content)

    @contextmanager
    def hold(self, length: int) -> Iterator[None]:
        """Count the bytes of a response for the length of the block."""
        self._held += length
        try:
            yield
        finally:
            self._held -= length

    async def _fill(self, content: bytearray, request: Request) -> None:
        self._check_length(request)
        async for chunk in request.stream():
            if len(content) + len(chunk) > self._limits.body:
                raise self._too_long(f"more than {len(content):,}")
            if self._held + len(chunk) > self._limits.all_bodies:
                self._metrics.refuse("bodies full")
                raise RefusalError(TOO_MANY, "too many bytes are being received and sent: try again later", _RETRY)
            content += chunk
            self._held += len(chunk)

    def _check_length(self, request: Request) -> None:
        """Refuse what its head already says is too long."""
        length = request.headers.get("content-length", "")
        if length.isascii() and length.isdecimal() and (len(length) > 15 or int(length) > self._limits.body):
            raise self._too_long(length)

    def _too_long(self, length: str) -> RefusalError:
        return RefusalError(TOO_LARGE, f"a body of {length[:30]} bytes, at most {self._limits.body:,} are taken")

    def _unpacked(self, body: bytes, encoding: str) -> bytes:
        if encoding not in _WINDOW:
            raise RefusalError(
                UNSUPPORTED, f"a body of Content-Encoding {encoding[:40]!r}, expected none, gzip or deflate"
            )
        unpack = zlib.decompressobj(_WINDOW[encoding])
        try:
            content = unpack.decompress(body, self._limits.body)
        except zlib.error as error:
            raise RefusalError(BAD_REQUEST, f"a body that is no {encoding} ({error})") from error
        if unpack.unconsumed_tail:
            raise self._too_long(f"more than {self._limits.body:,} unpacked")
        if not unpack.eof:
            raise RefusalError(BAD_REQUEST, f"a body whose {encoding} is cut off: send it whole")
        return content
