"""Descriptions in the form of known tools: ultralytics' metadata, and the files of Hugging Face beside a model."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unet_export.adopt.facts import Said
from unet_runtime.core.files import read_regular

_JSON_BYTES = 1 << 20
_MOST_NAMES = 256

_RESCALED = 1e-3
"""Relative error of a rescale factor that still is 1/255."""


def ultralytics(metadata: Mapping[str, str]) -> dict[str, Said]:
    """What ultralytics writes into a file: ``names``, ``imgsz``, ``license``; and how it prepares pictures."""
    if "ultralytics" not in f"{metadata.get('author', '')} {metadata.get('description', '')}".lower():
        return {}
    source = "metadata of ultralytics"
    said = {
        "range": Said((0.0, 1.0), source),
        "channels": Said("rgb", source),
        "fit": Said("letterbox", source),
    }
    if names := _names(literal(metadata.get("names", ""))):
        said["classes"] = Said(names, source)
    size = literal(metadata.get("imgsz", ""))
    if isinstance(size, (list, tuple)) and len(size) == 2 and all(isinstance(side, int) for side in size):
        said["size"] = Said((size[0], size[1]), source)
    if license_text := metadata.get("license", ""):
        said["license"] = Said(license_text, source)
    return said


def hugging_face(path: Path) -> dict[str, Said]:
    """What ``config.json`` and ``preprocessor_config.json`` beside a model, or one folder above, say of it."""
    said: dict[str, Said] = {}
    config = _json(path, "config.json")
    if config is not None:
        if names := _names(config.get("id2label")):
            said["classes"] = Said(names, "config.json")
        if isinstance(config.get("license"), str):
            said["license"] = Said(config["license"], "config.json")
    settings = _json(path, "preprocessor_config.json")
    if settings is not None:
        said |= _preprocessing(settings)
    return said


def _preprocessing(settings: Mapping[str, Any]) -> dict[str, Said]:
    source = "preprocessor_config.json"
    said = {"channels": Said("rgb", source)}
    factor = settings.get("rescale_factor", 1 / 255)
    if settings.get("do_rescale", True) and isinstance(factor, (int, float)) and factor > 0:
        is_255th = abs(factor * 255 - 1) < _RESCALED
        said["range"] = Said((0.0, 1.0 if is_255th else 255.0 * factor), source)
    elif "do_rescale" in settings:
        said["range"] = Said((0.0, 255.0), source)
    if settings.get("do_normalize", True):
        for name in ("mean", "std"):
            values = settings.get(f"image_{name}")
            if isinstance(values, list) and all(isinstance(value, (int, float)) for value in values):
                said[name] = Said(tuple(map(float, values)), source)
    if settings.get("do_flip_channel_order"):
        said["channels"] = Said("bgr", source)
    size = settings.get("size")
    if isinstance(size, dict) and isinstance(size.get("height"), int) and isinstance(size.get("width"), int):
        said["size"] = Said((size["height"], size["width"]), source)
        said["fit"] = Said("stretch", source)
    return said


def _names(entries: object) -> tuple[str, ...]:
    """Names by id, from a list or from an object whose keys are ids; none where an id is missing."""
    if isinstance(entries, list):
        entries = dict(enumerate(entries))
    if not isinstance(entries, Mapping) or not 0 < len(entries) <= _MOST_NAMES:
        return ()
    by_id = {str(key): value for key, value in entries.items()}
    names = [by_id.get(str(index)) for index in range(len(by_id))]
    return tuple(map(str, names)) if all(isinstance(name, str) for name in names) else ()


def lines(content: bytes) -> tuple[str, ...]:
    """Names of a label file: one a line."""
    text = content.decode("utf-8", "replace")
    return tuple(filter(None, map(str.strip, text.splitlines())))


def literal(text: str) -> Any:
    """A value that Python prints, as ultralytics writes them; None for anything else."""
    if len(text) > _JSON_BYTES:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _json(path: Path, name: str) -> dict[str, Any] | None:
    for folder in _folders(path):
        try:
            content = json.loads(read_regular(folder / name, _JSON_BYTES))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(content, dict):
            return content
    return None


def _folders(path: Path) -> Iterable[Path]:
    """The model's folder; and the one above, where it is one named ``onnx``, as Hugging Face lays them."""
    folder = path.absolute().parent
    return (folder, folder.parent) if folder.name == "onnx" else (folder,)
