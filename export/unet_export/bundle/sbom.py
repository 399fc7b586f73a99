"""The bill of materials of a bundle: every wheel and model with version, SHA-256 and licence, as CycloneDX 1.6.

Written here and not by a library: the one for Python knows no model cards. https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import email
import hashlib
import json
import uuid
import zipfile
from collections.abc import Iterable, Sequence
from email.message import Message
from pathlib import Path
from typing import Any

from unet_export import __version__
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.spec import ModelSpec

SUFFIX = ".cdx.json"
"""Suffix of the file: tools know CycloneDX by it."""

_LONGEST_NAME = 200  # of a licence: older wheels have the whole text there
_NAMESPACE = uuid.UUID("8f3c2a52-6f0e-5d0c-9a57-6b2b7d3f6e10")
_BUNDLE = "bundle"


def bill_of_materials(archive: Path, own: Path, wheels: Iterable[Path], models: Sequence[Path]) -> str:
    """JSON that names all that ``archive`` brings to a device.

    The same archive gives the same text: there is no time in it, and its serial number is made of the archive's digest.

    Args:
        archive: the bundle.
        own: wheel of unet-edge-runtime.
        wheels: all wheels, ``own`` among them.
        models: model files that were verified.

    Raises:
        ModelFileError: a model is damaged.
    """
    digest = sha256(archive)
    components = [_wheel(path, is_own=path == own) for path in wheels] + [_model(path) for path in models]
    references = [component["bom-ref"] for component in components]
    version = metadata(own)["Version"]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, digest)}",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "unet-edge-export", "version": __version__}]},
            "component": {
                "type": "application",
                "bom-ref": _BUNDLE,
                "name": archive.name,
                "version": version,
                "hashes": _hashes(digest),
            },
        },
        "components": components,
        "dependencies": [{"ref": _BUNDLE, "dependsOn": references}],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def metadata(wheel: Path) -> Message:
    """The METADATA of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".dist-info/METADATA"):
                return email.message_from_bytes(archive.read(name))
    return Message()


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hashes(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]


def _wheel(path: Path, *, is_own: bool) -> dict[str, Any]:
    about = metadata(path)
    name, version = str(about["Name"]), str(about["Version"])
    # This project's packages are on no index: a package of that name there is another one.
    kind = "generic" if is_own else "pypi"
    purl = f"pkg:{kind}/{name.lower().replace('_', '-')}@{version}"
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "hashes": _hashes(sha256(path)),
        "properties": _properties(file=f"wheels/{path.name}"),
    }
    if about["License-Expression"]:
        component["licenses"] = [{"expression": about["License-Expression"]}]
    elif about["License"]:
        first = str(about["License"]).strip().splitlines()[0]
        component["licenses"] = [{"license": {"name": first[:_LONGEST_NAME]}}]
    return component


def _model(path: Path) -> dict[str, Any]:
    spec = read_artifact(path).spec
    digest = sha256(path)
    return {
        "type": "machine-learning-model",
        "bom-ref": f"models/{path.name}",
        "name": spec.name,
        "version": digest[:16],
        "hashes": _hashes(digest),
        "licenses": [{"license": {"name": spec.license}}],
        "modelCard": _model_card(spec),
        "properties": _properties(
            file=f"models/{path.name}", precision=spec.precision, command=spec.provenance.command
        ),
    }


def _model_card(spec: ModelSpec) -> dict[str, Any]:
    given, made = spec.input, spec.output
    parameters: dict[str, Any] = {
        "task": "semantic segmentation",
        "architectureFamily": "convolutional neural network",
        "modelArchitecture": spec.architecture,
        "inputs": [{"format": f"uint8 RGB image, {given.width}x{given.height}"}],
        "outputs": [
            {"format": f"float32 {made.activation}, {made.width}x{made.height}: {', '.join(spec.class_names)}"}
        ],
    }
    if spec.provenance.data:
        parameters["datasets"] = [{"type": "dataset", "name": spec.provenance.data}]
    return {
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": _performance(spec)},
    }


def _performance(spec: ModelSpec) -> list[dict[str, str]]:
    """The metrics that training measured in float32, whatever the file's precision."""
    metrics = spec.provenance.metrics
    where = f"{metrics.get('photos', '?')} {metrics.get('split', '')} photos, float32".replace("  ", " ")
    found = []
    for name in ("mean_iou", "pixel_accuracy", "loss"):
        if name in metrics:
            found.append({"type": name, "value": str(metrics[name]), "slice": where})
    for name, value in metrics.get("iou", {}).items():
        found.append({"type": "iou", "value": str(value), "slice": f"class {name}, {where}"})
    return found


def _properties(**values: str) -> list[dict[str, str]]:
    return [{"name": f"unet-edge:{name}", "value": value} for name, value in values.items() if value]
