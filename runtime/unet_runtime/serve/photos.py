"""POST /segment: a photo in, one of the results of unet-run out."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import NamedTuple

from unet_runtime.core import decoders
from unet_runtime.core.errors import ImageError
from unet_runtime.core.photo import stored_photo
from unet_runtime.core.segmentation import MIN_SCORE, Segmentation
from unet_runtime.io.coco import areas_by_name
from unet_runtime.io.jobs import PixelBudget
from unet_runtime.io.kind import Checkpoint, Metadata
from unet_runtime.io.sinks import KINDS, RESULTS, encode
from unet_runtime.serve.metrics import Metrics
from unet_runtime.serve.models import Model
from unet_runtime.serve.refusals import BAD_REQUEST, NOT_ACCEPTABLE, RefusalError

DEFAULT = "cutout"
MEDIA_TYPES = {
    ".png": "image/png",
    ".webp": "image/webp",
    ".jpg": "image/jpeg",
    ".tif": "image/tiff",
    ".json": "application/json",
    ".npz": "application/x-npz",
}
"""Suffix of a result -> what it is called in HTTP."""

_OTHER_NAMES = {"jpeg": "jpg", "tiff": "tif"}
PARAMETERS = ("save", "format", "model", "version", "refine", "min_score", "min_share")
_NOT_OURS = ("token",)
_LONGEST_HEADER = 4000  # characters; clients refuse heads that are too long, and a model may have 256 classes


class Wanted(NamedTuple):
    """What a client asks for."""

    kind: str
    """One of ``KINDS``."""
    suffix: str
    model: str = ""
    version: str = ""
    refine: bool = False
    """Whether the edges of cut-outs follow the photo's own."""
    min_score: float = MIN_SCORE
    min_share: float = 0.0
    """What counts as found, see ``Findings.found``."""

    @property
    def media_type(self) -> str:
        """For the header Content-Type."""
        return MEDIA_TYPES[self.suffix]


def wanted(given: Mapping[str, str], accept: str) -> Wanted:
    """Read the parameters of a request.

    Args:
        given: some of ``PARAMETERS``.
        accept: the header Accept, which decides what these leave open.

    Raises:
        RefusalError: an unknown parameter or value, or nothing that the client accepts.
    """
    for name in given:
        if name not in (*PARAMETERS, *_NOT_OURS):
            raise RefusalError(BAD_REQUEST, f"parameter {name[:40]!r}, expected some of {', '.join(PARAMETERS)}")
    accepted = _accepted(accept)
    kind = given.get("save", "")
    if not kind:
        kind = "json" if accepted and accepted[0] == MEDIA_TYPES[".json"] else DEFAULT
    if kind not in KINDS:
        raise RefusalError(BAD_REQUEST, f"save={kind[:40]!r}, expected one of {', '.join(RESULTS)}")
    return Wanted(
        kind,
        _suffix(kind, given.get("format", "").lower(), accepted),
        given.get("model", ""),
        given.get("version", ""),
        _switch("refine", given.get("refine", "")),
        _share("min_score", given.get("min_score", ""), MIN_SCORE),
        _share("min_share", given.get("min_share", ""), 0.0),
    )


def _switch(name: str, text: str) -> bool:
    values = {"": False, "false": False, "0": False, "true": True, "1": True}
    if text.lower() not in values:
        raise RefusalError(BAD_REQUEST, f"{name}={text[:40]!r}, expected true or false")
    return values[text.lower()]


def _share(name: str, text: str, default: float) -> float:
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:  # NaN is in no range
        raise RefusalError(BAD_REQUEST, f"{name}={text[:40]!r}, expected a number from 0 to 1")
    return value


def _suffix(kind: str, form: str, accepted: list[str]) -> str:
    offered = [suffix for suffix in KINDS[kind].suffixes if suffix in MEDIA_TYPES]
    if form:
        suffix = f".{_OTHER_NAMES.get(form, form)}"
        if suffix not in offered:
            known = ", ".join(entry[1:] for entry in offered)
            raise RefusalError(BAD_REQUEST, f"format={form[:40]!r}, a {kind} can be had as {known}")
        return suffix
    for media_type in accepted:
        for suffix in offered:
            if _matches(media_type, MEDIA_TYPES[suffix]):
                return suffix
    if not accepted:
        return offered[0]
    known = ", ".join(MEDIA_TYPES[suffix] for suffix in offered)
    raise RefusalError(NOT_ACCEPTABLE, f"Accept: {', '.join(accepted)[:100]}: a {kind} can be had as {known}")


def _accepted(header: str) -> list[str]:
    """Media types of an Accept header, the preferred ones first, without those of weight 0."""
    weighted = []
    for entry in header.split(","):
        media_type, *parameters = [part.strip().lower() for part in entry.split(";")]
        if media_type:
            weighted.append((_weight(parameters), media_type))
    weighted.sort(key=lambda pair: -pair[0])
    return [media_type for weight, media_type in weighted if weight > 0]


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _matches(pattern: str, media_type: str) -> bool:
    return pattern in ("*/*", media_type, media_type.split("/")[0] + "/*")


@dataclass(frozen=True)
class Photographer:
    """Segments encoded photos for every protocol.

    Args:
        max_pixels: of a photo.
        metrics: time its stages.
        budget: for all photos in work together.
    """

    max_pixels: int
    metrics: Metrics
    budget: PixelBudget

    def segment(self, photo: bytes, model: Model, checkpoint: Checkpoint) -> Segmentation:
        """From a file's bytes to a result that is still to be encoded.

        Raises:
            ImageError: no readable photo, or too large a one.
            BackendError: the engine failed.
        """
        try:
            with self.metrics.measure("decode"):
                prepared = model.segmenter.prepare(stored_photo(io.BytesIO(photo), self.max_pixels))
            checkpoint()
            with self.metrics.measure("infer"):
                probabilities = model.infer(prepared.images)[0]
            checkpoint()
            return model.segmenter.finish(prepared, probabilities)
        except MemoryError as error:
            raise ImageError("photo too large for this machine's memory") from error

    def encoded(self, result: Segmentation, kind: str, suffix: str, metadata: Metadata) -> bytes:
        """The bytes of a result; see ``sinks.encode``.

        Raises:
            OutputError: the format cannot hold it.
        """
        try:
            with self.metrics.measure("encode"):
                return encode(result, kind, metadata, suffix)
        except MemoryError as error:
            raise ImageError("photo too large for this machine's memory") from error

    def answer(
        self, photo: bytes, file_name: str, asked: Wanted, model: Model, checkpoint: Checkpoint
    ) -> tuple[bytes, dict[str, str]]:
        """The whole way of a request: (body, headers) of its response.

        Raises:
            ImageError, BackendError, OutputError: as the steps.
        """
        metadata = Metadata(photo=base_name(file_name), engine=model.backend.engine)
        with self.budget.reserve(pixels(photo)):
            checkpoint()
            result = self.segment(photo, model, checkpoint)
            found = result.found(asked.min_score, asked.min_share)
            result = result.only(found)
            result = result.refined() if asked.refine else result
            body = self.encoded(result, asked.kind, asked.suffix, metadata)
            headers = {
                "X-Model": f"{model.name}/{model.version}",
                "X-Size": "{}x{}".format(*result.size),
                "X-Found": json.dumps(found),
            }
            areas = json.dumps(areas_by_name(result), separators=(",", ":"))  # ASCII, as a header must be
        if len(areas) <= _LONGEST_HEADER:
            headers["X-Classes"] = areas
        return body, headers


def pixels(photo: bytes) -> int:
    """Pixels of a photo by its header, which is all that is read; 0 where it is none."""
    try:
        width, height = decoders.image_size(io.BytesIO(photo), "")
    except Exception:  # decoders raise anything; open_photo says what is wrong
        return 0
    return width * height


def base_name(name: str) -> str:
    """The last part of a name that a client sent, whatever its system; only ever shown."""
    return PureWindowsPath(PurePosixPath(name).name).name[:255]
