"""Photos in the batches of a data engine: for Ray Data's ``map_batches``, Spark's ``mapInPandas``, and Daft.

photos = ray.data.read_parquet("s3://photos/list.parquet")                # Ray Data
photos.map_batches(SegmentPhotos, fn_constructor_kwargs={"threads": 1}, num_cpus=1, batch_size=16)

photos.mapInPandas(SegmentPhotos().frames, SegmentPhotos.schema("photo string"))      # Spark

@daft.func.batch(return_dtype=daft.DataType.binary())                     # Daft
def mask(photos: daft.Series) -> list:
    return segment.columns(photos.to_pylist())["mask"]
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from unet_runtime.core.segmentation import MIN_SCORE
from unet_runtime.io.examine import Choices
from unet_runtime.io.jobs import PixelBudget, Pool, map_in_order
from unet_runtime.io.kind import Metadata
from unet_runtime.io.rows import PhotoRow, RowSettings, RowWork
from unet_runtime.io.sinks import KINDS
from unet_runtime.segmenter import Segmenter

_WORKERS = 2
"""One reads a file while the other's photo is segmented."""


class SegmentPhotos:
    """Segment the photos of batches: a column of photos in; columns of results out, beside those that are there.

    The columns are ``error`` (None where there is a result), ``width``, ``height``, ``found``, ``classes`` (a list of
    ``name``, ``pixels``, ``share``, ``score``), and one of bytes for each of ``save``, as in ``--results parquet``. A
    photo that fails is a row with an error. The model is loaded with the first batch, once in each process: an object
    can be sent to other processes before.

    Args:
        model, backend, device: as those of ``Segmenter``; a path must lead to the model on every machine.
        threads: CPU threads of the engine: as many as the worker, executor or actor has CPUs.
        column: name of the column of photos: paths, addresses or the files' bytes.
        save: kinds of results.
        tile, refine, min_score, min_share, max_pixels, contours: as the options of ``unet-run``.

    Raises:
        ValueError: there is no such kind of results.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (60, 40)).save(file, "PNG")
        >>> batch = SegmentPhotos()({"id": [1, 2], "photo": [file.getvalue(), "absent.jpg"]})
        >>> list(batch)
        ['id', 'photo', 'error', 'width', 'height', 'found', 'classes', 'mask']
        >>> batch["width"], batch["error"]
        ([60, None], [None, 'absent.jpg: no such file, expected a photo'])
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        backend: str = "auto",
        device: str = "auto",
        threads: int = 1,
        column: str = "photo",
        save: Sequence[str] = ("mask",),
        tile: float | None = None,
        refine: bool = False,
        min_score: float = MIN_SCORE,
        min_share: float = 0.0,
        max_pixels: int | None = None,
        contours: str = "polygons",
    ) -> None:
        unknown = [kind for kind in save if kind not in KINDS]
        if unknown:
            raise ValueError(f"save: {', '.join(unknown)}, expected some of {', '.join(KINDS)}")
        self._segmenter = {"model": model, "backend": backend, "device": device, "threads": threads}
        self._column = column
        choices = Choices(max_pixels, tile, refine, min_score, min_share)
        self._settings = RowSettings(tuple(save), choices, Metadata(contours=contours))
        self._work: RowWork | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_work": None}

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Segment a batch of Ray Data: columns by name, arrays or lists.

        Raises:
            KeyError: it has no column of photos.
            UnetRuntimeError: the model cannot be loaded, or the engine failed.
        """
        return {**batch, **self.columns(batch[self._column])}

    def frames(self, frames: Iterable[Any]) -> Iterator[Any]:
        """Segment data frames of pandas, one after the other: the function that Spark's ``mapInPandas`` takes."""
        for frame in frames:
            yield frame.assign(**self.columns(frame[self._column]))

    def columns(self, photos: Iterable[str | bytes]) -> dict[str, list[Any]]:
        """The results of photos, columns by name: for engines that give a column alone.

        Raises:
            UnetRuntimeError: the model cannot be loaded, or the engine failed.
        """
        names = ["error", "width", "height", "found", "classes", *self._settings.kinds]
        columns: dict[str, list[Any]] = {name: [] for name in names}
        rows = map(_row, photos)
        with closing(map_in_order(self._loaded(), rows, workers=_WORKERS)) as outcomes:
            for outcome in outcomes:
                values: dict[str, Any] = {"error": str(outcome.error)}
                if outcome.result is not None:
                    values = outcome.result.entry.values() | {"error": None}
                for name, column in columns.items():
                    column.append(values.get(name))
        return columns

    def _loaded(self) -> RowWork:
        if self._work is None:
            segmenter = Segmenter(**self._segmenter)  # type: ignore[arg-type]  # as they were given
            metadata = self._settings.metadata._replace(engine=segmenter.backend.engine)
            settings = self._settings._replace(metadata=metadata)
            self._work = RowWork(settings, segmenter, Pool([segmenter]), PixelBudget())
        return self._work

    def schema(self, columns: str) -> str:
        """The columns of the results in Spark's language, behind those of the input: ``photo string, id long``."""
        kinds = "".join(f", {kind} binary" for kind in self._settings.kinds)
        area = "struct<name: string, pixels: long, share: double, score: double>"
        return f"{columns}, error string, width int, height int, found boolean, classes array<{area}>{kinds}"


def _row(photo: str | bytes) -> PhotoRow:
    if isinstance(photo, (bytes, bytearray, memoryview)):
        return PhotoRow(0, "photo", bytes(photo))
    return PhotoRow(0, str(photo), str(photo))
