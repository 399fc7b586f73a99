"""A password in an address is shown nowhere, and an address that is read in two ways is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from unet_runtime.core.errors import SourceError
from unet_runtime.io.addresses import named_file, parse_address, shown_address
from unet_runtime.io.sources import find_photos
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


@pytest.mark.parametrize("text", ["admin:secret@host/s", "admin:secret\0@host"])
def test_what_has_no_scheme_is_no_file_and_hides_its_password_too(text: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected a camera's number") as caught:
        parse_source(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("https:/host/x.jpg", "https://host/x.jpg"),
        ("http:/host/x.jpg", "http://host/x.jpg"),
        ("http:host/x.jpg", "http://host/x.jpg"),
        ("http//host/x.jpg", "http://host/x.jpg"),
        ("htttp://host/x.jpg", "http://host/x.jpg"),
        ("HTPS:/host/x.jpg", "https://host/x.jpg"),
        ("rtsp:/admin:secret@host/s", "rtsp://admin:***@host/s"),
        ("rstp://admin:secret@host/s", "rtsp://admin:***@host/s"),
    ],
)
def test_an_address_with_a_typing_error_is_shown_corrected(text: str, meant: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse_source(text)
    assert f"no address, expected one such as {meant}: is it that?" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["rtspt://host/s", "udp://@:1234", "hls://host/s", "srt://host:9000"])
def test_a_scheme_that_is_rare_is_left_to_the_decoder(text: str) -> None:
    assert parse_source(text).target == text


def test_a_scheme_in_capital_letters_is_sent_in_small_ones() -> None:
    assert parse_source("HTTPS://Host/Snap.JPG").target == "https://Host/Snap.JPG"


@pytest.mark.parametrize(
    ("text", "path"),
    [("file:///a/b%20c.mp4", "/a/b c.mp4"), ("file://c.mp4", "c.mp4"), ("FILE:/a.mp4", "/a.mp4"), ("a.mp4", "")],
)
def test_the_address_of_a_file_names_its_path(text: str, path: str) -> None:
    assert named_file(text) == path
    if path:
        with pytest.raises(SourceError, match=f"expected a path.*: {path}$"):
            parse_source(text)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("https://host/x.jpg", "https://host/x.jpg: no such file or folder; download it first"),
        ("http:/host/x.jpg", "http://host/x.jpg: no such file or folder; download it first"),
        ("htttps://host/x.jpg", "https://host/x.jpg: no such file or folder; download it first"),
        ("rtsp://a:secret@host/s", "rtsp://a:***@host/s: no such file or folder; download it first"),
        ("file:///no/x.jpg", "file:/no/x.jpg: no such file or folder; name the file itself: /no/x.jpg"),
    ],
)
def test_an_address_among_photos_says_what_to_do(name: str, expected: str) -> None:
    (photo,) = find_photos([Path(name)], None, strict=False)
    assert photo.problem.startswith(expected)
