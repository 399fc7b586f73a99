"""How the service says no: an HTTP status and one line, as JSON ``{"error": ...}``, for every client."""

from __future__ import annotations

from PIL import Image
from starlette.responses import JSONResponse

from unet_runtime.core.errors import ImageError, OutputError, UnetRuntimeError
from unet_runtime.core.text import one_line

BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, NOT_ACCEPTABLE = 400, 401, 403, 404, 406
TIMEOUT, TOO_LARGE, UNSUPPORTED, TOO_MANY, FAILED, UNAVAILABLE = 408, 413, 415, 429, 500, 503
HEAD_TOO_LARGE = 431
GONE = 499
"""In the log, as nginx writes it: the client has hung up."""

_MOST_TEXT = 1000


class RefusalError(Exception):
    """A request that gets no result.

    Args:
        status: of HTTP: 4xx where the client can do something about it.
        message: what was received, what was expected and what to do.
        retry_after: seconds after which to try again; None where that would not help.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after

    def response(self) -> JSONResponse:
        """What the client gets."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status == UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"error": one_line(self, _MOST_TEXT)}, self.status, headers)


class GoneError(Exception):
    """The client has gone: nobody waits for a response."""


def refusal_of(error: UnetRuntimeError) -> RefusalError:
    """The refusal that an error of the runtime means: a bad photo is the client's, a failing engine ours."""
    if isinstance(error, ImageError):
        is_large = isinstance(error.__cause__, (Image.DecompressionBombError, MemoryError))
        return RefusalError(TOO_LARGE if is_large else BAD_REQUEST, _without_python(str(error)))
    return RefusalError(BAD_REQUEST if isinstance(error, OutputError) else FAILED, str(error))


def _without_python(message: str) -> str:
    """An error's message for somebody who cannot change the service's settings."""
    return message.removeprefix("input: ").replace(": raise max_pixels if it is safe", ": send a smaller photo")
