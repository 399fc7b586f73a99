"""The one photo of a form (``multipart/form-data``), as ``curl --form`` and browsers send it, and its text fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from unet_runtime.serve.refusals import BAD_REQUEST, RefusalError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MOST_PARTS = 16
_LONGEST_FIELD = 1000  # bytes
_EXPECTED = "expected a form with one file: curl --form photo=@photo.jpg"


class Form(NamedTuple):
    photo: bytes
    file_name: str
    """As the client says; never a path to open."""
    fields: dict[str, str]


class _Part:
    def __init__(self) -> None:
        self.disposition = b""
        self.name = ""
        self.file_name: str | None = None
        self.pieces: list[bytes] = []
        self.length = 0


def read_form(body: bytes, content_type: str) -> Form:
    """Read a form.

    Raises:
        RefusalError: no form, cut off, or with no file or several.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise RefusalError(BAD_REQUEST, f"a form whose Content-Type has no boundary, {_EXPECTED}")
    reader = _Reader()
    try:
        parser = MultipartParser(boundary, reader.callbacks())
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise RefusalError(BAD_REQUEST, f"a damaged form ({error}), {_EXPECTED}") from error
    if not reader.is_complete:
        raise RefusalError(BAD_REQUEST, f"a form that is cut off, {_EXPECTED}")
    return _form(reader.parts)


def _form(parts: list[_Part]) -> Form:
    photos = [part for part in parts if part.file_name is not None]
    if len(photos) != 1:
        raise RefusalError(BAD_REQUEST, f"a form with {len(photos)} files, {_EXPECTED}")
    fields = {}
    for part in parts:
        if part.file_name is None:
            fields[part.name] = b"".join(part.pieces).decode("utf-8", "replace").strip()
    return Form(b"".join(photos[0].pieces), photos[0].file_name or "", fields)


class _Reader:
    """Collects what the parser finds."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.is_complete = False
        self._header = b""
        self._value = b""

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_name,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add_data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) >= _MOST_PARTS:
            raise ValueError(f"more than {_MOST_PARTS} parts")
        self.parts.append(_Part())

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self.parts[-1].disposition = self._value
        self._header = self._value = b""

    def _end_headers(self) -> None:
        part = self.parts[-1]
        options = parse_options_header(part.disposition)[1]
        part.name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" in options:
            part.file_name = options[b"filename"].decode("utf-8", "replace")

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        part = self.parts[-1]
        part.length += end - start
        if part.file_name is None and part.length > _LONGEST_FIELD:
            raise ValueError(f"a text field of more than {_LONGEST_FIELD} bytes")
        part.pieces.append(data[start:end])

    def _end(self) -> None:
        self.is_complete = True
