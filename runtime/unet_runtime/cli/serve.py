"""unet-serve: models as an HTTP service."""

from __future__ import annotations

import importlib.util
import logging
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any

import click

from unet_runtime import __version__
from unet_runtime.cli import exits
from unet_runtime.cli.quiet import engines_quiet
from unet_runtime.cli.shared import (
    DEVICE,
    MAX_COUNT,
    THREADS,
    GroupedCommand,
    Real,
    echo,
    option_group,
    setup_logging,
    verbosity,
    verify_key_option,
)
from unet_runtime.core import cores
from unet_runtime.core.errors import OK
from unet_runtime.core.install import missing
from unet_runtime.engines import ENGINES
from unet_runtime.io import web_access
from unet_runtime.io.jobs import give_back_large_blocks, plan
from unet_runtime.segmenter import Segmenter

if TYPE_CHECKING:  # these need the extra
    from unet_runtime.serve.peers import Peers
    from unet_runtime.serve.security import Guard

logger = logging.getLogger(__name__)

_PACKAGES = ("starlette", "uvicorn", "python_multipart", "prometheus_client")
"""Packages of the extra ``serve``."""

_VERBOSE = 1
_SWITCH_SECONDS = 0.0005  # as unet-run: an inference that is ready to begin must not wait for a thread of Python
_SEND_SECONDS = 30.0  # that clients have to take the last responses
_MANY = 1000  # photos, for ``plan``

_EXAMPLES = """\b
Examples:
  unet-serve                                     the bundled model at http://127.0.0.1:8000/
  unet-serve --model cats=cats.onnx --model m/   one more model, and a folder of models or versions
  unet-serve --host 0.0.0.0                      for other machines too, who need the token that is printed
  curl --data-binary @photo.jpg "http://127.0.0.1:8000/segment?save=overlay" > overlay.png"""


@click.command(cls=GroupedCommand, epilog=_EXAMPLES)
@option_group(
    "Models and devices",
    click.option(
        "--model",
        "models",
        multiple=True,
        metavar="[NAME=]PATH",
        help="Model file, folder of models, or folder of versions 1, 2, ... (default: the bundled pets model); may be "
        "given several times. /segment uses the first unless a request names another.",
    ),
    verify_key_option,
    click.option(
        "--backend",
        type=click.Choice(["auto", *ENGINES]),
        default="auto",
        help="Engine that runs the models; auto: the first installed one that reads the file.",
    ),
    click.option(
        "--device",
        type=DEVICE,
        default="auto",
        help="Processor that the engine uses; auto: a GPU if one works, else the CPU.",
    ),
    click.option("--threads", type=THREADS, help="Photos in work at a time (default: one for each core)."),
    click.option(
        "--workers",
        type=click.IntRange(1, 64),
        default=1,
        help="Processes that share the threads, each with models of its own; a dead one is replaced.",
    ),
)
@option_group(
    "Who may ask",
    click.option(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="Address to serve at. Other machines reach it at 0.0.0.0; they need a token.",
    ),
    click.option("--port", type=click.IntRange(0, 65535), default=8000, help="Port; 0: a free one."),
    click.option(
        "--token",
        envvar="UNET_SERVE_TOKEN",
        metavar="TEXT",
        help="What clients must send as Authorization: Bearer TEXT (or in the variable UNET_SERVE_TOKEN). Random where "
        "other machines can ask and none is given.",
    ),
    click.option("--no-token", is_flag=True, help="Let every machine that reaches ADDRESS ask."),
    click.option(
        "--allow-host",
        "hosts",
        multiple=True,
        metavar="NAME",
        help="Further name of this machine in the clients' addresses, where there is no token.",
    ),
    click.option(
        "--allow-origin",
        "origins",
        multiple=True,
        metavar="ORIGIN",
        help="Web page of others that may ask, as https://example.org (CORS); *: any.",
    ),
)
@option_group(
    "Limits",
    click.option("--queue", type=click.IntRange(0, 10_000), default=64, help="Requests that may wait; 429 beyond."),
    click.option(
        "--timeout",
        type=Real(0.1, 3600),
        default=60.0,
        help="Seconds from request to response (503 beyond); for sending a body at most 30 of them (408).",
    ),
    click.option("--max-body", type=Real(0.001, 10_000), default=50.0, help="Megabytes of a request."),
    click.option(
        "--max-pixels",
        type=click.IntRange(1, MAX_COUNT),
        default=50_000_000,
        help="Refuse photos of more pixels, against decompression bombs.",
    ),
)
@verbosity
@click.version_option(__version__)
def command(**given: Any) -> int:
    """Serve models over HTTP: POST /segment, Open Inference Protocol v2, and a page for people at /.

    Also GET /models, /health and, for Prometheus, /metrics. Ctrl-C or SIGTERM ends it, after all workers have answered
    the requests that had come.

    Exit codes: 0 ended by a signal, 1 the address is taken, 2 wrong usage, 3 model, engine or missing package.
    """
    setup_logging(given["verbosity"])
    if given["verify_key"] is not None and not given["models"]:
        raise click.UsageError("--verify-key without --model: the bundled model is part of the package, and unsigned")
    if given["token"] is not None and not given["token"].strip():
        raise click.UsageError("an empty token protects nothing: give one, or --no-token")
    if given["token"] is not None and not _is_sendable(given["token"].strip()):
        raise click.UsageError(
            "a token is letters, digits and signs of ASCII, without spaces: others do not fit a header"
        )
    if given["token"] is not None and given["no_token"]:
        raise click.UsageError("--token together with --no-token: one of them")
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise missing("unet-serve", package, "serve")
    return _serve(given)


def _serve(given: dict[str, Any]) -> int:
    from unet_runtime.serve.peers import Alone, Together
    from unet_runtime.serve.security import Guard
    from unet_runtime.serve.server import open_socket
    from unet_runtime.serve.turns import SharedListener
    from unet_runtime.serve.workers import Workers

    threads = _threads(given)
    # First, so that a taken port is known before models are loaded; connections wait until these are ready.
    with open_socket(given["host"], given["port"]) as listener:
        port: int = listener.getsockname()[1]
        guard = Guard(_token(given), _names(given), given["origins"], port)
        say = partial(_print_start, given, guard, threads)
        if given["workers"] == 1:
            return _work(given, listener, guard, threads[0], Alone(), say)
        ended = Workers(given["workers"], say, listener.close).run()
        if isinstance(ended, int):
            return ended
        seat = ended  # this is a process that has just begun
        with SharedListener(listener, seat.turns, seat.index) as shared:
            peers = Together(seat.index + 1, seat.channel)
            return _work(given, shared, guard, threads[seat.index], peers, peers.say_ready)


def _work(
    given: dict[str, Any],
    listener: socket,
    guard: Guard,
    threads: int | None,
    peers: Peers,
    on_start: Callable[[list[str]], None],
) -> int:
    """Answer requests, in this process."""
    from unet_runtime.serve.app import Service
    from unet_runtime.serve.limits import MEGABYTE, Limits
    from unet_runtime.serve.models import find_models, load_models
    from unet_runtime.serve.server import serve

    limits = Limits(
        body=round(given["max_body"] * MEGABYTE),
        pixels=given["max_pixels"],
        waiting=given["queue"],
        seconds=given["timeout"],
    ).share(given["workers"])
    named = find_models(given["models"])
    shares = plan(_MANY, threads)

    def load(path: Path | None, threads: int | None) -> Segmenter:
        return Segmenter(
            path,
            backend=given["backend"],
            device=given["device"],
            threads=threads,
            verify_key=given["verify_key"],
        )

    with engines_quiet(given["verbosity"] != _VERBOSE):
        models = load_models(named, load, shares.runs, shares.threads)
    service = Service(models, limits, guard, shares.workers, peers)
    titles = [model.title for model in models]
    give_back_large_blocks()
    sys.setswitchinterval(_SWITCH_SECONDS)
    _log_uvicorn()
    try:
        serve(
            service.app,
            listener,
            on_start=lambda: on_start(titles),
            on_end=service.end,
            grace=limits.body_seconds + limits.seconds + _SEND_SECONDS,
        )
    finally:
        service.close()
    return OK


def _threads(given: dict[str, Any]) -> list[int | None]:
    """Threads of each process; None: as the machine has.

    Raises:
        click.UsageError: not one for each.
    """
    workers: int = given["workers"]
    if workers == 1:
        return [given["threads"]]
    from unet_runtime.serve.workers import CAN_FORK

    if not CAN_FORK:
        raise click.UsageError("--workers needs a system that can fork a process (Linux, macOS): leave it out here")
    threads = given["threads"] or min(cores.usable_cores(), cores.MOST * workers)
    if threads < workers:
        have = "threads" if given["threads"] else "usable cores"
        raise click.UsageError(
            f"--workers {workers} with {threads} {have}: each needs a thread at least; name fewer workers, "
            f"or --threads {workers}"
        )
    shares: list[int | None] = []
    for index in range(workers):
        shares.append(threads // workers + (index < threads % workers))
    return shares


def _is_sendable(token: str) -> bool:
    return token.isascii() and token.isprintable() and not set(token) & set(" ;,&#+%")


def _token(given: dict[str, Any]) -> str:
    if given["token"] is not None:
        return str(given["token"]).strip()
    if given["no_token"] or web_access.is_private(given["host"]):
        return ""
    return web_access.new_token()


def _names(given: dict[str, Any]) -> frozenset[str]:
    return frozenset(name.lower() for name in ("localhost", given["host"], *given["hosts"]))


def _print_start(given: dict[str, Any], guard: Guard, threads: list[int | None], titles: list[str]) -> None:
    if not web_access.is_private(given["host"]):
        who = "with the token" if guard.token else "without a token, so anybody may ask (--token keeps strangers out)"
        logger.warning("other machines reach this service at %s, %s; it is not encrypted", given["host"], who)
    for title in titles:
        echo(title)
    if len(threads) > 1:
        echo(f"{len(threads)} workers, threads of each: {', '.join(map(str, threads))}")
    suffix = f"?token={guard.token}" if guard.token and given["token"] is None else ""
    echo(f"serving http://{web_access.shown(given['host'])}:{guard.port}/{suffix}")
    sys.stdout.flush()


def _log_uvicorn() -> None:
    """Have uvicorn's own messages look like ours."""
    for handler in logging.getLogger("unet_runtime").handlers:
        for name in ("uvicorn", "asyncio"):
            logging.getLogger(name).addHandler(handler)
            logging.getLogger(name).setLevel(logging.WARNING)
            logging.getLogger(name).propagate = False


def main() -> None:
    if not sys.warnoptions:  # Pillow warns of odd metadata in photos that it reads all the same
        warnings.simplefilter("ignore")
    exits.stop_once()
    exits.run(command, quick=True)
