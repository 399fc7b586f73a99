"""Run the service: a socket, uvicorn, and an end that loses nobody."""

from __future__ import annotations

import asyncio
import errno
import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from unet_runtime.core.errors import OutputError
from unet_runtime.core.text import one_line
from unet_runtime.serve.connection import Connection
from unet_runtime.serve.front import MAX_HEAD
from unet_runtime.serve.turns import SharedListener

BACKLOG = 2048
"""Connections that the system keeps until they are accepted."""

_ACCEPTED_AT_ONCE = 64
"""asyncio accepts as many before it does anything else, and tries as often where no file can be opened."""
_KEEP_ALIVE = 20  # seconds
_SETTLE_SECONDS = 1.0
"""Without any news from clients that have connected and not yet asked: a busy machine is slow to read them."""
_LONGEST_SETTLE = 5.0  # seconds
_STEP_SECONDS = 0.05


def open_socket(host: str, port: int) -> socket.socket:
    """Listen.

    Raises:
        OutputError: no address of this machine, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's delays (40 ms a response) off only where the protocol is named.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, ValueError, TypeError) as error:  # a name that no name service takes is a ValueError
        listener.close()
        is_taken = getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES)
        remedy = "name another with --port" if is_taken else "use 127.0.0.1"
        reason = getattr(error, "strerror", None) or one_line(error)
        raise OutputError(f"cannot serve at {host}:{port} ({reason}): {remedy}") from error
    return listener


class Server(uvicorn.Server):
    """uvicorn's server, which ends in this order: not ready, connections that are on their way, their requests."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None], on_end: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start
        self._on_end = on_end

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, and say so."""
        for listener in sockets or ():
            if isinstance(listener, SharedListener):
                listener.begin()
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)
        self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept what waits in the system's queue, read what its clients are sending, answer all, and end."""
        self._on_end()
        await self._settle(sockets or [])
        for listener in sockets or ():
            if isinstance(listener, SharedListener):
                listener.end()
        await super().shutdown(sockets)

    async def _settle(self, sockets: list[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        news, last = loop.time(), loop.time() + _LONGEST_SETTLE
        await asyncio.sleep(2 * _STEP_SECONDS)
        silent = self._silent()
        while (silent or _is_waiting(sockets)) and loop.time() < min(news + _SETTLE_SECONDS, last):
            await asyncio.sleep(_STEP_SECONDS)
            before, silent = silent, self._silent()
            if silent != before:
                news = loop.time()

    def _silent(self) -> set[Connection]:
        found = set()
        for connection in self.server_state.connections:
            if isinstance(connection, Connection) and connection.is_silent:
                found.add(connection)
        return found


def _is_waiting(sockets: list[socket.socket]) -> bool:
    """Whether the system has connections that no process has accepted."""
    return bool(select.select(sockets, [], [], 0)[0])


def serve(
    app: ASGIApp,
    listener: socket.socket,
    *,
    on_start: Callable[[], None],
    on_end: Callable[[], None],
    grace: float,
) -> None:
    """Serve until SIGINT or SIGTERM, and until all requests are answered.

    Args:
        app: the application.
        listener: see ``open_socket``.
        on_start: called when requests are accepted.
        on_end: called first at the end.
        grace: seconds that requests have to be answered at the end.
    """
    config = uvicorn.Config(
        app,
        http=_protocol(listener),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_ACCEPTED_AT_ONCE,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(grace)),
        h11_max_incomplete_event_size=MAX_HEAD,
    )
    server = Server(config, on_start, on_end)
    with _signals_end(server):
        server.run([listener])


def _protocol(listener: socket.socket) -> type[Connection]:
    if not isinstance(listener, SharedListener):
        return Connection
    shared = listener

    class Shared(Connection):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            shared.leave()

    return Shared


@contextmanager
def _signals_end(server: Server) -> Iterator[None]:
    """Have signals end the server, also before it has begun; behind its end, where it raises them again, do nothing."""

    def end(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    kept = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        kept[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
