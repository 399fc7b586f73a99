"""The page itself: everything about a training as one HTML file that loads nothing else."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from unet_training.cli import tables
from unet_training.evaluate import Evaluation
from unet_training.files import replacing, writing

if TYPE_CHECKING:
    from unet_training.pipeline import Result
    from unet_training.report.curves import Gap

_TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class Picture:
    """A picture of the page."""

    name: str
    """Of its file beside the page."""
    alt: str
    """What it shows, in words."""
    caption: str
    data: str
    """The PNG, base64."""

    @classmethod
    def read(cls, path: Path, alt: str, caption: str = "") -> Picture:
        """From the file just written.

        Raises:
            OutputError: it is gone.
        """
        with writing(path):
            return cls(path.name, alt, caption, base64.b64encode(path.read_bytes()).decode("ascii"))


def write(
    path: Path,
    *,
    result: Result,
    evaluation: Evaluation,
    gaps: Sequence[Gap],
    pictures: Mapping[str, Picture | None],
    network_lacks: str,
) -> None:
    """Write the page.

    Args:
        path: of the HTML.
        result: of the training; evaluation: of its model file.
        gaps: train and validation at the best epoch.
        pictures: ``curves``, ``best``, ``worst``, ``random``, ``confusion``, ``breeds``, ``network``; None: left out.
        network_lacks: why there is no picture ``network``; empty if there is one.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    # Photos, folders and commands are named by others: whatever their names hold is text.
    environment = Environment(
        loader=PackageLoader("unet_training"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": _figure, "signed": _signed, "setting": _setting}
    text = environment.get_template(_TEMPLATE).render(
        spec=result.spec,
        provenance=result.spec.provenance,
        interrupted=result.interrupted,
        evaluation=evaluation,
        rows=tables.overall(evaluation),
        gaps=gaps,
        epochs=max(map(len, result.history.values()), default=0),
        epoch=result.spec.provenance.metrics["epoch"],
        pictures=pictures,
        network_lacks=network_lacks,
        model_file=result.model.name,
    )
    with replacing(path) as temporary:
        # A folder's name need not be Unicode text.
        temporary.write_text(text, encoding="utf-8", errors="replace")


def _figure(value: float) -> str:
    return "\N{EN DASH}" if math.isnan(value) else f"{value:.4f}"


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def _setting(value: Any) -> str:
    """A hyper-parameter's value, for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value)
