"""The model card: README.md with front matter as Hugging Face's hub reads it, from spec and gate.

Equal exports give equal cards: there is no time in it, neither of day nor of a run.
https://huggingface.co/docs/hub/model-cards
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from unet_export.gate.gate import ParityResult
from unet_export.report import numbers
from unet_export.report.report import Report
from unet_export.staging import CARD_NAME, COMMAND
from unet_runtime.io.places import may_go

logger = logging.getLogger(__name__)

_LICENSES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0"),
    *("cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "gpl-2.0"),
    *("gpl-3.0", "agpl-3.0", "lgpl-3.0", "mpl-2.0", "epl-2.0", "unlicense", "isc", "zlib", "openrail", "unknown"),
)
"""Licences that the hub knows by these names; another one is ``other``, with its name beside it."""

_LIBRARIES = {".onnx": "onnx", ".tflite": "tflite", "": "tensorflow"}
"""Suffix of an artifact -> tag."""

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#$~])")


def write_card(
    report: Report, kept: Sequence[ParityResult], folder: Path, output: Path, *, overwrite: bool
) -> list[str]:
    """Write ``README.md`` about the artifacts that are ``kept``, one at least, into ``folder``.

    Returns its name; nothing where ``output``, to which it would be moved, has one that people wrote: it stays.
    Raises OSError.
    """
    there = output / CARD_NAME
    if there.exists() and not overwrite and not may_go(there, COMMAND):
        logger.warning(
            "%s: is not unet-export's, so it stays, and no model card is written: --overwrite insists", there
        )
        return []
    (folder / CARD_NAME).write_text(render_card(report, kept), encoding="utf-8")
    return [CARD_NAME]


def render_card(report: Report, kept: Sequence[ParityResult]) -> str:
    """The card: Markdown."""
    environment = Environment(
        loader=PackageLoader("unet_export.report"),
        autoescape=False,  # Markdown: what others have named goes through ``md``
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name in ("scientific", "percent", "signed", "setting"):
        environment.filters[name] = getattr(numbers, name)
    environment.filters["md"] = _as_text
    environment.filters["code"] = _as_code
    where, iou = _measured(report, kept)
    text = environment.get_template("card.md.j2").render(
        front={key: json.dumps(value) for key, value in _front_matter(report, kept).items()},  # JSON is YAML
        spec=report.spec,
        provenance=report.spec.provenance,
        parameters=report.parameters,
        model=report.model,
        kept=kept,
        photos=len(report.photos.parity),
        split=report.photos.split,
        has_truth=report.has_truth,
        where=where,
        iou=iou,
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _front_matter(report: Report, kept: Sequence[ParityResult]) -> dict[str, Any]:
    spec = report.spec
    license_id = spec.license.lower()
    front: dict[str, Any] = {"license": license_id}
    if license_id not in _LICENSES:
        front = {"license": "other", "license_name": spec.license}
    libraries = dict.fromkeys(_LIBRARIES[result.path.suffix] for result in kept if result.path.suffix in _LIBRARIES)
    front |= {
        "library_name": "unet-edge",
        "pipeline_tag": "image-segmentation",
        "tags": ["image-segmentation", "semantic-segmentation", *libraries],
    }
    if results := _index(report, kept):
        front["model-index"] = [{"name": spec.name, "results": [results]}]
    return front


def _index(report: Report, kept: Sequence[ParityResult]) -> dict[str, Any]:
    """An entry of the front matter's ``model-index``; empty where nothing was measured against labels."""
    where, iou = _measured(report, kept)
    if not iou:
        return {}
    data = report.spec.provenance.data or "photos with labels"
    metrics = []
    for name, value in iou.items():
        kind = "mean_iou" if name == "mean" else "iou"
        metrics.append({"type": kind, "name": f"{name} IoU{where}", "value": round(value, 4)})
    return {
        "task": {"type": "image-segmentation", "name": "semantic segmentation"},
        "dataset": {"type": re.sub(r"[^a-z0-9]+", "-", data.lower()).strip("-") or "own", "name": data},
        "metrics": metrics,
    }


def _measured(report: Report, kept: Sequence[ParityResult]) -> tuple[str, dict[str, float]]:
    """(where it was measured, IoU of the mean and of each class): by training, else the model's own in the gate."""
    metrics = report.spec.provenance.metrics
    if "mean_iou" in metrics:
        where = f" on {metrics.get('photos', '?')} {metrics.get('split', '')} photos, float32".replace("  ", " ")
        return where, _finite({"mean": metrics["mean_iou"], **metrics.get("iou", {})})
    for result in kept:
        for entry in result.checked:
            if entry.metrics is not None and entry.metrics.reference_mean_iou is not None:
                found = {"mean": entry.metrics.reference_mean_iou, **entry.metrics.reference_iou}
                return f" on the {len(report.photos.parity)} photos of the proof, float32", _finite(found)
    return "", {}


def _finite(values: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, float) and math.isfinite(value)}


def _as_text(value: object) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(str(value).split()))


def _as_code(value: object) -> str:
    """The same inside of code."""
    return " ".join(str(value).split()).replace("`", "'")
