"""Who may ask: by token, by the name that a browser believes to talk to, and by the page that asks."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.datastructures import Headers

from unet_runtime.io import web_access
from unet_runtime.serve.refusals import FORBIDDEN, UNAUTHORIZED, RefusalError

OPEN_PATHS = ("/v2/health/live", "/v2/health/ready")
"""What a watchdog asks, which has no token; it learns nothing but that."""

_BEARER = "bearer "


@dataclass(frozen=True)
class Guard:
    """What decides.

    Args:
        token: what clients must know; empty: nothing.
        names: names of this machine that a Host header may have, beside numbers; not asked where there is a token.
        origins: pages of others that may ask, as browsers write them (``https://example.org``); ``*``: any.
        port: which the cookie is called after, as a browser shares cookies among a machine's ports.
    """

    token: str = ""
    names: frozenset[str] = frozenset({"localhost"})
    origins: tuple[str, ...] = ()
    port: int = field(default=0)

    @property
    def cookie(self) -> str:
        """Name of the cookie that keeps the token of the page's address."""
        return f"unet-serve-{self.port}"

    def check(self, method: str, path: str, headers: Headers, token: str) -> None:
        """Let a request pass, or not.

        Args:
            method: of HTTP.
            path: of the address.
            headers: of the request.
            token: of the address; empty where it has none.

        Raises:
            RefusalError: not one of ours.
        """
        if path in OPEN_PATHS:
            return
        if self.token:
            is_preflight = bool(self.origins) and method == "OPTIONS"  # browsers send no token with it
            if not is_preflight and not web_access.is_token(self._given(headers, token), self.token):
                raise RefusalError(
                    UNAUTHORIZED, "no token, or a wrong one, expected the header Authorization: Bearer TOKEN"
                )
        elif not web_access.is_address(headers.get("host", ""), set(self.names)):
            host = headers.get("host", "")[:100]
            raise RefusalError(FORBIDDEN, f"Host {host!r} is no name of this service: allow it with --allow-host")
        self._check_page(path, headers)

    def _given(self, headers: Headers, token: str) -> str:
        authorization = headers.get("authorization", "")
        if authorization.lower().startswith(_BEARER):
            return authorization[len(_BEARER) :].strip()
        return token or web_access.cookie(headers.get("cookie", ""), self.cookie)

    def _check_page(self, path: str, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is not None and (origin in self.origins or "*" in self.origins):
            return
        is_ours = origin is None or web_access.authority(origin) == headers.get("host", "")
        is_direct = path == "/" or headers.get("sec-fetch-site", "none") in ("same-origin", "none")
        if not (is_ours and is_direct):
            raise RefusalError(FORBIDDEN, "asked by a page of another site: allow it with --allow-origin")
