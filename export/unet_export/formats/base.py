"""What a format is, and what all formats of one export share."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from unet_export.errors import ExportError
from unet_export.formats.onnx_model import OnnxModel
from unet_export.photos import PhotoSets, calibration_images, inputs
from unet_export.quantization import Method, Quantization
from unet_export.transforms.equalize import equalize
from unet_export.transforms.finetune import finetune
from unet_export.transforms.rounding import with_biases_of_float16
from unet_runtime.core.spec import ModelSpec, Precision
from unet_runtime.core.text import one_line

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


class NotIntegerError(ExportError):
    """An integer file in which operators without an integer kernel compute in float: the message lists them."""


@dataclass(frozen=True)
class Format:
    """One kind of artifact: its name, its file, and how that is written and checked."""

    name: str
    """Its name for ``--formats``."""
    precision: Precision
    """Precision in the artifact's spec."""
    suffix: str
    """Suffix of its file, precision included; a SavedModel's folder has none."""
    engines: tuple[str, ...]
    """Backends of the runtime that run it, in the order in which they are tried; a SavedModel runs in TensorFlow."""
    write: Callable[[Builder, Path, Quantization], None] = field(repr=False)
    """Writes the artifact, complete with spec and digest. Raises ExportError or OSError."""
    check: Callable[[Path], None] = field(repr=False)
    """Reads the artifact and raises ExportError or ModelFileError where it is not what its name says."""
    quantization: Quantization = field(default_factory=Quantization)
    """Default settings of an integer format."""
    methods: tuple[Method, ...] = ()
    """Calibration methods that an integer format has."""
    baseline: Format | None = field(default=None, repr=False)
    """The float32 format of the same family, which an integer file is compared with layer by layer."""
    mixed: Format | None = field(default=None, repr=False)
    """The format in place of an integer one where the model has operators without an integer kernel."""
    resizable: bool = False
    """Whether its file may take any height and width."""

    @property
    def quantized(self) -> bool:
        """Whether it is one file whose activations are integers, so that it has settings and may be repaired."""
        return bool(self.methods)

    def file_name(self, spec: ModelSpec, *, dynamic: bool = False) -> str:
        """``pets-edge-160.int8.tflite``; the size is ``160x224`` (height, width) or ``dynamic`` where it is that."""
        if not self.suffix:
            return "saved_model"
        height, width = spec.input.height, spec.input.width
        size = f"{height}" if height == width else f"{height}x{width}"
        return f"{spec.name}-{'dynamic' if dynamic and self.resizable else size}{self.suffix}"


_INTEGER_NORMS = ("BatchNormalization", "Normalization")
"""Normalisations by constants: a factor and an offset."""


def measuring_norms(model: Any) -> tuple[str, ...]:
    """Names of the layers that divide by a deviation which they measure, as LayerNormalization: 8 bits do not hold its
    square."""
    found = []
    for layer in model.layers:
        kind = getattr(layer, "kind", "") or type(layer).__name__  # an operator of ONNX, or a Keras layer
        if "Norm" in kind and kind not in _INTEGER_NORMS:
            found.append(layer.name)
    return tuple(found)


class Builder:
    """Makes the files of one model. What several formats share is made once.

    Args:
        model: Keras, uint8 (n, h, w, 3) -> float32 probabilities (n, h', w', classes).
        spec: of the model.
        photos: for calibration.
        work: a folder for what the converters read; made when needed.
        dynamic, labels: of the ONNX files, as in ``ExportOptions``.
    """

    def __init__(
        self, model: Any, spec: ModelSpec, photos: PhotoSets, work: Path, *, dynamic: bool = False, labels: bool = False
    ) -> None:
        self.spec, self.dynamic, self.labels = spec, dynamic, labels
        self._trained = model
        self._photos = photos
        self._work = work
        self._made: dict[object, Any] = {}

    def write(self, form: Format, path: Path, quantization: Quantization) -> None:
        """Write one format's artifact, complete with spec and digest, and check it. Raises ExportError or OSError."""
        form.write(self, path, quantization)
        form.check(path)

    def baseline(self, form: Format, quantization: Quantization) -> bytes:
        """The float32 file of the same family, from the same variant of the model: the reference for integers."""
        assert form.baseline is not None, f"format {form.name} has no float32 file to compare with"
        path = self.folder("baseline") / f"baseline{form.baseline.suffix}"
        self.write(form.baseline, path, quantization)
        return path.read_bytes()

    def images(self, count: int) -> npt.NDArray[np.uint8]:
        """The first ``count`` calibration photos as the model sees them, or all of fewer: uint8 (n, h, w, 3)."""
        return calibration_images(self._inputs[:count])

    def add_reserve(self, photos: PhotoSets) -> None:
        """Take further calibration photos, those of ``photos.reserve``, behind the others."""
        self._photos = replace(self._photos, reserve=photos.reserve)
        vars(self).pop("_inputs", None)

    @cached_property
    def _inputs(self) -> npt.NDArray[np.uint8]:
        return inputs([*self._photos.calibration, *self._photos.reserve], self.spec.input)

    def variant(self, quantization: Quantization, precision: str = "") -> tuple[object, ...]:
        """Identity of ``model``: equal for equal models."""
        if precision == "float16":
            return ("float16",)
        steps = quantization.finetune_steps
        return quantization.equalized, steps, quantization.weight_bits if steps else 0

    def model(self, quantization: Quantization, precision: str = "") -> Any:
        """The Keras model that is converted: the trained one, or a variant that the precision holds better."""
        return self.once(self.variant(quantization, precision), lambda: self._make(quantization, precision))

    def once(self, key: object, make: Callable[[], _T]) -> _T:
        """What ``make`` returns, made at the first call with this key."""
        if key not in self._made:
            self._made[key] = make()
        made: _T = self._made[key]
        return made

    def folder(self, name: str) -> Path:
        """An empty folder for what a converter reads."""
        folder = self._work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def _make(self, quantization: Quantization, precision: str) -> Any:
        """A variant of the model. Raises ExportError where the model's layers do not take part in it."""
        if isinstance(self._trained, OnnxModel):
            return self._trained.variant(quantization)
        try:
            return self._transformed(quantization, precision)
        except (ExportError, MemoryError):
            raise
        except Exception as error:  # layers of others' code raise whatever they like when they are copied
            if precision == "float16":
                logger.info("its biases are rounded to float16 as they are: %s", one_line(error))
                return self._trained
            raise ExportError(f"the model's layers cannot be changed ({one_line(error)})") from error

    def _transformed(self, quantization: Quantization, precision: str) -> Any:
        if precision == "float16":
            return with_biases_of_float16(self._trained)
        if steps := quantization.finetune_steps:
            before = self.model(replace(quantization, finetune_steps=0))
            return finetune(before, self.images(quantization.photos), steps, weight_bits=quantization.weight_bits)
        if quantization.equalized:
            return equalize(self._trained, self.images(quantization.photos))
        return self._trained
