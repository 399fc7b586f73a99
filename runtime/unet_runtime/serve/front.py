"""The outermost layer: who may ask, headers of every response, metrics, one line of log for each request."""

from __future__ import annotations

import asyncio
import logging
import traceback
from time import perf_counter
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unet_runtime.core.text import one_line
from unet_runtime.io import web_access
from unet_runtime.serve.body import Bodies
from unet_runtime.serve.metrics import Metrics
from unet_runtime.serve.refusals import BAD_REQUEST, FAILED, HEAD_TOO_LARGE, TIMEOUT, RefusalError
from unet_runtime.serve.security import Guard

logger = logging.getLogger(__name__)

ROUTE = "unet.route"
"""Key of a request's scope: the pattern of its address, for the metrics."""

MAX_HEAD = 32_768
"""Bytes of a request's head."""

_PIECE = 1 << 18  # bytes
_DRAIN_BYTES = 64_000_000
_DRAIN_SECONDS = 10.0
_LATE_DRAIN_SECONDS = 2.0  # of a body that has taken too long already


class Front:
    """Wraps the application; draining tells whether the service is about to end."""

    def __init__(self, app: ASGIApp, guard: Guard, metrics: Metrics, bodies: Bodies) -> None:
        self.bodies = bodies
        self._app = app
        self._guard = guard
        self._metrics = metrics
        self.is_draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self)
        start = perf_counter()
        await self._answer(scope, exchange)
        seconds = perf_counter() - start
        self._metrics.count(scope.get(ROUTE, "other"), exchange.status, seconds)
        client = (scope.get("client") or ("-",))[0]
        logger.info(
            "%s %s %s %d %d bytes %.1f ms",
            client,
            scope["method"],
            scope["path"][:200],
            exchange.status,
            exchange.sent,
            seconds * 1000,
        )

    async def _answer(self, scope: Scope, exchange: _Exchange) -> None:
        headers = Headers(scope=scope)
        try:
            try:
                _check_head(scope)
                self._guard.check(scope["method"], scope["path"], headers, _token(scope))
                await self._app(scope, exchange.receive, exchange.send)
            except RefusalError as refusal:
                await refusal.response()(scope, exchange.receive, exchange.send)
        except Exception as error:
            logger.error("internal error: %s: %s", type(error).__name__, one_line(error))
            logger.debug("%s", "".join(traceback.format_exception(error)))
            if not exchange.is_started:
                failed = RefusalError(FAILED, "an error that nobody expected: see the service's log")
                await failed.response()(scope, exchange.receive, exchange.send)


def _check_head(scope: Scope) -> None:
    """Refuse what uvicorn lets pass."""
    if scope["http_version"] not in ("1.0", "1.1"):
        raise RefusalError(BAD_REQUEST, f"HTTP/{scope['http_version']}, expected HTTP/1.1")
    length = len(scope["raw_path"]) + len(scope["query_string"])
    for name, value in scope["headers"]:
        length += len(name) + len(value)
    if length > MAX_HEAD:
        raise RefusalError(HEAD_TOO_LARGE, f"a head of {length:,} bytes, at most {MAX_HEAD:,} are taken")


def _token(scope: Scope) -> str:
    query: bytes = scope["query_string"]
    try:
        return parse_qs(query.decode("ascii", "replace"), max_num_fields=32).get("token", [""])[0]
    except ValueError:  # too many fields
        return ""


class _Exchange:
    """One request and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, front: Front) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._front = front
        self._is_received = False
        self.is_started = False
        self.status = 0
        self.sent = 0

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._is_received = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._drain(_LATE_DRAIN_SECONDS if message["status"] == TIMEOUT else _DRAIN_SECONDS)
            self.is_started = True
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in web_access.HEADERS.items():
                headers.setdefault(name, value)
            if self._front.is_draining or not self._is_received:
                headers["Connection"] = "close"
            await self._send(message)
        else:
            await self._send_body(message)

    async def _send_body(self, message: Message) -> None:
        """In pieces: the server waits between two while its client does not take them."""
        body, more = message.get("body", b""), message.get("more_body", False)
        self.sent += len(body)
        with self._front.bodies.hold(len(body)):
            for start in range(0, max(1, len(body)), _PIECE):
                is_last = start + _PIECE >= len(body)
                piece = {**message, "body": body[start : start + _PIECE], "more_body": more or not is_last}
                await self._send(piece)

    async def _drain(self, seconds: float) -> None:
        """Take what is left of the body: who still sends does not look for a response, and would lose it."""
        headers = Headers(scope=self._scope)
        if self._is_received or headers.get("expect", "").lower() == "100-continue":
            return
        left = _DRAIN_BYTES
        try:
            async with asyncio.timeout(seconds):
                while not self._is_received and left > 0:
                    left -= len((await self.receive()).get("body", b""))
        except TimeoutError:
            return
