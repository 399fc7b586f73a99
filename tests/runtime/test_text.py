"""Names on a terminal and in JSON."""

from __future__ import annotations

import json
import os

import pytest

from unet_runtime.core.text import printable, shortened, to_json


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9.jpg", "caf\\xe9.jpg"),
        (b"\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        (b"a\nerror: b\r\t", "a\\nerror: b\\r\\t"),
        (b"\x07\x7f\x00", "\\x07\\x7f\\x00"),
        ("\x9b2J".encode(), "\\x9b2J"),
        ("gpj.\u202ephoto\u2066".encode(), "gpj.\\u202ephoto\\u2066"),
        ("\u30d5\u30a9\u30c8\u3000\U0001f469\u200d\U0001f33e \u00e9e\u0301".encode(), None),
        ("\u0639\u200c\u0631\u00a0\u200f".encode(), None),
    ],
)
def test_names(name: bytes, shown: str | None) -> None:
    text = os.fsdecode(name)
    assert printable(text) == (text if shown is None else shown)
    written = to_json({"photo": text})
    assert written.encode().decode().isprintable() or shown is None
    assert os.fsencode(json.loads(written)["photo"]) == name


def test_names_of_any_length() -> None:
    text = shortened(f"short\n{'x' * 3_000_000}\nphoto{'y' * 9_000}.jpg: damaged")
    assert len(text) < 20_000
    assert text.startswith("short\nxxx")
    assert text.endswith(".jpg: damaged")
    assert shortened("x" * 10_000) == "x" * 10_000


def test_lines_stay_where_they_are_meant() -> None:
    assert printable("a\n\tb\x1b", lines=True) == "a\n\tb\\x1b"
    assert to_json({"a": [1]}, indent=1) == '{\n "a": [\n  1\n ]\n}'


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_has_no_such_numbers(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"a": value})
