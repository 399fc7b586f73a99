"""unet-serve in a process of its own, and plain requests to it."""

from __future__ import annotations

import http.client
import io
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

_START = "from unet_runtime.cli.serve import main; main()"
_FEW_FILES = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({0}, {0})); "
TIMEOUT = 60.0
"""Seconds after which a request counts as hanging, on a machine that is busy with other things."""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        message: str = self.json["error"]
        return message


class Running:
    """A service that runs."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log
        self.lines: list[str] = []
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith("serving "):
                break
        assert self.lines, self.log()
        assert self.lines[-1].startswith("serving "), self.log()
        self.url = self.lines[-1].split()[1]
        self.port = int(self.url.split("/")[2].rpartition(":")[2])

    def log(self) -> str:
        """What it has written on standard error."""
        return self._log.read_text(encoding="utf-8")

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: bytes, **headers: str) -> Answer:
        return self.ask("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})

    def raw(self, content: bytes, *, ends: bool = True) -> bytes:
        """Everything that the service sends for these bytes; ``ends``: the client sends no more, and says so."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT) as client:
            received = b""
            with suppress(ConnectionError):  # it has hung up, perhaps with a response to what it has read
                client.sendall(content)
                if ends:
                    client.shutdown(socket.SHUT_WR)
            with suppress(ConnectionError):
                while chunk := client.recv(65536):
                    received += chunk
            return received

    def processes(self) -> list[int]:
        """Process ids: its own, and those of its workers."""
        own = self.process.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text(encoding="ascii").split()
        return [own, *map(int, children)]

    def resident(self) -> float:
        """MB that it holds."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS"))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit code after a signal."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(TIMEOUT)


@contextmanager
def serving(folder: Path, *arguments: str | Path, files: int = 0) -> Iterator[Running]:
    """A service on a free port, whose log is kept in ``folder``; ended with the block.

    Args:
        folder: of the log.
        arguments: of the command.
        files: how many the process may open; 0: as many as this one.
    """
    log = folder / "serve.log"
    command = [
        sys.executable,
        "-c",
        (_FEW_FILES.format(files) if files else "") + _START,
        "--port",
        "0",
        *map(str, arguments),
    ]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        with process:
            try:
                yield Running(process, log)
            finally:
                process.terminate()
                process.wait(TIMEOUT)
    finally:
        process.kill()


def form(content: bytes, name: str = "photo.png", **fields: str) -> tuple[bytes, str]:
    """(body, content type) of a form with one file."""
    parts = []
    for key, value in fields.items():
        parts.append(f'--edge\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode())
    head = f'--edge\r\nContent-Disposition: form-data; name="photo"; filename="{name}"\r\n\r\n'
    return b"".join([*parts, head.encode(), content, b"\r\n--edge--\r\n"]), "multipart/form-data; boundary=edge"


def jpeg(width: int, height: int) -> bytes:
    """A black photo."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()
