"""A client's connection: what uvicorn leaves open is bounded here.

By itself uvicorn waits for ever for the end of a request's head, and for a client that does not take its response.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 15.0
"""For a request's head, from its first byte, and for the first request of a connection."""

SEND_SECONDS = 30.0
"""Without a byte taken of a response."""

LEAVE_SECONDS = 5.0
"""For a response to a client that sends no more."""

LINGER_SECONDS = 2.0
"""For a client to read why it was refused."""

_CHECK_SECONDS = 1.0

_SPARE_FILES = 48
"""Descriptors that stay free of connections: for engines, decoders, and connections that are being refused."""
_MOST_CONNECTIONS = 10_000


def _response(status: bytes, error: bytes) -> bytes:
    """A whole response, for what never reaches the application."""
    body = b'{"error":"%b"}' % error
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(body)) + body


_BAD_REQUEST = _response(
    b"400 Bad Request", b"no HTTP/1.1 request that can be read, or one that is cut off or has too long a head"
)
_BUSY = _response(b"429 Too Many Requests\r\nRetry-After: 2", b"too many connections: try again later")


def most_connections() -> int:
    """Connections at a time, so that the process keeps some of the files that it may open."""
    try:
        import resource  # not on Windows

        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    except ImportError:
        soft = 512
    return max(1, min(_MOST_CONNECTIONS, soft - _SPARE_FILES)) if soft > 0 else _MOST_CONNECTIONS


class Connection(H11Protocol):
    """uvicorn's protocol with deadlines, and a response to what ends too early."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_since: float | None = self.loop.time()
        self._left = 0
        self._left_since = 0.0
        self._is_lingering = False
        self._check = self.loop.call_later(_CHECK_SECONDS, self._look)
        self._leave: asyncio.TimerHandle | None = None
        over = len(self.connections) - most_connections()
        if over > 0:
            transport.write(_BUSY)
            self._linger()
        if over > _SPARE_FILES // 2:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._check.cancel()
        if self._leave is not None:
            self._leave.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_lingering:
            return
        if self._head_since is None and not self._has_request():
            self._head_since = self.loop.time()
        super().data_received(data)
        if self._has_request():
            self._head_since = None

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answer a request that its client has cut off; for a while, wait for a response that somebody may still take.

        Whoever sends no more has perhaps closed the connection, perhaps its sending half alone: nobody can tell.
        """
        if self._is_lingering or self.transport.is_closing():
            return None
        if self.conn.their_state is h11.SEND_BODY or self.conn.trailing_data[0]:
            self.conn.receive_data(b"")
            self.handle_events()
            return True
        if not self._has_request():
            return None
        self.cycle.keep_alive = False
        self._leave = self.loop.call_later(LEAVE_SECONDS, self.transport.close)
        return True

    @property
    def is_silent(self) -> bool:
        """Whether its client has not sent a whole head yet: it may be on its way."""
        return self.cycle is None

    def _has_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _look(self) -> None:
        self._check = self.loop.call_later(_CHECK_SECONDS, self._look)
        now = self.loop.time()
        left = self.transport.get_write_buffer_size()
        if not left or left != self._left:
            self._left, self._left_since = left, now
        elif now - self._left_since > SEND_SECONDS:
            self.transport.abort()
            return
        if self._head_since is not None and now - self._head_since > HEAD_SECONDS and not self.transport.is_closing():
            self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: an upgrade that is not offered is ignored, as HTTP has it."""

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, unless a response is under way already."""
        if self._has_request():
            is_late = self.cycle.response_started
            self.cycle.disconnected = True  # the application sends nothing more
            self.cycle.message_event.set()
            if is_late:
                self.transport.close()
                return
        self.transport.write(_BAD_REQUEST)
        self._linger()

    def _linger(self) -> None:
        """Close when the client has read the response: what it still sends is dropped, and would undo it otherwise."""
        self._is_lingering = True
        self._head_since = None
        self.transport.write_eof()
        self.flow.resume_reading()
        self._leave = self.loop.call_later(LINGER_SECONDS, self.transport.close)
