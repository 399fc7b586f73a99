"""Addresses of cameras: what may be shown of them, and what is sent to whom.

A password stands in an address (``rtsp://name:password@host/stream``, ``?password=...``), and people write it as it is,
with all its ``@``, ``/`` and ``?``. It is shown nowhere, and it goes to its own host alone.
"""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from unet_runtime.core.errors import SourceError

_SECRET = re.compile(r"((?:pas|pw|token|secret|key|auth|sig|cred|sess)[^=&/?;]*=)[^&]*", re.IGNORECASE)
"""``?pwd=...``, ``&token=...``, and ``/user=admin_password=..._channel=1`` as some cameras have it."""

_HIDDEN = r"\1***"

ENCODE = (
    "write @ : / ? # % and spaces of a name, a password or a path as %40 %3A %2F %3F %23 %25 and %20: "
    "rtsp://admin:p%40ss@10.0.0.7:554/stream"
)
"""Advice for people whose password has such a character."""


def shown_address(text: str) -> str:
    """What may be shown of an address, or of a text that was meant as one; a text without a secret stays as it is.

    Hides too much rather than too little: all before the last ``@`` counts as name and password, where it can be one.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    rest = _SECRET.sub(_HIDDEN, rest)
    login, at, host = rest.rpartition("@")
    if at and ":" in login:
        rest = f"{login.partition(':')[0]}:***@{host}"
    return scheme + separator + rest


def meant_address(text: str) -> str:
    """The address that a text with a typing error is likely meant as; any other text as it is.

    Example:
        >>> meant_address("rtsp:/10.0.0.7/stream"), meant_address("htttp//host/x.jpg"), meant_address("photo.jpg")
        ('rtsp://10.0.0.7/stream', 'http://host/x.jpg', 'photo.jpg')
    """
    found = _SCHEME.match(text)
    if found is None:
        return text
    scheme, separator = found.group(1).lower(), found.group(2)
    rest = text[found.end() :].lstrip("/")
    if scheme not in _KNOWN:
        near = difflib.get_close_matches(scheme, _USUAL, 1, _ALIKE)
        if not near:
            return text
        scheme = near[0]
    elif separator == ":" and rest[:1].isdecimal() and "/" not in rest:  # a host "rtsp" and its port
        return text
    return f"{scheme}://{rest}"


def named_file(text: str) -> str:
    """The path that a ``file:`` address names; empty for any other text."""
    if not text.lower().startswith("file:/"):
        return ""
    rest = text[len("file:") :]
    path = unquote(rest.lstrip("/"))
    return path if len(rest) - len(rest.lstrip("/")) == _SLASHES else f"/{path}"


_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)(://|:/|//|:)", re.IGNORECASE)
_USUAL = ("rtsp", "rtsps", "http", "https", "rtmp")
_KNOWN = frozenset(
    {*_USUAL, "rtspt", "rtspu", "rtmps", "rtmpe", "rtmpt", "rtp", "srtp", "udp", "tcp", "srt", "mms", "ftp"}
)
_ALIKE = 0.75  # of 1: "htttp" and "rstp" are, "c" and "photo" are not
_SLASHES = 2  # file://name: what others take for a host


class Address(NamedTuple):
    """A camera's address, taken apart."""

    url: str
    """As FFmpeg takes it, an ``@`` in the password encoded."""
    bare: SplitResult
    """Without name and password."""
    login: str
    """``name:password``, decoded; empty where there is none."""


def parse_address(text: str) -> Address:
    """Take an address apart.

    Raises:
        SourceError: it is none, or one that others read in another way than it is meant; the message hides its secrets.
    """
    problem = ""
    try:
        parts = urlsplit(text)
        if parts.port == 0:
            problem = "port 0"
    except ValueError:
        raise _refused(
            text, "its host, port or brackets"
        ) from None  # the parser's words hold what it could not read: a password
    before, at, _ = text.partition("://")[2].rpartition("@")
    login, _, host = parts.netloc.rpartition("@")
    if any(character.isspace() or not character.isprintable() for character in text):
        problem = "it has spaces or control characters"
    elif at and before != login and ":" in before:
        problem = "its last @ comes after a /, ? or #"
    elif not parts.hostname and parts.scheme in _WITH_HOST:
        problem = "it names no host"
    if problem:
        raise _refused(text, problem)
    encoded = login.replace("@", "%40")
    url = parts._replace(netloc=f"{encoded}@{host}" if login else host).geturl() if "@" in login else text
    url = parts.scheme + url[len(parts.scheme) :]  # FFmpeg knows lower case alone
    return Address(url, parts._replace(netloc=host), unquote(login))


_WITH_HOST = frozenset({"rtsp", "rtsps", "http", "https", "rtmp", "rtmps"})


def _refused(text: str, problem: str) -> SourceError:
    return SourceError(
        f"{shown_address(text)}: no address ({problem}), expected one such as rtsp://10.0.0.7:554/stream; {ENCODE}"
    )
