"""What the live view and unet-serve share: the head of their pages, and who may ask them (addresses, tokens).

Browsers send what shows whose page asks: Host is the name they believe to talk to (a number cannot be rebound), Origin
and Sec-Fetch-Site say where the page comes from.
"""

from __future__ import annotations

import hmac
import secrets
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
"""Headers of every response: no other page may show or read anything here, and ours load nothing from elsewhere."""

_HEAD = "io/head.html"

_TOKEN_BYTES = 18
_ALL_ADDRESSES = ("", "0.0.0.0", "::")


def read_page(path: Path) -> bytes:
    """A page with the shared head (colours, icon) in the place of the comment that names it."""
    head = Path(__file__).with_name("head.html").read_text(encoding="utf-8")
    return path.read_text(encoding="utf-8").replace(f"<!-- {_HEAD} -->\n", head).encode()


def new_token() -> str:
    """A random token, fit for an address."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def is_token(given: str, token: str) -> bool:
    """Whether a client gave the token; takes as long wherever the two differ."""
    return hmac.compare_digest(given.encode(errors="replace"), token.encode())


def cookie(header: str, name: str) -> str:
    """The value of a cookie in a Cookie header; empty where it is not there."""
    return f"; {header};".partition(f"; {name}=")[2].partition(";")[0]


def is_private(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def shown(host: str) -> str:
    """The address as a browser takes it; "all addresses" is none, this machine's own name stands for them."""
    if host in _ALL_ADDRESSES:
        return "localhost"
    return f"[{host}]" if ":" in host else host


def is_address(host: str, names: set[str]) -> bool:
    """Whether a Host header is one of ``names``, or a number, with or without a port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name in names:
            return True
        ip_address(name)
    except ValueError:
        return False
    return True


def authority(origin: str) -> str | None:
    """``machine:8080`` of an Origin header ``http://machine:8080``; None where it is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
