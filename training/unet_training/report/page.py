"""The page itself: everything about a training as one HTML file that loads nothing else."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from unet_runtime.core import files
from unet_runtime.io.stamps import page_mark
from unet_training.files import COMMAND
from unet_training.pipeline import Result

_TEMPLATE = "report.html.j2"


def write(path: Path, result: Result, **content: Any) -> None:
    """Write the page; ``content`` is ``evaluation``, ``gaps``, ``pictures`` by name (None: left out) and ``stages``.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    # Photos, folders and commands are named by others: autoescape, so that whatever their names hold is text.
    environment = Environment(
        loader=PackageLoader("unet_training"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"decimal": _decimal, "signed": _signed, "setting": _setting}
    text = environment.get_template(_TEMPLATE).render(
        result=result,
        spec=result.spec,
        provenance=result.spec.provenance,
        epoch=result.spec.provenance.metrics["epoch"],
        epochs=max(map(len, result.history.values()), default=0),
        **content,
    )
    files.write_bytes(
        path, (page_mark(COMMAND) + text).encode(errors="replace")
    )  # a folder's name need not be Unicode text


def _decimal(value: float) -> str:
    return "\N{EN DASH}" if math.isnan(value) else f"{value:.4f}"


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def _setting(value: Any) -> str:
    """A hyper-parameter's value, for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_setting(entry)}" for name, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_setting, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
