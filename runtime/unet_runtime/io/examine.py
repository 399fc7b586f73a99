"""A photo examined as the user wishes: read, segmented, what was not found taken out, edges refined, and described."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from unet_runtime.core.errors import ImageError
from unet_runtime.core.photo import StoredPhoto, photo_size, stored_jpeg, stored_photo, whole_photo
from unet_runtime.core.segmentation import MIN_SCORE, Result, Segmentation
from unet_runtime.core.spec import ModelSpec
from unet_runtime.io.coco import areas_by_name
from unet_runtime.io.jobs import PixelBudget, Plan, Pool, models_to_load
from unet_runtime.io.kind import Checkpoint
from unet_runtime.segmenter import Segmenter

if TYPE_CHECKING:
    from collections.abc import Callable

    from unet_runtime.core.tiling import TiledSegmentation


class Choices(NamedTuple):  # not a dataclass: half a millisecond of a cold start
    """What decides the results of a photo, beside the model."""

    max_pixels: int | None = None
    """Larger photos are refused; None: no limit."""
    tile: float | None = None
    """Share that tiles have in common; None: the photo as a whole."""
    refine: bool = False
    min_score: float = MIN_SCORE
    min_share: float = 0.0


def engine_pool(segmenter: Segmenter, shares: Plan, load: Callable[[], Segmenter]) -> Pool[Segmenter]:
    """A segmenter for each run at a time; several of them may be the same one."""
    count = models_to_load(segmenter.backend, shares.runs)
    loaded = [segmenter, *(load() for _ in range(count - 1))]
    return Pool(loaded * (shares.runs // count))


Source = Path | IO[bytes]


@contextmanager
def in_memory(
    name: object, source: Source, choices: Choices, budget: PixelBudget | None
) -> Iterator[Source | StoredPhoto]:
    """Wait until a photo of this size may be decoded; a single photo need not wait.

    Yields:
        The photo for ``examine``: where its file had to be opened for the size, it is not opened again.

    Raises:
        ImageError: the photo, so named, is too large for this machine, or no readable photo.
    """
    try:
        if budget is None or (isinstance(source, Path) and not os.path.isfile(source)):  # noqa: PTH113  # as files.py
            yield source
            return
        stored = stored_jpeg(source, choices.max_pixels)
        size = stored.size if stored else photo_size(source)
        if size is None:
            yield source
            return
        with budget.reserve(size[0] * size[1]):
            yield stored or source
    except MemoryError as error:
        raise ImageError(f"{name}: too large for this machine's memory") from error


def examine(
    source: Source | StoredPhoto,
    checkpoint: Checkpoint,
    *,
    choices: Choices,
    segmenter: Segmenter,
    engines: Pool[Segmenter],
) -> tuple[Segmentation | TiledSegmentation, tuple[str, ...]]:
    """The result of one photo, with the foreground classes that count as found.

    Args:
        source: the photo, see ``in_memory``.
        checkpoint: called between two steps.
        choices: the user's.
        segmenter: prepares the photo.
        engines: run the model.

    Raises:
        ImageError: no readable photo.
        BackendError: the engine failed.
        StoppedError: the run has ended.
    """
    result = _segmented(source, checkpoint, choices, segmenter, engines)
    found = result.found(choices.min_score, choices.min_share)
    result = result.only(found)
    if choices.refine and isinstance(result, Segmentation):  # tiles have the photo's own size
        result = result.refined()
    return result, found


def _segmented(
    source: Source | StoredPhoto,
    checkpoint: Checkpoint,
    choices: Choices,
    segmenter: Segmenter,
    engines: Pool[Segmenter],
) -> Segmentation | TiledSegmentation:
    """Read one photo and run the model, which no other photo waits for longer than that."""
    photo = source if isinstance(source, StoredPhoto) else stored_photo(source, choices.max_pixels)
    if choices.tile is not None:
        photo = whole_photo(photo)
        checkpoint()
        with engines.borrow() as borrowed:
            result: Segmentation | TiledSegmentation = borrowed.tiled(photo, choices.tile)
    else:
        prepared = segmenter.prepare(photo)
        checkpoint()
        with engines.borrow() as borrowed:
            probabilities = borrowed.infer(prepared.images)[0]
        result = segmenter.finish(prepared, probabilities)
    checkpoint()
    return result


def described(result: Result, found: Sequence[str]) -> tuple[dict[str, Any], str]:
    """What is said of a photo: for programs, as ``Done.content``, and for people."""
    areas = areas_by_name(result)
    is_empty = not found and bool(result.spec.role_names("foreground"))
    width, height = result.size
    facts = {"width": width, "height": height, "found": not is_empty, "classes": areas}
    return facts, _summary(result.spec, areas, found)


def _summary(spec: ModelSpec, areas: Mapping[str, Mapping[str, float]], found: Sequence[str]) -> str:
    """``pet 35% (score 0.95), border 8%``, or ``no pet found (score 0.41)``: what a photo's line says of it."""
    foreground = spec.role_names("foreground")
    if foreground and not found:
        best = max(areas[name]["score"] for name in foreground)
        return f"no {', '.join(foreground)} found" + (f" (score {best:.2f})" if best else "")
    parts = []
    for entry in spec.classes:
        if entry.role == "foreground":
            parts.append(f"{entry.name} {areas[entry.name]['share']:.0%} (score {areas[entry.name]['score']:.2f})")
        elif entry.role == "neutral":
            parts.append(f"{entry.name} {areas[entry.name]['share']:.0%}")
    return ", ".join(parts)
