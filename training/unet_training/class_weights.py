"""Weights of classes in the cross-entropy: for data in which some classes have few pixels."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unet_runtime.core.metrics import IGNORED
from unet_training.errors import RecipeError

logger = logging.getLogger(__name__)

NONE, BALANCED = "none", "balanced"

_MOST = 100.0
"""Largest weight, in smallest ones: more would let a handful of pixels decide about every step that has them."""


def pixel_counts(masks: np.ndarray, classes: int) -> np.ndarray:
    """Class ids, uint8 (n, h, w) -> pixels of each class, int64 (classes,); those of ``IGNORED`` do not count."""
    total = np.zeros(IGNORED + 1, np.int64)
    for mask in masks:  # may be mapped from a disk: one at a time
        total += np.bincount(mask.ravel(), minlength=IGNORED + 1)
    return total[:classes]


def class_weights(choice: str, names: Sequence[str], counts: np.ndarray) -> tuple[float, ...]:
    """The weight of a pixel of each class.

    Args:
        choice: ``none``: all 1; ``balanced``: as many times 1 as the class has fewer pixels than the mean of the
            classes, at most ``_MOST`` times the smallest weight, so that all classes weigh alike together; else a JSON
            file of weights by name.
        names: of the classes, by id.
        counts: pixels of each class in the training photos.

    Raises:
        RecipeError: the file cannot be read, or names other classes or no weights.
    """
    if choice == NONE:
        return (1.0,) * len(names)
    if choice == BALANCED:
        return _balanced(names, counts)
    found = _read(Path(choice))
    if set(found) != set(names):
        raise RecipeError(
            f"--class-weights {choice}: has weights of {', '.join(found) or 'no class'}, expected one of each of "
            f"{', '.join(names)}"
        )
    return tuple(found[name] for name in names)


def _balanced(names: Sequence[str], counts: np.ndarray) -> tuple[float, ...]:
    present = counts > 0
    absent = [name for name, there in zip(names, present, strict=True) if not there]
    if absent:
        logger.warning("no training photo has a pixel of %s: such a class cannot be learned", ", ".join(absent))
    weights = np.ones(len(names))
    if present.any():
        weights[present] = counts[present].mean() / counts[present]
        weights = np.minimum(weights, _MOST * weights[present].min())
    return tuple(np.round(weights, 6).tolist())


def _read(path: Path) -> dict[str, float]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(
            f"--class-weights {path}: cannot be read as JSON ({error}), expected none, balanced or a file as "
            '{"cat": 2, "background": 1}'
        ) from error
    if not isinstance(content, Mapping) or not all(map(_is_weight, content.values())):
        raise RecipeError(
            f"--class-weights {path}: expected an object of a number above 0 for each class, as "
            '{"cat": 2, "background": 1}'
        )
    return {str(name): float(value) for name, value in content.items()}


def _is_weight(value: object) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0  # type: ignore[operator, arg-type]
