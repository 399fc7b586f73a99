"""Train a segmentation model on photos with trimaps, into one ``model.keras`` that carries its spec.

>>> from pathlib import Path
>>> from unet_training import PRESETS, train
>>> result = train(PRESETS["edge"], Path("data/oxford-iiit-pet"), Path("artifacts"))  # doctest: +SKIP
>>> print(result.model, result.spec.provenance.metrics["mean_iou"])  # doctest: +SKIP

What needs Keras is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unet_training.errors import DatasetError, RecipeError, TrainingError, TrainingInterruptedError
from unet_training.recipes import PRESETS, Recipe

if TYPE_CHECKING:
    from unet_training.pipeline import Result, train

__all__ = [
    "PRESETS",
    "DatasetError",
    "Recipe",
    "RecipeError",
    "Result",
    "TrainingError",
    "TrainingInterruptedError",
    "train",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from unet_training import pipeline

    return getattr(pipeline, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
