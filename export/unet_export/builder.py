"""Makes the file of each format out of one loaded model; what several formats share is made once."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from unet_export.calibration import calibration_images, sha256
from unet_export.formats import SAVED_MODEL, Format, onnx, onnx_reduced, tflite
from unet_export.formats.saved_model import export_saved_model
from unet_export.photos import PhotoSets, inputs
from unet_export.quantization import Quantization
from unet_export.transforms.equalize import equalize
from unet_export.transforms.finetune import finetune
from unet_export.transforms.rounding import with_biases_of_float16
from unet_runtime.core.spec import ModelSpec


@dataclass(frozen=True)
class GraphOptions:
    """What an ONNX file may have besides what the contract asks for."""

    dynamic: bool = False
    """Height and width are free, in multiples of what the network halves by."""
    labels: bool = False
    """A second output, ``labels``: the argmax, uint8 (n, h, w)."""


class Builder:
    """One model on its way into files."""

    def __init__(self, model: Any, spec: ModelSpec, photos: PhotoSets, work: Path, options: GraphOptions) -> None:
        """
        Args:
            model: Keras, uint8 (n, h, w, 3) -> float32 probabilities (n, h', w', classes).
            spec: of the model.
            photos: for calibration.
            work: a folder for what the converters read; made when needed.
            options: of the ONNX files.
        """
        self._spec, self._photos, self._work, self._options = spec, photos, work, options
        self._models = {_AS_TRAINED: model}
        self._graphs: dict[_Variant, Any] = {}

    def write(self, form: Format, path: Path, quantization: Quantization) -> None:
        """Write the artifact of one format, complete with spec and digest.

        Raises:
            ExportError: the model cannot be converted, or what came out is not what its name says.
            OSError: ``path`` cannot be written.
        """
        if form.name == SAVED_MODEL:
            export_saved_model(self.model(quantization), self._spec, path)
        elif path.suffix == ".onnx":
            path.write_bytes(self._onnx(form, quantization))
        else:
            path.write_bytes(self._tflite(form, quantization))

    def float_twin(self, form: Format, quantization: Quantization) -> bytes:
        """The float32 file of the same family, from the same variant of the model: what integers are compared with."""
        twin = replace(form, name=form.suffix.rpartition(".")[2], precision="float32")
        return self._onnx(twin, quantization) if twin.name == "onnx" else self._tflite(twin, quantization)

    def images(self, count: int) -> npt.NDArray[np.uint8]:
        """That many calibration photos as the model sees them, or all there are: uint8 (n, h, w, 3)."""
        return calibration_images(self._inputs[:count])

    @cached_property
    def _inputs(self) -> npt.NDArray[np.uint8]:
        return inputs([*self._photos.calibration, *self._photos.reserve], self._spec.input)

    def model(self, quantization: Quantization, precision: str = "") -> Any:
        """The Keras model that is converted: the trained one, or a variant that the precision holds better."""
        variant = _variant(quantization, precision)
        if variant not in self._models:
            self._models[variant] = self._make(variant, quantization)
        return self._models[variant]

    def _make(self, variant: _Variant, quantization: Quantization) -> Any:
        if variant.float16:
            return with_biases_of_float16(self._models[_AS_TRAINED])
        if variant.finetune_steps:
            before = self.model(replace(quantization, finetune_steps=0))
            photos, steps = self.images(quantization.photos), variant.finetune_steps
            return finetune(before, photos, steps, weight_bits=variant.weight_bits)
        made, _ = equalize(self._models[_AS_TRAINED], self.images(quantization.photos))
        return made

    def _onnx(self, form: Format, quantization: Quantization) -> bytes:
        graph = self._graph(quantization, form.precision)
        if form.precision == "float32":
            return onnx.finish(graph, self._spec, form.precision)
        if form.precision == "float16":
            return onnx.finish(onnx_reduced.to_float16(graph), self._spec, form.precision)
        images = self.images(quantization.photos)
        recorded = {"quantization": quantization.as_dict(), "calibration_sha256": sha256(images)}
        return onnx.finish(onnx_reduced.quantize(graph, images, quantization), self._spec, form.precision, **recorded)

    def _graph(self, quantization: Quantization, precision: str) -> Any:
        """The clean float32 ONNX graph."""
        variant = _variant(quantization, precision)
        if variant not in self._graphs:
            model = self.model(quantization, precision)
            self._graphs[variant] = onnx.build_onnx(
                model, self._spec.name, dynamic=self._options.dynamic, labels=self._options.labels
            )
        return self._graphs[variant]

    def _tflite(self, form: Format, quantization: Quantization) -> bytes:
        folder = self._work / form.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        images = self.images(quantization.photos)
        model = self.model(quantization, form.precision)
        return tflite.export_tflite(model, form.precision, self._spec, images, quantization, folder)


class _Variant(NamedTuple):
    """What was done to the trained model before it is converted."""

    equalized: bool = False
    finetune_steps: int = 0
    weight_bits: int = 0
    """Those that it was fine-tuned for; 0 where it was not."""
    float16: bool = False


_AS_TRAINED = _Variant()


def _variant(quantization: Quantization, precision: str) -> _Variant:
    if precision == "float16":
        return _Variant(float16=True)
    steps = quantization.finetune_steps
    return _Variant(quantization.equalized, steps, quantization.weight_bits if steps else 0)
