"""Segmenter: photo in, Segmentation out. The whole way from photo to mask in one file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from unet_runtime import engines
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.errors import BackendError, ModelFileError
from unet_runtime.core.geometry import model_input
from unet_runtime.core.photo import Photo, any_photo
from unet_runtime.core.segmentation import Segmentation
from unet_runtime.engines.base import Backend

if TYPE_CHECKING:
    from unet_runtime.core.stream import Stream
    from unet_runtime.core.tiling import TiledSegmentation


class _Ready(NamedTuple):
    photo: Image.Image
    images: npt.NDArray[np.uint8]
    """(1, h, w, 3), as the model wants it."""


class Segmenter:
    """A model, loaded and ready; may be called from several threads.

    Args:
        model: a ``.onnx`` or ``.tflite`` file made by unet-export; None takes the bundled pets model.
        backend: ``onnx``, ``tflite``, ``openvino``, or ``auto``: by the file's suffix and what is installed.
        device: one of ``engines.DEVICES``; ``auto`` takes the fastest that really runs.
        threads: CPU threads of the engine; None lets the engine choose.

    Raises:
        ModelFileError: the file is missing, damaged or carries no spec.
        BackendError: the engine is not installed or does not run on ``device``.

    Example:
        >>> import unet_runtime
        >>> photo = Path(unet_runtime.__file__).parent / "samples" / "chelsea.jpg"
        >>> with unet_runtime.Segmenter() as segmenter:
        ...     result = segmenter(photo)
        >>> result.mask.shape, str(result.mask.dtype), result.photo.size
        ((300, 451), 'uint8', (451, 300))
        >>> result.spec.class_names
        ('pet', 'background', 'border')
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        backend: str = "auto",
        device: engines.Device = "auto",
        threads: int | None = None,
    ) -> None:
        name, path = _choose(model, backend)
        artifact = read_artifact(path)
        self.spec = artifact.spec
        self._backend: Backend | None = engines.load(name, artifact, device=device, threads=threads)
        self._one_by_one = False  # found out: the file's batch is fixed at 1

    @property
    def backend(self) -> Backend:
        """The engine that runs the model.

        Raises:
            BackendError: the segmenter is closed.
        """
        backend = self._backend  # once: another thread may close it
        if backend is None:
            raise BackendError("this segmenter is closed: make a new one")
        return backend

    def __call__(self, photo: Photo) -> Segmentation:
        """Segment one photo: a path, a Pillow image of any mode, or uint8 (H, W, 3) RGB.

        A path is opened with ``preprocess.open_photo`` and its limit of pixels. An RGB Pillow image is taken as it is,
        not copied.

        Raises:
            ImageError: no readable photo.
            BackendError: the engine failed, or the segmenter is closed.
        """
        return self._finish(self._prepare(photo))

    def batch(self, photos: Iterable[Photo]) -> list[Segmentation]:
        """Segment several photos in one call of the engine, where the model file's batch is free; else one by one.

        All of them are in memory at once. Batches pay on a GPU; on a CPU one photo keeps all cores busy already, and
        ``stream`` needs less memory.

        Raises:
            ImageError: one of them is no readable photo; none has been segmented.
            BackendError: the engine failed, or the segmenter is closed.

        Example:
            >>> import numpy as np
            >>> photos = [np.zeros((40, 60, 3), np.uint8), np.zeros((60, 40, 3), np.uint8)]
            >>> [result.mask.shape for result in Segmenter().batch(photos)]
            [(40, 60), (60, 40)]
        """
        ready = [self._prepare(photo) for photo in photos]
        if not ready:
            return []
        answers = self._run(np.concatenate([item.images for item in ready]))  # float32 (n, h, w, C)
        return [Segmentation(item.photo, answer, self.spec) for item, answer in zip(ready, answers, strict=True)]

    def stream(self, photos: Iterable[Photo], ahead: int = 2) -> Stream[Photo, _Ready, Segmentation]:
        """Segment photos one after the other, in order, while a thread decodes the next ones.

        Nothing is read before the first result is asked for, and at most ``ahead`` photos (1 or more) are in memory
        before their turn. The thread ends with the last photo, with ``close()``, and when the stream is dropped.

        A photo that cannot be read raises its error in its turn, and the stream stays usable: call ``next`` again, or
        iterate over it again, and it goes on behind that photo.

        Raises:
            ImageError: when it is a photo's turn that is not readable.
            BackendError: the engine failed, or the segmenter is closed.
            ValueError: ``ahead`` below 1.

        Example:
            >>> import numpy as np
            >>> from unet_runtime import ImageError
            >>> photos = [np.zeros((40, 60, 3), np.uint8), "absent.jpg", np.zeros((60, 40, 3), np.uint8)]
            >>> results = Segmenter().stream(photos)
            >>> for photo in photos:
            ...     try:
            ...         print(next(results).mask.shape)
            ...     except ImageError as error:
            ...         print(error)
            (40, 60)
            absent.jpg: no such file, expected a photo
            (60, 40)
        """
        from unet_runtime.core.stream import Stream  # with what threads need, which one photo does not

        return Stream(photos, self._prepare, self._finish, ahead)

    def tiled(self, photo: Photo, overlap: float = 0.25) -> TiledSegmentation:
        """Segment a photo at its own resolution, in overlapping tiles of the model's input size.

        For models trained on patches, and photos of any size: see tiling.py. A model trained on whole photos, as the
        bundled one, expects to see the whole photo: call the segmenter.

        Args:
            photo: as for a call.
            overlap: share of a tile's side that it has in common with the next one, at least; 0..0.75.

        Returns:
            What a call returns, less ``probabilities``: ``mask``, ``opacity``, ``probability_bands()``, pictures.

        Raises:
            ImageError: no readable photo.
            BackendError: the engine failed, or the segmenter is closed.
            ModelFileError: the model's output is not its input less the margin, so tiles would not fit together.
            ValueError: an overlap out of range.
        """
        from unet_runtime.core import tiling  # what few need

        return tiling.segment(any_photo(photo), self.spec, self._run, overlap)

    def close(self) -> None:
        """Free the model. Calls that are under way end as usual, later ones raise ``BackendError``."""
        self._backend = None

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self, photo: Photo) -> _Ready:
        image = any_photo(photo)
        try:
            return _Ready(image, model_input(image, self.spec.input))
        except (MemoryError, OverflowError, ValueError) as error:  # a spec may say anything
            fed = self.spec.input
            raise ModelFileError(
                f"{self.spec.name}: its spec asks for an input of {fed.width}x{fed.height} pixels, which cannot be "
                f"made ({error}): export it again"
            ) from error

    def _finish(self, ready: _Ready) -> Segmentation:
        return Segmentation(ready.photo, self._run(ready.images)[0], self.spec)

    def _run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, h, w, 3) -> float32 (n, h', w', C), of the shape that the spec says."""
        backend = self.backend
        if len(images) > 1 and self._one_by_one:
            return np.concatenate([self._run(image[np.newaxis]) for image in images])
        try:
            answers = backend.run(images)
        except BackendError:
            if len(images) == 1:
                raise
            self._one_by_one = True  # if that is not why, the first photo alone says so
            return self._run(images)
        expected = (len(images), self.spec.output.height, self.spec.output.width, len(self.spec.classes))
        if answers.shape != expected:
            raise BackendError(f"the model answers {answers.shape[1:]}, its spec says {expected[1:]}: export it again")
        with np.errstate(all="ignore"):
            sound = np.isfinite(answers.sum())
        if not sound:  # a float16 that overflows, or a quantisation gone wrong
            raise BackendError(
                f"the model answers NaN or infinity, expected probabilities: {self.spec.name} {self.spec.precision} "
                f"does not work on {backend.engine}, {backend.device}: take another precision, engine or device"
            )
        return answers


def _choose(model: str | os.PathLike[str] | None, backend: str) -> tuple[str, Path]:
    """(engine, model file) for what the user named."""
    if model is not None:
        path = Path(model)
        return (engines.engine_for(path.suffix) if backend == "auto" else backend), path
    name = engines.default_engine() if backend == "auto" else backend
    return name, engines.find(name).default_model
