"""A password in an address is shown nowhere, and an address that is read in two ways is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from unet_runtime.core.errors import SourceError
from unet_runtime.io.addresses import parse_address, shown_address
from unet_runtime.live.source import parse_source


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://10.0.0.7/stream", "rtsp://10.0.0.7/stream"),
        ("rtsp://anna@10.0.0.7/stream", "rtsp://anna@10.0.0.7/stream"),
        ("rtsp://anna:secret@10.0.0.7:554/s", "rtsp://anna:***@10.0.0.7:554/s"),
        ("rtsp://admin:p@secret@host/s", "rtsp://admin:***@host/s"),
        ("rtsp://admin:pa/secret@host/s", "rtsp://admin:***@host/s"),
        ("rtsp://admin:12/secret@host/s", "rtsp://admin:***@host/s"),
        ("rtsp://admin:a?b#secret@host/s", "rtsp://admin:***@host/s"),
        ("rtsp://admin:a:secret@host/s", "rtsp://admin:***@host/s"),
        ("rtsp://:secret@host/s", "rtsp://:***@host/s"),
        ("rtsp://admin:x://secret@host/s", "rtsp://admin:***@host/s"),
        ("http://host/jpg?user=a&password=secret&n=1", "http://host/jpg?user=a&password=***&n=1"),
        ("http://host/jpg?usr=a&PWD=secret", "http://host/jpg?usr=a&PWD=***"),
        ("http://host/jpg?loginpas=secret", "http://host/jpg?loginpas=***"),
        ("http://host:80/jpg?password=p@secret", "http://host:80/jpg?password=***"),
        ("http://host/jpg?token=sec/ret?a", "http://host/jpg?token=***"),
        ("http://host/jpg?api_key=secret#x", "http://host/jpg?api_key=***"),
        ("rtsp://host/user=admin_password=secret_channel=1.sdp", "rtsp://host/user=admin_password=***"),
        ("admin:secret@host/stream", "admin:***@host/stream"),
        ("rtsp:/admin:secret@host/stream", "rtsp:***@host/stream"),
        ("/dev/video0", "/dev/video0"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert shown_address(text) == shown


@pytest.mark.parametrize(
    ("text", "url", "login"),
    [
        ("rtsp://10.0.0.7/stream", "rtsp://10.0.0.7/stream", ""),
        ("rtsp://admin:p@ss@host/s", "rtsp://admin:p%40ss@host/s", "admin:p@ss"),
        ("rtsp://admin:pa%2Fss@host:554/s", "rtsp://admin:pa%2Fss@host:554/s", "admin:pa/ss"),
        ("http://[fe80::1]:80/s", "http://[fe80::1]:80/s", ""),
        ("http://host/snap?mail=a@b", "http://host/snap?mail=a@b", ""),
        ("udp://@:1234", "udp://@:1234", ""),
    ],
)
def test_what_is_sent(text: str, url: str, login: str) -> None:
    address = parse_address(text)
    assert (address.url, address.login) == (url, login)
    assert "@" not in address.bare.netloc


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://admin:pa/secret@host/s",
        "rtsp://admin:12/secret@host/s",
        "rtsp://admin:a?secret@host/s",
        "rtsp://admin:a#secret@host/s",
        "rtsp://admin:secret@host:port/s",
        "rtsp://admin:secret@host:99999/s",
        "rtsp://admin:secret@host:0/s",
        "rtsp://admin:[secret@host/s",
        "rtsp://admin:secret]@host/s",
        "rtsp://admin:secret\n@host/s",
        "rtsp://admin:secret \x1b[2J@host/s",
        "rtsp://admin:secret@/s",
        "http://host:80/?password=p@secret",
        "rtsp://admin:secret\u2100@host/s",  # urllib: "contains invalid characters under NFKC normalization"
    ],
)
def test_an_address_that_can_be_read_in_two_ways_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(SourceError, match=r"no address.*expected one such as rtsp.*%40 %3A %2F %3F") as caught:
        parse_source(text)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("text", ["admin:secret@host/s", "rtsp:/admin:secret@host/s", "admin:secret\0@host"])
def test_what_has_no_scheme_is_no_file_and_hides_its_password_too(text: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected a camera's number") as caught:
        parse_source(text)
    assert "secret" not in str(caught.value)
