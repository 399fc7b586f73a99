"""One picture of a camera per HTTP request, and what a camera says that gives none."""

from __future__ import annotations

import time
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPBasicAuthHandler,
    HTTPDigestAuthHandler,
    HTTPPasswordMgrWithDefaultRealm,
    HTTPRedirectHandler,
    OpenerDirector,
    Request,
    build_opener,
)

import numpy as np
import numpy.typing as npt

from unet_runtime.io.addresses import parse_address

_MOST_BYTES = 1 << 26
"""Size of a picture, at most."""
_BLOCK = 1 << 16
_INTERVAL = 1 / 15
"""Seconds from one request to the next, at least."""


class _SameHost(HTTPRedirectHandler):
    """Follows redirects to the same host alone: another one gets neither the password nor the query."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.hostname != old.hostname or (old.scheme, new.scheme) == ("https", "http"):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(address: str) -> tuple[OpenerDirector, str]:
    """What asks an address, and the address without name and password, which follow where the host asks for them."""
    parsed = parse_address(address)
    name, _, password = parsed.login.partition(":")
    manager = HTTPPasswordMgrWithDefaultRealm()
    if parsed.login:
        manager.add_password(None, parsed.bare._replace(path="/", query="", fragment="").geturl(), name, password)
    opener = build_opener(_SameHost, HTTPBasicAuthHandler(manager), HTTPDigestAuthHandler(manager))
    return opener, parsed.bare.geturl()


def refusal(address: str, timeout: float) -> str:
    """``401 Unauthorized`` where the server refuses, words about a redirect to another host; else empty."""
    opener, bare = _opener(address)
    try:
        opener.open(bare, timeout=timeout).close()
    except HTTPError as error:
        error.close()
        if 300 <= error.code < 400:
            return f"{error.code}: it sends to another host, which gets no password: name that one"
        return f"{error.code} {_phrase(error.code)}".strip()
    except (OSError, ValueError, HTTPException):
        pass
    return ""


def _phrase(code: int) -> str:
    """The standard's words for a status: the server's own may be anything."""
    try:
        return HTTPStatus(code).phrase
    except ValueError:
        return ""


def gives_pictures(address: str, timeout: float) -> bool:
    """Whether a request is answered by one picture: a snapshot camera."""
    opener, bare = _opener(address)
    try:
        with opener.open(bare, timeout=timeout) as response:
            kind: str = response.headers.get_content_type()
            return kind.startswith("image/")
    except (OSError, ValueError, HTTPException):
        return False


class Snapshots:
    """A snapshot camera, read as a ``cv2.VideoCapture`` is: a request for each frame.

    Args:
        cv2: the module.
        address: HTTP or HTTPS.
        timeout: seconds for one picture.
    """

    def __init__(self, cv2: Any, address: str, timeout: float) -> None:
        self._cv2 = cv2
        self._opener, self._address = _opener(address)
        self._timeout = timeout
        self._next = 0.0  # monotonic

    def read(self) -> tuple[bool, npt.NDArray[np.uint8] | None]:
        """(whether there is one, uint8 (H, W, 3) BGR)."""
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._next = time.monotonic() + _INTERVAL
        try:
            content = self._fetch(time.monotonic() + self._timeout)
        except (OSError, ValueError, HTTPException):
            return False, None
        if not content:
            return False, None
        picture = self._cv2.imdecode(np.frombuffer(content, np.uint8), self._cv2.IMREAD_COLOR)
        return picture is not None, picture

    def _fetch(self, deadline: float) -> bytes:
        content = b""
        with self._opener.open(self._address, timeout=self._timeout) as response:
            while block := response.read1(_BLOCK):
                content += block
                if len(content) > _MOST_BYTES or time.monotonic() > deadline:
                    return b""
        return content

    def get(self, prop: int) -> float:
        """No property is known."""
        return 0.0

    def release(self) -> None:
        """Nothing is held between two requests."""
