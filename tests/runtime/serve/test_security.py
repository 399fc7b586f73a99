"""Who may ask: tokens, names, pages of other sites; what the command refuses and warns of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from tests.helpers.serving import Running, serving
from unet_runtime.serve.refusals import RefusalError
from unet_runtime.serve.security import Guard


def status(guard: Guard, path: str = "/health", method: str = "GET", token: str = "", **headers: str) -> int:
    """200, or that of the refusal."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        guard.check(method, path, Headers({"host": "localhost:8000", **named}), token)
    except RefusalError as refusal:
        return refusal.status
    return 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("192.168.1.7", 200),
        ("LOCALHOST", 200),
        ("cats.example.org", 403),
        ("localhost.evil.org", 403),
        ("", 403),
        ("[", 403),
    ],
)
def test_a_name_that_was_rebound_is_refused(host: str, expected: int) -> None:
    assert status(Guard(), host=host) == expected


def test_names_can_be_allowed() -> None:
    assert status(Guard(names=frozenset({"cats.local"})), host="cats.local:80") == 200


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 401),
        ({"authorization": "Bearer right"}, 200),
        ({"authorization": "bearer right"}, 200),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Basic right"}, 401),
        ({"authorization": "Bearer \xff"}, 401),
        ({"cookie": "a=b; unet-serve-8000=right"}, 200),
        ({"cookie": "unet-serve-8000=wrong"}, 401),
        ({"cookie": "unet-serve-1=right"}, 401),
    ],
)
def test_a_token_is_needed(headers: dict[str, str], expected: int) -> None:
    guard = Guard(token="right", port=8000)
    try:
        guard.check("GET", "/health", Headers(headers), "")
        found = 200
    except RefusalError as refusal:
        found = refusal.status
    assert found == expected


def test_the_address_may_have_the_token() -> None:
    guard = Guard(token="right")
    assert status(guard, token="right", host="any.example.org") == 200
    assert status(guard, token="wrong") == 401
    assert status(guard, "/v2/health/ready") == 200  # a watchdog has none


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"origin": "http://localhost:8000"}, 200),
        ({"origin": "http://evil.org"}, 403),
        ({"origin": "null"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-origin"}, 200),
    ],
)
def test_pages_of_others_are_refused(headers: dict[str, str], expected: int) -> None:
    assert status(Guard(), "/segment", "POST", **headers) == expected
    if "origin" in headers:
        allowed = Guard(origins=(headers["origin"],))
        assert status(allowed, "/segment", "POST", sec_fetch_site="cross-site", **headers) == 200


def test_a_link_to_the_page_may_stand_anywhere() -> None:
    assert status(Guard(), "/", sec_fetch_site="cross-site") == 200


def test_no_cors_unless_asked_for(service: Running, photo: bytes) -> None:
    assert service.post("/segment", photo, Origin="https://example.org").status == 403
    answer = service.ask("OPTIONS", "/segment", headers={"Origin": "https://example.org"})
    assert "access-control-allow-origin" not in answer.headers


def test_a_service_for_others(tmp_path: Path, colour_model: Path, photo: bytes) -> None:
    """All addresses: a random token and a warning; CORS where it was asked for."""
    origin = "https://example.org"
    arguments = ("--model", colour_model, "--host", "0.0.0.0", "--allow-origin", origin)
    with serving(tmp_path, *arguments) as service:
        token = service.url.partition("?token=")[2]
        assert len(token) > 20
        assert "other machines reach this service" in service.log()
        assert service.post("/segment", photo).status == 401
        assert service.get("/v2/health/live").status == 200
        answer = service.post("/segment", photo, Authorization=f"Bearer {token}", Origin=origin)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, origin)
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        assert service.ask("OPTIONS", "/segment", headers=asked).status == 200
        page = service.get(f"/?token={token}")
        assert "HttpOnly" in page.headers["set-cookie"]
        cookie = page.headers["set-cookie"].partition(";")[0]
        assert service.post("/segment", photo, Cookie=cookie).status == 200
        assert token not in service.log()


def failing(*arguments: str | Path, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """(exit code, standard error) of a command that does not serve."""
    command = [sys.executable, "-c", "from unet_runtime.cli.serve import main; main()", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    return done.returncode, done.stderr


def test_what_the_command_refuses(service: Running, tmp_path: Path, colour_model: Path) -> None:
    code, said = failing("--model", colour_model, "--port", str(service.port))
    assert code == 1
    assert "name another with --port" in said
    code, said = failing("--model", tmp_path / "absent.onnx", "--port", "0")
    assert code == 3
    assert "no such file" in said
    code, said = failing("--token", "")
    assert code == 2
    assert "--no-token" in said
    assert failing("--token", "ä b")[0] == 2
    assert failing("--host", "a" * 300, "--port", "0")[0] == 1


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['starlette'] = None\n"
    start = "from unet_runtime.cli.serve import main; main()"
    done = subprocess.run([sys.executable, "-c", hidden + start], capture_output=True, text=True, timeout=120)
    assert done.returncode == 3
    assert "pip install" in done.stderr
