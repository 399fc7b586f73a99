"""Segmenter: photo in, Segmentation out. The whole way from photo to mask in one file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from unet_runtime import engines
from unet_runtime.core import masks
from unet_runtime.core.arrays import Channels
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.errors import BackendError, ModelFileError
from unet_runtime.core.geometry import Placement, fill_input, place
from unet_runtime.core.photo import any_photo, whole_photo
from unet_runtime.core.segmentation import Segmentation
from unet_runtime.engines.base import Backend

if TYPE_CHECKING:
    import numpy.typing as npt

    from unet_runtime.core.photo import Photo, StoredPhoto
    from unet_runtime.core.stream import Stream
    from unet_runtime.core.tiling import TiledSegmentation

VERIFY_KEY = "UNET_EDGE_VERIFY_KEY"
"""Environment variable with the file of keys or the policy that every program on a device asks for."""

_OUT_OF_RANGE = 0.05
_SUM_ERROR = 0.05
_SUM_ERROR_PER_CLASS = 1 / 256  # what rounding to integers adds
"""How far from probabilities an output may be, quantised ones included."""


class _Origin(NamedTuple):
    """What a segmenter was made of."""

    model: Path
    backend: str
    device: str
    threads: int | None
    verify_key: Path | None


class Prepared(NamedTuple):
    """A photo that is ready for the model."""

    photo: Image.Image | StoredPhoto
    """RGB, upright, at its own size (W, H); of a JPEG perhaps still in its file."""
    images: npt.NDArray[np.uint8]
    """(1, h, w, 3) RGB in 0..255, as the model wants it."""
    placement: Placement
    """Where the photo lies in the model's input and output."""


class Segmenter:
    """A model, loaded and ready; may be called from several threads.

    In another process, forked or one that it is sent to (pickled), it is loaded again from its file: each process of a
    pool has its own engine.

    Args:
        model: a ``.onnx`` or ``.tflite`` file made by unet-export; None takes the bundled pets model.
        backend: an engine (a name in ``engines.ENGINES``: ``onnx``, ``tflite``, ``openvino``), or ``auto``: by the
            file's suffix and what is installed, and for the bundled model by the machine (docs/devices.md).
        device: ``auto`` takes the fastest that really runs, but never ``tensorrt``; ``cuda:1`` is the second GPU.
        threads: CPU threads of the engine; None lets the engine choose.
        verify_key: a file of public keys, or a policy (docs/signatures.md): the model must be signed by one of them.
            None takes the one that the variable UNET_EDGE_VERIFY_KEY names, if it is set, for models that are not
            bundled: those are part of the package, as its code is.

    Raises:
        ModelFileError: the file is missing, damaged or carries no spec, or is not signed as ``verify_key`` asks.
        BackendError: the engine does not run on ``device``, or does not read such files.
        MissingDependencyError: the engine is not installed.

    Example:
        >>> import unet_runtime
        >>> photo = Path(unet_runtime.__file__).parent / "samples" / "chelsea.jpg"
        >>> with unet_runtime.Segmenter() as segmenter:
        ...     result = segmenter(photo)
        >>> result  # doctest: +ELLIPSIS
        Segmentation(451x300, pets-...: pet, background, border)
        >>> result.mask.shape, str(result.mask.dtype), result.photo.size
        ((300, 451), 'uint8', (451, 300))
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        backend: str = "auto",
        device: str = "auto",
        threads: int | None = None,
        verify_key: str | os.PathLike[str] | None = None,
    ) -> None:
        name, path = _choose(model, backend, device)
        artifact = read_artifact(path)
        key = _key_for(path, verify_key)
        if key is not None:
            from unet_runtime.core.signature import check_signature  # few ask for it

            check_signature(artifact, key)
        self.spec = artifact.spec
        self._origin = _Origin(path.absolute(), name, device, threads, key)
        self._backend: Backend | None = engines.load(name, artifact, device=device, threads=threads)
        self._process = os.getpid()
        self._one_by_one = False  # found out: the file's batch is fixed at 1
        self._is_checked = False

    def __repr__(self) -> str:
        where = f"{self._backend.engine}, {self._backend.device}" if self._backend else "closed"
        return f"Segmenter({self.spec.name} {self.spec.precision}, {where})"

    def __reduce__(self) -> tuple[object, ...]:
        self.backend  # noqa: B018  # refuses where it is closed
        return _load_again, (type(self), self._origin, self.spec.to_json())

    @property
    def backend(self) -> Backend:
        """The engine that runs the model.

        Raises:
            BackendError: the segmenter is closed.
        """
        backend = self._backend  # once: another thread may close it
        if backend is None:
            raise BackendError("this segmenter is closed: make a new one")
        if self._process != os.getpid():  # forked: the engine's threads are not here, it would wait for them for ever
            again = _load_again(Segmenter, self._origin, self.spec.to_json())
            backend = again.backend
            self._backend, self._process = backend, os.getpid()
        return backend

    def __call__(self, photo: Photo, *, channels: Channels = "rgb") -> Segmentation:
        """Segment one photo.

        Args:
            photo: a path, a file's content (``bytes``), a binary file, a Pillow image of any mode, or a uint8 array:
                colour (H, W, 3), colour and opacity (H, W, 4), grey (H, W) or (H, W, 1). Files are read with
                ``core.photo.stored_photo`` and Pillow's limit of pixels; of a large JPEG no more is decoded than the
                model needs, until ``photo``, or a picture that shows it, is asked for. An RGB Pillow image is taken as
                it is, not copied.
            channels: order of an array's colours: ``bgr`` for what OpenCV gives. The result is RGB in any case.

        Raises:
            ImageError: no readable photo.
            BackendError: the engine failed, or the segmenter is closed.

        Example:
            >>> import io
            >>> import numpy as np
            >>> from PIL import Image
            >>> file = io.BytesIO()
            >>> Image.new("RGB", (60, 40)).save(file, "JPEG")
            >>> segmenter = Segmenter()
            >>> segmenter(file.getvalue()).mask.shape, segmenter(np.zeros((40, 60), np.uint8)).mask.shape
            ((40, 60), (40, 60))
        """
        return self._segment(self.prepare(photo, channels=channels))

    def prepare(self, photo: Photo, *, channels: Channels = "rgb") -> Prepared:
        """First of the three steps of a call: open a photo and bring it to the model's input; needs no engine.

        Raises:
            ImageError: no readable photo.
            ModelFileError: an input of the size that the spec asks for cannot be made.

        Example:
            >>> import numpy as np
            >>> segmenter = Segmenter()
            >>> prepared = segmenter.prepare(np.zeros((40, 60, 3), np.uint8))
            >>> probabilities = segmenter.infer(prepared.images)
            >>> prepared.images.shape, probabilities.shape
            ((1, 160, 160, 3), (1, 160, 160, 3))
            >>> segmenter.finish(prepared, probabilities[0]).mask.shape
            (40, 60)
        """
        image = any_photo(photo, channels)
        try:
            placement = place(image.size, self.spec)
            return Prepared(image, fill_input(image, placement.box, self.spec.input), placement)
        except (MemoryError, OverflowError, ValueError) as error:  # a spec may say anything
            size = self.spec.input
            raise ModelFileError(
                f"{self.spec.name}: its spec asks for an input of {size.width}x{size.height} pixels, which cannot be "
                f"made ({error}): export it again"
            ) from error

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Second step: run the model, and check what it returns.

        Args:
            images: uint8 (n, h, w, 3) RGB in 0..255, n photos as ``prepare`` makes them.

        Returns:
            float32 probabilities (n, h', w', C), of the shape that the spec says, all finite.

        Raises:
            BackendError: the engine failed, the output is not what the spec says, or the segmenter is closed.
        """
        backend = self.backend
        if len(images) > 1 and self._one_by_one:
            return np.concatenate([self.infer(image[np.newaxis]) for image in images])
        try:
            outputs = backend.run(images)
        except BackendError:
            if len(images) == 1:
                raise
            self._one_by_one = True  # if that is not why, the first photo alone says so
            return self.infer(images)
        expected = (self.spec.output.height, self.spec.output.width, len(self.spec.classes))
        if outputs.shape != (len(images), *expected):
            raise BackendError(f"the model's output is {outputs.shape[1:]}, its spec says {expected}: export it again")
        if not np.isfinite((outputs.min(), outputs.max())).all():  # a float16 that overflows, or a bad quantisation
            raise BackendError(
                f"the model's output has NaN or infinity, expected probabilities: {self.spec.name} "
                f"{self.spec.precision} does not work on {backend.engine}, {backend.device}: take another precision, "
                "engine or device"
            )
        probabilities = masks.activated(outputs, self.spec)
        if not self._is_checked:
            self._check_probabilities(probabilities)
            self._is_checked = True
        return probabilities

    def _check_probabilities(self, outputs: npt.NDArray[np.float32]) -> None:
        """Once, with the first output: a model of logits, or of another activation than its spec says, is wrong.

        Raises:
            ModelFileError: no probabilities.
        """
        low, high = float(outputs.min(initial=0)), float(outputs.max(initial=0))
        if low < -_OUT_OF_RANGE or high > 1 + _OUT_OF_RANGE:
            raise ModelFileError(
                f"{self.spec.name}: its output lies in {low:.3g}..{high:.3g}, expected probabilities in 0..1: give it "
                "a softmax or sigmoid as its last layer, and export it again"
            )
        error = float(np.abs(outputs.sum(axis=-1) - 1).mean()) if outputs.size else 0.0
        if self.spec.output.activation == "softmax" and error > _SUM_ERROR + _SUM_ERROR_PER_CLASS * outputs.shape[-1]:
            raise ModelFileError(
                f"{self.spec.name}: its classes' probabilities differ from a sum of 1 by {error:.3g}, expected those "
                "of a softmax, as its spec says: correct the spec's activation, and export it again"
            )

    def finish(self, prepared: Prepared, probabilities: npt.NDArray[np.float32]) -> Segmentation:
        """Third step: the result of one photo, from its probabilities float32 (h', w', C)."""
        return Segmentation(prepared.photo, probabilities, self.spec, prepared.placement)

    def _segment(self, prepared: Prepared) -> Segmentation:
        return self.finish(prepared, self.infer(prepared.images)[0])

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
        prepared = list(map(self.prepare, photos))
        if not prepared:
            return []
        outputs = self.infer(np.concatenate([item.images for item in prepared]))  # float32 (n, h', w', C)
        return list(map(self.finish, prepared, outputs))

    def stream(self, photos: Iterable[Photo], ahead: int = 2) -> Stream[Photo, Prepared, Segmentation]:
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

        return Stream(photos, self.prepare, self._segment, ahead)

    def tiled(self, photo: Photo, overlap: float = 0.25, *, channels: Channels = "rgb") -> TiledSegmentation:
        """Segment a photo at its own resolution, in overlapping tiles of the model's input size.

        For models trained on patches, and photos of any size: see core/tiling.py. A model trained on whole photos, as
        the bundled one, expects to see the whole photo: call the segmenter.

        Args:
            photo: as for a call.
            overlap: share of a tile's side that it has in common with the next one, at least; 0..0.75.
            channels: as for a call.

        Returns:
            What a call returns, less ``probabilities``: ``mask``, ``opacity``, ``probability_bands()``, pictures.

        Raises:
            ImageError: no readable photo.
            BackendError: the engine failed, or the segmenter is closed.
            ValueError: an overlap out of range.
        """
        from unet_runtime.core import tiling  # what few need

        return tiling.segment(whole_photo(any_photo(photo, channels)), self.spec, self.infer, overlap)

    def close(self) -> None:
        """Free the model. Calls that are under way end as usual, later ones raise ``BackendError``."""
        self._backend = None

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _load_again(kind: type[Segmenter], origin: _Origin, spec: str) -> Segmenter:
    """A segmenter that was sent here from another process.

    Raises:
        ModelFileError: the file has another model by now.
    """
    segmenter = kind(
        origin.model,
        backend=origin.backend,
        device=origin.device,
        threads=origin.threads,
        verify_key=origin.verify_key,
    )
    if segmenter.spec.to_json() != spec:
        raise ModelFileError(f"{origin.model}: has changed since the segmenter was made of it: make a new one")
    return segmenter


def _key_for(model: Path, verify_key: str | os.PathLike[str] | None) -> Path | None:
    """The file of keys that a model is checked with; None: it is not."""
    if verify_key is None and model.absolute().parent != engines.MODELS.absolute():
        verify_key = os.environ.get(VERIFY_KEY) or None
    return None if verify_key is None else Path(verify_key).absolute()


def _choose(model: str | os.PathLike[str] | None, backend: str, device: str) -> tuple[str, Path]:
    """(engine, model file) for what the user named."""
    if model is not None:
        path = Path(model)
        return (engines.engine_for(path.suffix, device) if backend == "auto" else backend), path
    choice = engines.default_choice(backend, device)
    return choice.engine, choice.model
