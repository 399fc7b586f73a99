"""Addresses of cameras: what may be shown of them, and what is sent to whom.

A password stands in an address (``rtsp://name:password@host/stream``, ``?password=...``), and people write it as it is,
with all its ``@``, ``/`` and ``?``. It is shown nowhere, and it goes to its own host alone.
"""

from __future__ import annotations

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
    return Address(url, parts._replace(netloc=host), unquote(login))


_WITH_HOST = frozenset({"rtsp", "rtsps", "http", "https", "rtmp", "rtmps"})


def _refused(text: str, problem: str) -> SourceError:
    return SourceError(
        f"{shown_address(text)}: no address ({problem}), expected one such as rtsp://10.0.0.7:554/stream; {ENCODE}"
    )
