"""The result of one photo: probabilities on the model's grid; mask and opacity at the photo's own size."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from PIL import Image

from unet_runtime.core import masks, render
from unet_runtime.core.geometry import Placement
from unet_runtime.core.photo import StoredPhoto, limit_opacity, whole_photo
from unet_runtime.core.resample import bands
from unet_runtime.core.runs import Runs, mask_of, runs_of
from unet_runtime.core.spec import ModelSpec

if TYPE_CHECKING:
    import numpy.typing as npt

T = TypeVar("T")


class Result(Protocol):
    """What is saved: a ``Segmentation``, or one made of tiles."""

    @property
    def photo(self) -> Image.Image: ...

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def mask(self) -> npt.NDArray[np.uint8]: ...

    @property
    def opacity(self) -> npt.NDArray[np.uint8]: ...

    @property
    def scores(self) -> tuple[float, ...]: ...

    def probability_bands(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]: ...

    def mask_runs(self) -> Iterable[Runs]: ...


MIN_SCORE = 0.5
"""Score from which a class counts as found: below, something else is likelier in its own region."""


class Findings:
    """What every result can say of the classes in the photo."""

    def mask_runs(self: Result) -> Iterable[Runs]:
        """The runs of ``mask``, from the top down."""
        for top, bottom in bands(self.size):
            yield runs_of(self.mask[top:bottom])

    def score(self: Result, name: str) -> float:
        """Mean probability of a class in its region, the part of the photo where it is the most probable one.

        Args:
            name: of a class.

        Returns:
            0..1; 0 where the class has no region.

        Raises:
            ValueError: the model has no such class.
        """
        if name not in self.spec.class_names:
            raise ValueError(f"class {name!r}, expected one of {', '.join(self.spec.class_names)}")
        return self.scores[self.spec.class_names.index(name)]

    def found(self: Result, min_score: float = MIN_SCORE, min_share: float = 0.0) -> tuple[str, ...]:
        """Foreground classes that are in the photo.

        Args:
            min_score: of a class, at least; see ``score``.
            min_share: of the photo's pixels, 0..1, that a class has, at least.

        Returns:
            Their names; none where the photo shows nothing that the model looks for.
        """
        names = []
        for index in self.spec.roles("foreground"):
            has_score = self.scores[index] >= min_score and self.scores[index] > 0
            if has_score and (not min_share or np.mean(self.mask == index) >= min_share):
                names.append(self.spec.class_names[index])
        return tuple(names)


def taken_out(result: Result, found: Collection[str]) -> tuple[int, ...]:
    """Ids of the classes that ``only`` takes out of a result; none where there is no background to take their place."""
    spec = result.spec
    foreground = spec.roles("foreground")
    if not foreground or not spec.roles("background"):
        return ()
    if not set(spec.role_names("foreground")) & set(found):
        return foreground + spec.roles("neutral")  # the border of nothing
    return tuple(index for index in foreground if spec.class_names[index] not in found and result.scores[index])


class Pictures:
    """The pictures that every result can make of itself."""

    def mask_image(self: Result) -> Image.Image:
        """Mode L: pixel value = class id."""
        return render.mask_image(self.mask)

    def palette_image(self: Result) -> Image.Image:
        """Mode P: pixel value = class id, coloured as the spec says."""
        return render.palette_image(self.mask, self.spec)

    def overlay(self: Result) -> Image.Image:
        """RGB: the photo, its classes tinted."""
        return render.overlay(self.photo, self.mask, self.spec)

    def cutout(self: Result) -> Image.Image:
        """RGBA: the foreground alone, with a soft edge; nothing of the photo is left where it is transparent."""
        return render.cutout(self.photo, self.opacity)

    def __repr__(self: Result) -> str:
        width, height = self.size
        return f"{type(self).__name__}({width}x{height}, {self.spec.name}: {', '.join(self.spec.class_names)})"


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation(Findings, Pictures):
    """What a model says of one photo; pictures of it are made when asked for.

    ``mask`` and ``opacity`` are made once and kept. Any thread may ask for them.
    """

    source: Image.Image | StoredPhoto
    """The photo, upright, its pixels perhaps still in its file: see ``photo``."""
    probabilities: npt.NDArray[np.float32]
    """float32 (h, w, C) on the model's grid, the model's output: a sigmoid model's do not sum to 1."""
    spec: ModelSpec
    placement: Placement
    """Where the photo lies in the grid."""
    is_refined: bool = False
    """Whether the opacity follows the photo's own edges: see ``refined``."""
    _made: dict[str, Any] = field(default_factory=dict, init=False)

    @property
    def photo(self) -> Image.Image:
        """RGB, upright, at its own size (W, H); what is still in its file is decoded when it is asked for.

        Raises:
            ImageError: the file is damaged.
        """
        return whole_photo(self.source)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the photo, and of everything made of it."""
        return self.source.size

    @property
    def mask(self) -> npt.NDArray[np.uint8]:
        """Class ids, uint8 (H, W), at the photo's own size."""
        return self._once("mask", self._mask)

    def _mask(self) -> npt.NDArray[np.uint8]:
        if self._runs:
            return mask_of(self._runs, self.size)
        return masks.class_mask(self._planes, self.size, self._leaders)

    def mask_runs(self) -> Iterable[Runs]:
        """The runs of ``mask``, from the top down; those of a large photo are made without it."""
        return self._runs or super().mask_runs()

    @property
    def _runs(self) -> list[Runs]:
        return self._once("runs", lambda: masks.class_runs(self._planes, self.size, self._leaders))

    @property
    def opacity(self) -> npt.NDArray[np.uint8]:
        """Opacity of each pixel in a cut-out, uint8 (H, W): 0 background .. 255 foreground; at most the photo's own."""
        return self._once("opacity", self._opacity)

    def _opacity(self) -> npt.NDArray[np.uint8]:
        if not self.is_refined:
            return limit_opacity(masks.opacity(self._planes, self.size, self.spec), self.source)
        from unet_runtime.core import matting  # what few need

        share = masks.foreground_share(self._planes, self.spec)
        return limit_opacity(matting.refined(share, self.photo), self.source)

    @property
    def scores(self) -> tuple[float, ...]:
        """Mean probability of each class in its region, by class id, see ``score``; as the model gave it."""
        return self._once("scores", lambda: masks.scores(masks.region_sums(self._planes, self._leaders.ids)))

    def refined(self) -> Segmentation:
        """This result with cut-outs whose edges follow the photo at its own size; its mask is the same.

        Example:
            >>> import numpy as np
            >>> from unet_runtime import Segmenter
            >>> cutout = Segmenter()(np.zeros((40, 60, 3), np.uint8)).refined().cutout()
            >>> cutout.mode, cutout.size
            ('RGBA', (60, 40))
        """
        return replace(self, is_refined=True)

    def only(self, found: Collection[str]) -> Segmentation:
        """This result without the foreground classes that are not among ``found``, a list of names.

        Their part of the photo goes to what is likelier there of the others, in mask, pictures and probabilities;
        without any foreground all is background. ``scores`` stay as they are.
        """
        ids = taken_out(self, found)
        if not ids:
            return self
        rest = self.spec.roles("background")[0]
        result = replace(self, probabilities=masks.without(self.probabilities, ids, rest))
        result._made["scores"] = self.scores
        return result

    def probability_bands(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Probabilities at the photo's own size, a band of rows at a time: memory stays bounded whatever the size.

        Yields:
            (top, band) from the top down: the band's first row, and float32 (rows, W, C); ``mask`` is their argmax.
        """
        return masks.probability_bands(self._planes, self.size)

    @property
    def _planes(self) -> npt.NDArray[np.float32]:
        return self._once("planes", lambda: masks.photo_planes(self.probabilities, self.placement, self.spec))

    @property
    def _leaders(self) -> masks.Leaders:
        return self._once("leaders", lambda: masks.leaders(self._planes))

    def _once(self, name: str, make: Callable[[], T]) -> T:
        # Not functools.cached_property: before Python 3.12 it makes the threads of all photos take turns
        # (https://github.com/python/cpython/issues/87634).
        if name not in self._made:
            self._made[name] = make()
        made: T = self._made[name]
        return made
