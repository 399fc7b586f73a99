"""Segmenter: photo in, Segmentation out. The whole way from photo to mask in one file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from unet_runtime import backends, postprocess, render
from unet_runtime.artifact import read_artifact
from unet_runtime.errors import BackendError, ImageError
from unet_runtime.preprocess import model_input, open_photo, upright_rgb
from unet_runtime.spec import ModelSpec

Photo = str | os.PathLike[str] | Image.Image | npt.NDArray[np.uint8]
"""A path, a Pillow image of any mode, or uint8 (H, W, 3) RGB."""

_MODELS = Path(__file__).parent / "models"
_DEFAULT_MODELS = {
    "onnx": _MODELS / "pets-edge-160.float32.onnx",
    "tflite": _MODELS / "pets-edge-160.int8.tflite",
    "openvino": _MODELS / "pets-edge-160.float32.onnx",
}
"""The bundled model in each engine's format."""


@dataclass(frozen=True)
class Segmentation:
    """What a model says of one photo; pictures of it are made when asked for."""

    photo: Image.Image
    """RGB, upright, at its own size."""
    probabilities: npt.NDArray[np.float32]
    """float32 (h, w, classes) on the model's grid, as the model answers: a sigmoid model's do not sum to 1."""
    spec: ModelSpec

    @cached_property
    def mask(self) -> npt.NDArray[np.uint8]:
        """Class ids, uint8 (H, W), at the photo's own size."""
        return postprocess.class_mask(self.probabilities, self.photo.size, self.spec)

    def mask_image(self) -> Image.Image:
        """Mode P: pixel value = class id."""
        return render.palette_image(self.mask, self.spec)

    def overlay(self) -> Image.Image:
        """RGB: the photo, its classes tinted."""
        return render.overlay(self.photo, self.mask, self.spec)

    def cutout(self) -> Image.Image:
        """RGBA: the foreground alone, with a soft edge."""
        return render.cutout(self.photo, postprocess.opacity(self.probabilities, self.photo.size, self.spec))


class Segmenter:
    """A model, loaded and ready; may be called from several threads.

    Args:
        model: a ``.onnx`` or ``.tflite`` file made by unet-export; None takes the bundled pets model.
        backend: ``onnx``, ``tflite``, ``openvino``, or ``auto``: by the file's suffix and what is installed.
        device: ``cpu``, ``cuda``, or ``auto``: CUDA where it really runs.
        threads: CPU threads; None lets the engine choose.

    Raises:
        ModelFileError: the file is missing, damaged or carries no spec.
        BackendError: the engine is not installed or does not run on ``device``.

    Example:
        >>> from unet_runtime import Segmenter
        >>> Segmenter()("photo.jpg").cutout().save("photo.cutout.png")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        backend: str = "auto",
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        name, path = _choose(model, backend)
        artifact = read_artifact(path)
        self.spec = artifact.spec
        self.backend = backends.load(name, artifact, device=device, threads=threads)

    def __call__(self, photo: Photo) -> Segmentation:
        """Segment one photo.

        Raises:
            ImageError: no readable photo.
            BackendError: the engine failed.
        """
        image = _rgb_image(photo)
        batch = model_input(image, self.spec.input)  # uint8 (1, h, w, 3)
        probabilities = self.backend.run(batch)[0]  # float32 (h, w, classes)
        expected = (self.spec.output.height, self.spec.output.width, len(self.spec.classes))
        if probabilities.shape != expected:
            raise BackendError(f"the model answers {probabilities.shape}, its spec says {expected}: export it again")
        return Segmentation(image, probabilities, self.spec)


def _choose(model: str | os.PathLike[str] | None, backend: str) -> tuple[str, Path]:
    """(engine, model file) for what the user named."""
    if model is not None:
        path = Path(model)
        return (backends.engine_for(path.suffix) if backend == "auto" else backend), path
    if backend == "auto":
        there = [name for name in backends.ENGINES if backends.installed(name)]
        if not there:
            raise BackendError(f"no engine is installed: {backends.install_hint('onnx')} (or [tflite], [openvino])")
        backend = there[0]
    if backend not in _DEFAULT_MODELS:
        raise BackendError(f"backend {backend!r}, expected one of {', '.join(_DEFAULT_MODELS)}")
    return backend, _DEFAULT_MODELS[backend]


def _rgb_image(photo: Photo) -> Image.Image:
    if isinstance(photo, (str, os.PathLike)):
        return open_photo(photo)
    if isinstance(photo, Image.Image):
        return upright_rgb(photo)
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or photo.size == 0:
        raise ImageError(f"array {photo.dtype}{photo.shape}, expected uint8 (height, width, 3) RGB")
    return Image.fromarray(photo)
