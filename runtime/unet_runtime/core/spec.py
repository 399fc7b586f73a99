"""ModelSpec: everything a device must know to use a model.

Training writes it once, export carries it into every format, the runtime reads it. The runtime has no default size,
mean or class list of its own. docs/model-spec.md describes the JSON form.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, get_args

from unet_runtime.core.errors import ModelFileError
from unet_runtime.core.text import one_line, printable

SCHEMA = 6
"""What is written. 2 added ``provenance.quantization`` and two precisions, 3 moved the margin from the output to the
input, 4 added ``output.logits``, 5 the precision ``float16-weights`` and what files made by other tools take and give,
6 ``disabled_optimizers``; whatever earlier ones say can be said in it."""

_READABLE = (1, 2, 3, 4, 5, SCHEMA)

_MARGIN_IN_OUTPUT = (1, 2)

MAX_BYTES = 1_000_000
"""A spec's JSON is at most so long; those of ``unet-train`` have some 2,000 bytes."""

MAX_SIDE = 16_384
"""Pixels of a side of input and output, at most."""

MAX_VALUES = 1 << 28
"""Numbers in an input or an output, at most: height x width x channels."""

MAX_TEXT = 1000
"""Characters of a name, at most; twenty times as many of the command and the data that provenance records."""

ALL_OPTIMIZERS = "all"
"""Stands for every optimiser in ``ModelSpec.disabled_optimizers``."""

Fit = Literal["stretch", "letterbox", "crop"]
Resample = Literal["bilinear"]
Activation = Literal["softmax", "sigmoid"]
Layout = Literal["nhwc", "nchw"]
Channels = Literal["rgb", "bgr", "grey"]
PixelType = Literal["uint8", "int8", "float16", "float32"]
Kind = Literal["classes", "mask", "labels"]
Role = Literal["foreground", "background", "neutral"]
Precision = Literal["float32", "float16", "float16-weights", "dynamic-range", "int8", "int16x8", "mixed"]
"""``float16-weights``: float16 weights, float32 arithmetic; ``dynamic-range``: int8 weights, float32 activations;
``int16x8``: int8 weights, int16 activations; ``mixed``: int8, and float32 around operators that have no int8 kernel,
which ``provenance.quantization`` lists."""

FITS: tuple[Fit, ...] = get_args(Fit)
ROLES: tuple[Role, ...] = get_args(Role)
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
CHANNELS: tuple[Channels, ...] = get_args(Channels)
PIXEL_TYPES: tuple[PixelType, ...] = get_args(PixelType)
KINDS: tuple[Kind, ...] = get_args(Kind)

BYTES = (0.0, 255.0)
"""Range of a pixel as it is in a photo."""


@dataclass(frozen=True)
class InputSpec:
    """What goes into the model: uint8 RGB in 0..255, NHWC, unless the fields from ``dtype`` on say otherwise.

    They have their defaults in every file that unet-export makes, whose first layer rescales; files of other tools
    take (range[0] + pixel / 255 * (range[1] - range[0]) - mean) / std.
    """

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    fit: Fit = "stretch"
    """How a photo is brought to (height, width): ``letterbox`` keeps the aspect ratio and fills the rest with black;
    ``crop`` is for a model that saw parts of photos at their own scale, which belongs in tiles (``core/tiling.py``): a
    photo that it sees whole is letterboxed, but not enlarged."""
    resample: Resample = "bilinear"
    """Pillow's resampling filter; BILINEAR antialiases when it reduces."""
    margin: int = 0
    """Pixels on each side that have no output pixel (unpadded convolutions): the photo lies inside of them, and is
    mirrored into them. 0 for padded convolutions."""
    dtype: PixelType = "uint8"
    """Type of the file's input tensor; a quantised one, which has a scale of its own, holds the value in steps."""
    layout: Layout = "nhwc"
    """Order of the input's axes."""
    channels: Channels = "rgb"
    """Which colours, in which order; ``grey``: one channel, ITU-R 601 luma as Pillow's mode L."""
    range: tuple[float, float] = BYTES
    """What a black and a white pixel are before mean and std."""
    mean: tuple[float, ...] = ()
    """Mean of each channel, in the order of ``channels``, on the scale of ``range``; empty: 0."""
    std: tuple[float, ...] = ()
    """As ``mean``; empty: 1."""

    @property
    def is_plain(self) -> bool:
        """Whether the file takes uint8 RGB in 0..255, NHWC, as it is."""
        kind = (self.dtype, self.layout, self.channels, self.range)
        return kind == ("uint8", "nhwc", "rgb", BYTES) and not self.mean and not self.std

    @property
    def depth(self) -> int:
        """Number of channels."""
        return 1 if self.channels == "grey" else 3

    @property
    def covered(self) -> tuple[int, int]:
        """(height, width) of what has output: all but the margin."""
        return self.height - 2 * self.margin, self.width - 2 * self.margin

    @property
    def valid(self) -> tuple[slice, slice]:
        """Rows and columns of the input that have an output pixel: all but the margin."""
        margin = self.margin
        return slice(margin, self.height - margin), slice(margin, self.width - margin)


@dataclass(frozen=True)
class OutputSpec:
    """What comes out of the model: probabilities or logits, NHWC, one channel per class."""

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    activation: Activation = "softmax"
    """``softmax``: channels sum to 1; ``sigmoid``: each is in 0..1 by itself, and ``masks.shares`` brings their sum
    to 1."""
    logits: bool = False
    """Whether the file ends before the activation, which then is the runtime's to apply: in 8 bits logits say more than
    probabilities."""
    kind: Kind = "classes"
    """``classes``: one channel for each; ``mask``: one channel, what the second of two classes has, the first has the
    rest; ``labels``: class ids."""
    layout: Layout = "nhwc"
    """Order of the output's axes."""
    name: str = ""
    """Which of the file's outputs it is; empty: the first one."""

    @property
    def is_plain(self) -> bool:
        """Whether the file's first output is float32 NHWC, a channel for each class."""
        return (self.kind, self.layout, self.name) == ("classes", "nhwc", "")


@dataclass(frozen=True)
class ClassSpec:
    """One class; its position in ``ModelSpec.classes`` is its id in masks."""

    name: str
    color: tuple[int, int, int]
    """RGB, 0..255, in masks' palettes and in overlays."""
    role: Role
    """In a cut-out ``foreground`` is kept, ``background`` removed, and ``neutral`` (an unlabelled border) goes to
    whichever of the two is likelier beside it."""


@dataclass(frozen=True)
class Provenance:
    """Where the model comes from: enough to make it again and to doubt it."""

    data: str = ""
    """Training data, and how many photos of it."""
    split: str = ""
    """Which photos were held out, as ``datasets.oxford_pets.read_split`` names it; empty if unknown."""
    command: str = ""
    """The command that trained it."""
    seed: int | None = None
    weights_sha256: str = ""
    """Digest of the trained float32 weights: the same in every format exported from one training."""
    calibration_sha256: str = ""
    """Digest of the photos that a file's weights or ranges were rounded on, as fed to the model; else empty."""
    quantization: Mapping[str, Any] = field(default_factory=dict)
    """How the integers of a quantised file were chosen: method, photos, what was repaired; empty for a float file."""
    tools: Mapping[str, str] = field(default_factory=dict)
    """Versions of the libraries that made the file."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Measured by training on the named split, in float32."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Hyper-parameters of the training."""


@dataclass(frozen=True, repr=False)
class ModelSpec:
    """The contract between training, export and runtime. Immutable; checked when it is made.

    Raises:
        ModelFileError: a field holds what the contract does not allow; the message names the field.

    Example:
        >>> from unet_runtime import Segmenter
        >>> Segmenter(backend="tflite").spec  # doctest: +ELLIPSIS
        ModelSpec(pets-..., int8, ... -> ..., pet background border)
    """

    name: str
    architecture: str
    license: str
    input: InputSpec
    output: OutputSpec
    classes: tuple[ClassSpec, ...]
    precision: Precision = "float32"
    provenance: Provenance = field(default_factory=Provenance)
    schema: int = SCHEMA
    disabled_optimizers: tuple[str, ...] = ()
    """Graph optimisers of ONNX Runtime that compute this file wrongly, by its names for them; ``ALL_OPTIMIZERS``: all.
    Other engines have none of them."""

    def __post_init__(self) -> None:
        _check_schema(self.schema)
        for name in ("name", "architecture", "license"):
            _check_text(name, getattr(self, name), MAX_TEXT)
        _check_grids(self.input, self.output, len(self.classes))
        _check_one_of("input.fit", self.input.fit, FITS)
        _check_one_of("input.resample", self.input.resample, get_args(Resample))
        _check_one_of("output.activation", self.output.activation, get_args(Activation))
        _check("output.logits", self.output.logits, isinstance(self.output.logits, bool), "true or false")
        _check_one_of("precision", self.precision, get_args(Precision))
        _check_tensors(self.input, self.output, len(self.classes))
        _check("classes", len(self.classes), 2 <= len(self.classes) <= 256, "2 to 256 classes")
        check_classes(self.classes)
        _check_provenance(self.provenance)
        _check_optimizers(self.disabled_optimizers)

    def __repr__(self) -> str:
        sizes = f"{self.input.width}x{self.input.height} -> {self.output.width}x{self.output.height}"
        return f"ModelSpec({self.name}, {self.architecture}, {self.precision}, {sizes}, {' '.join(self.class_names)})"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class id."""
        return tuple(entry.name for entry in self.classes)

    @property
    def is_plain(self) -> bool:
        """Whether the file's input and output are as in every file that unet-export makes: what needs no conversion."""
        return self.input.is_plain and self.output.is_plain

    @property
    def is_demo(self) -> bool:
        """Whether it was trained on pictures that ``unet-train --data synthetic`` draws, to try the way: no photos."""
        return self.provenance.data.startswith("synthetic,")

    def roles(self, role: Role) -> tuple[int, ...]:
        """Ids of the classes with ``role``."""
        return tuple(index for index, entry in enumerate(self.classes) if entry.role == role)

    def role_names(self, role: Role) -> tuple[str, ...]:
        """Names of the classes with ``role``."""
        return tuple(entry.name for entry in self.classes if entry.role == role)

    def with_precision(self, precision: Precision, **provenance: Any) -> ModelSpec:
        """This spec for another precision, with ``provenance`` fields replaced."""
        return replace(self, precision=precision, provenance=replace(self.provenance, **provenance))

    def to_json(self) -> str:
        """Compact JSON with sorted keys: equal specs give equal text."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> ModelSpec:
        """Read what ``to_json`` wrote.

        Raises:
            ModelFileError: not JSON, a missing or unknown field, or a value the contract refuses.
        """
        if len(text) > MAX_BYTES:
            raise ModelFileError(f"model spec has {len(text):,} bytes, expected at most {MAX_BYTES:,}")
        try:
            data = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_repeats)
        except (ValueError, RecursionError) as error:
            raise ModelFileError(f"model spec is not JSON ({one_line(error)}): export the model again") from error
        if not isinstance(data, dict):
            raise ModelFileError(f"model spec is a JSON {type(data).__name__}, expected an object")
        # Before the fields: another schema may well have others, and its number says more.
        _check_schema(data.get("schema", SCHEMA))
        parts = _with_margin_in_input(data) | {"schema": SCHEMA}
        for key, kind in (("input", InputSpec), ("output", OutputSpec), ("provenance", Provenance)):
            if key in parts:
                parts[key] = _build(kind, parts[key], key)
        if "classes" in parts:
            parts["classes"] = _class_specs(parts["classes"])
        if isinstance(parts.get("disabled_optimizers"), list):
            parts["disabled_optimizers"] = tuple(parts["disabled_optimizers"])
        return _build(cls, parts, "spec")


_T = TypeVar("_T")

_NUMBERS = ("range", "mean", "std")


def _build(kind: type[_T], data: Any, where: str) -> _T:
    if not isinstance(data, dict):
        raise ModelFileError(f"model spec: {where} is {type(data).__name__}, expected an object")
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - known)
    if unknown:
        raise ModelFileError(
            f"model spec: {where} has unknown fields {_shown(unknown)}, expected some of {sorted(known)}"
        )
    if kind is InputSpec:
        data = data | {name: tuple(data[name]) for name in _NUMBERS if isinstance(data.get(name), list)}
    try:
        return kind(**data)
    except TypeError as error:  # a field without default is missing
        raise ModelFileError(f"model spec: {where} is incomplete ({error}): export the model again") from error


def _with_margin_in_input(data: dict[str, Any]) -> dict[str, Any]:
    """Schemas 1 and 2 had the margin in the output."""
    source, result = data.get("input"), data.get("output")
    if data.get("schema", SCHEMA) not in _MARGIN_IN_OUTPUT:
        return data
    if not isinstance(source, dict) or not isinstance(result, dict):
        return data
    rest = dict(result)
    return data | {"input": source | {"margin": rest.pop("margin", 0)}, "output": rest}


def _class_specs(data: Any) -> tuple[ClassSpec, ...]:
    if not isinstance(data, list):
        raise ModelFileError(f"model spec: classes is {type(data).__name__}, expected a list")
    classes = []
    for index, entry in enumerate(data):
        built = _build(ClassSpec, entry, f"classes[{index}]")
        color: Any = tuple(built.color) if isinstance(built.color, list) else ()  # () is refused by ModelSpec's check
        classes.append(replace(built, color=color))
    return tuple(classes)


def _check_schema(schema: object) -> None:
    if schema not in _READABLE:
        raise ModelFileError(
            f"model spec has schema {schema!r}, this version reads {', '.join(map(str, _READABLE[:-1]))} and {SCHEMA}: "
            "upgrade unet-edge-runtime, or export the model again"
        )


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that is there twice: which of the two counts depends on the reader."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {_shown(repeated)} is there twice")
    return found


def _check(name: str, value: object, ok: bool, expected: str) -> None:
    if not ok:
        raise ModelFileError(f"model spec: {name} is {_shown(value)}, expected {expected}")


def _shown(value: object, limit: int = 80) -> str:
    """A value for a message, however long it is."""
    text = printable(repr(value))
    return text if len(text) <= limit else f"{text[:limit]}..."


def _check_one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    _check(name, value, isinstance(value, str) and value in allowed, f"one of {', '.join(allowed)}")


def _check_text(name: str, value: object, limit: int, *, empty: bool = False) -> None:
    """Text that can be printed on one line: no control characters, nothing that no encoding has."""
    ok = isinstance(value, str) and len(value) <= limit and printable(value) == value and (empty or value.strip() != "")
    _check(name, value, ok, f"text without control characters, at most {limit} characters")


def _check_grids(source: InputSpec, result: OutputSpec, channels: int) -> None:
    """Sizes: typed, within bounds, and the output's are what the input and its margin leave."""
    for where, grid in (("input", source), ("output", result)):
        for side in ("height", "width"):
            size = getattr(grid, side)
            _check(f"{where}.{side}", size, _is_whole(size) and size > 0, "a positive number of pixels")
            _check(f"{where}.{side}", size, size <= MAX_SIDE, f"at most {MAX_SIDE} pixels")
    for where, values in (
        ("input", source.height * source.width * 3),  # a photo's, whatever the file takes
        ("output", result.height * result.width * channels),
    ):
        _check(f"{where}, height x width x channels,", values, values <= MAX_VALUES, f"at most {MAX_VALUES:,}")
    margin, shorter = source.margin, min(source.height, source.width)
    fits = _is_whole(margin) and 0 <= 2 * margin < shorter
    _check("input.margin", margin, fits, f"0 or more pixels, and less than half of {shorter}")
    covered, actual = source.covered, (result.height, result.width)
    expected = f"{covered[0]} x {covered[1]}: the input's {source.height} x {source.width} less the margin of {margin}"
    if not margin:  # with a margin, sizes alone tell which pixels are meant
        expected += ", or the same shape at another size"
    ok = actual == covered or (not margin and _is_same_shape(covered, actual))
    _check("output, height x width,", actual, ok, expected)


def _is_same_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes have one ratio, to within the pixel that a size is rounded to."""
    error = abs(size[0] * other[1] - size[1] * other[0])
    return error == 0 or error < min(max(size), max(other))


def _check_tensors(source: InputSpec, result: OutputSpec, classes: int) -> None:
    """What a file made by another tool takes and gives."""
    _check_one_of("input.dtype", source.dtype, PIXEL_TYPES)
    _check_one_of("input.layout", source.layout, LAYOUTS)
    _check_one_of("input.channels", source.channels, CHANNELS)
    ok = _are_numbers(source.range, 2) and source.range[0] < source.range[1]
    _check("input.range", source.range, ok, "two numbers, the second above the first, as [0, 1]")
    for name in ("mean", "std"):
        values = getattr(source, name)
        ok = values == () or (_are_numbers(values, source.depth) and (name == "mean" or min(values) > 0))
        above = ", all above 0" if name == "std" else ""
        _check(f"input.{name}", values, ok, f"{source.depth} numbers, one for each channel{above}, or none")
    _check_one_of("output.kind", result.kind, KINDS)
    _check_one_of("output.layout", result.layout, LAYOUTS)
    _check_text("output.name", result.name, MAX_TEXT, empty=True)
    if result.kind == "mask":
        _check("classes", classes, classes == 2, "2 of a mask: what it is not, and what it is")
        _check("output.activation", result.activation, result.activation == "sigmoid", "sigmoid for a mask")
    if result.kind == "labels":
        _check("output.logits", result.logits, not result.logits, "false for class ids")


def _are_numbers(values: object, count: int) -> bool:
    return isinstance(values, tuple) and len(values) == count and all(map(_is_number, values))


def check_classes(classes: tuple[ClassSpec, ...]) -> None:
    known: set[str] = set()
    for index, entry in enumerate(classes):
        _check_text(f"classes[{index}].name", entry.name, 100)
        shown = _as_read(entry.name)
        _check(f"classes[{index}].name", entry.name, shown not in known, "a name that no other class has")
        known.add(shown)
        _check_one_of(f"classes[{index}].role", entry.role, ROLES)
        _check(f"classes[{index}].color", entry.color, _is_color(entry.color), "three integers in 0..255")


def _as_read(name: str) -> str:
    """A name as a reader sees it: in one Unicode form, without spaces at its ends and characters of no width."""
    if not name.isascii():
        import unicodedata  # few names need it

        characters = [character for character in name if unicodedata.category(character) != "Cf"]
        name = unicodedata.normalize("NFC", "".join(characters))
    return " ".join(name.split())


def _is_color(color: object) -> bool:
    if not isinstance(color, tuple) or len(color) != 3:
        return False
    return all(_is_whole(channel) and 0 <= channel <= 255 for channel in color)


def _is_whole(value: object) -> bool:
    """Whether a value is an integer; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _check_provenance(provenance: Provenance) -> None:
    for name in ("data", "split", "command"):
        _check_text(f"provenance.{name}", getattr(provenance, name), 20 * MAX_TEXT, empty=True)
    for name in ("weights_sha256", "calibration_sha256"):
        digest = getattr(provenance, name)
        ok = isinstance(digest, str) and len(digest) in (0, 64) and set(digest) <= set("0123456789abcdef")
        _check(f"provenance.{name}", digest, ok, "64 hex digits, or nothing")
    seed = provenance.seed
    _check(
        "provenance.seed", seed, seed is None or (_is_whole(seed) and abs(seed) < 1 << 64), "a whole number, or null"
    )
    for name in ("quantization", "tools", "metrics", "recipe"):
        _check_plain(f"provenance.{name}", getattr(provenance, name))
    for name, version in provenance.tools.items():
        _check_text(f"provenance.tools.{name}", version, MAX_TEXT, empty=True)
    metrics = provenance.metrics
    if "mean_iou" in metrics:
        _check("provenance.metrics.mean_iou", metrics["mean_iou"], _is_number(metrics["mean_iou"]), "a number")
    if "iou" in metrics:
        values = metrics["iou"]
        ok = isinstance(values, Mapping) and all(map(_is_number, values.values()))
        _check("provenance.metrics.iou", values, ok, "a number for each class")


def _check_optimizers(names: object) -> None:
    """Words that an engine takes as a list with semicolons."""
    ok = isinstance(names, tuple) and all(map(_is_word, names))
    _check("disabled_optimizers", names, ok, "a list of names, as Pad_Fusion")


def _is_word(name: object) -> bool:
    return isinstance(name, str) and name.isascii() and name.isidentifier() and len(name) <= MAX_TEXT


def _check_plain(name: str, value: object) -> None:
    """An object of plain values, a few levels deep: texts, finite numbers, lists and objects of them."""
    _check(name, value, isinstance(value, Mapping), "an object")
    waiting: list[tuple[str, object, int]] = [(name, value, 0)]
    while waiting:
        where, item, depth = waiting.pop()
        _check(where, item, depth <= _MAX_DEPTH, f"at most {_MAX_DEPTH} levels")
        if isinstance(item, Mapping):
            for key, inner in item.items():
                _check_text(f"{where}, a key", key, MAX_TEXT)
                waiting.append((f"{where}.{key}"[:_MAX_WHERE], inner, depth + 1))
        elif isinstance(item, (list, tuple)):
            waiting += [(where, inner, depth + 1) for inner in item]
        elif isinstance(item, str):
            _check_text(where, item, 20 * MAX_TEXT, empty=True)
        else:
            ok = item is None or isinstance(item, bool) or _is_number(item)
            _check(where, item, ok, "text, a finite number, true, false, null, a list or an object")


_MAX_DEPTH = 8
_MAX_WHERE = 200  # characters of a place in a message
