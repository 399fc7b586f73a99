"""Is there a screen to open a window on? Asked beforehand: without one, window libraries abort the whole process.

An X server is asked itself, with the first request of the X11 protocol: DISPLAY may be left over from a server
that is gone, a tunnel that is cut, or another user's screen.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

_TIMEOUT = 2.0
"""Seconds. A server on this machine answers within milliseconds, one behind a tunnel within some tenths."""

_X_PORT = 6000
_COOKIE = b"MIT-MAGIC-COOKIE-1"


def display_problem() -> str:
    """Why no X11 window can be opened here; empty where one can, and on macOS and Windows, which need no X server."""
    if sys.platform in ("darwin", "win32"):
        return ""
    name = os.environ.get("DISPLAY", "")
    if not name:
        return "there is no display (DISPLAY is not set)"
    try:
        return _refusal(name)
    except OSError as error:
        return f"DISPLAY is {name}, where no X server answers ({error.strerror or error})"


def _refusal(name: str) -> str:
    """What the X server ``name`` has against us; empty if it lets us in.

    Raises:
        OSError: it does not answer.
    """
    match = re.fullmatch(r"(?:.*/)?([^/]*):(\d+)(?:\.\d+)?", name)
    if not match:
        return f"DISPLAY is {name!r}, expected something like :0"
    host, number = match[1], int(match[2])
    if not any(_accepts(host, number, cookie) for cookie in (*_cookies(number), b"")):
        return f"DISPLAY is {name}, whose X server refuses us (is XAUTHORITY right?)"
    return ""


def _accepts(host: str, number: int, cookie: bytes) -> bool:
    """Whether the X server's answer to a connection setup is "success"."""
    name = _COOKIE if cookie else b""
    request = struct.pack("<cxHHHHxx", b"l", 11, 0, len(name), len(cookie)) + _padded(name) + _padded(cookie)
    with _connect(host, number) as connection:
        connection.sendall(request)
        return connection.recv(1) == b"\x01"


def _connect(host: str, number: int) -> socket.socket:
    if host not in ("", "unix"):
        return socket.create_connection((host, _X_PORT + number), timeout=_TIMEOUT)
    path = f"/tmp/.X11-unix/X{number}"
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_TIMEOUT)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        if sys.platform != "linux":
            raise
        # In a container the folder may be missing, while the abstract name of the same server is in reach.
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_TIMEOUT)
        try:
            connection.connect(f"\0{path}")
        except OSError:
            connection.close()
            raise
    return connection


def _cookies(number: int) -> Iterator[bytes]:
    """Secrets for display ``number`` in the Xauthority file: family, then four counted byte strings an entry."""
    path = Path(os.environ.get("XAUTHORITY") or Path.home() / ".Xauthority")
    try:
        data = path.read_bytes()
    except OSError:
        return
    offset = 0
    while offset + 2 <= len(data):
        offset += 2  # the family: which machine an entry is for does not matter, a wrong secret is refused
        parts = []
        for _ in range(4):  # address, display number, name of the method, secret
            (length,) = struct.unpack_from(">H", data.ljust(offset + 2, b"\0"), offset)
            parts.append(data[offset + 2 : offset + 2 + length])
            offset += 2 + length
        if parts[2] == _COOKIE and parts[1] in (b"", str(number).encode()):
            yield parts[3]


def _padded(text: bytes) -> bytes:
    return text + b"\0" * (-len(text) % 4)
