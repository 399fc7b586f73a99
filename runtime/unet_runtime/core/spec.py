"""ModelSpec: everything a device must know to use a model.

Training writes it once, export carries it into every format, the runtime reads it. The runtime has no default size,
mean or class list of its own. docs/model-spec.md describes the JSON form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, get_args

from unet_runtime.core.errors import ModelFileError

SCHEMA = 3
"""What is written. 2 added ``provenance.quantization`` and two precisions, 3 moved the margin from the output to the
input; whatever 1 and 2 say can be said in it."""

_READABLE = (1, 2, SCHEMA)

Fit = Literal["stretch", "letterbox"]
Resample = Literal["bilinear"]
Activation = Literal["softmax", "sigmoid"]
Role = Literal["foreground", "background", "neutral"]
Precision = Literal["float32", "float16", "dynamic-range", "int8", "int16x8"]
"""``dynamic-range``: int8 weights, float32 activations; ``int16x8``: int8 weights, int16 activations."""

FITS: tuple[Fit, ...] = get_args(Fit)
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class InputSpec:
    """What goes into the model: uint8 RGB in 0..255, NHWC. Rescaling is the model's first layer."""

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    fit: Fit = "stretch"
    """How a photo is brought to (height, width): ``letterbox`` keeps the aspect ratio and fills the rest with black."""
    resample: Resample = "bilinear"
    """Pillow's resampling filter; BILINEAR antialiases when it reduces."""
    margin: int = 0
    """Pixels on each side that have no output pixel (unpadded convolutions): the photo lies inside of them, and is
    mirrored into them. 0 for padded convolutions."""

    @property
    def valid(self) -> tuple[slice, slice]:
        """Rows and columns of the input that have an output pixel: all but the margin."""
        margin = self.margin
        return slice(margin, self.height - margin), slice(margin, self.width - margin)


@dataclass(frozen=True)
class OutputSpec:
    """What comes out of the model: float32 probabilities, NHWC, one channel per class."""

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    activation: Activation = "softmax"
    """``softmax``: channels sum to 1; ``sigmoid``: each is in 0..1 by itself, and ``masks.shares`` brings their sum
    to 1."""


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
    """Digest of the photos an int8 file was calibrated on, as fed to the model; empty for other precisions."""
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
        >>> Segmenter().spec
        ModelSpec(pets-edge, unet, float32, 160x160 -> 160x160, pet background border)
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

    def __post_init__(self) -> None:
        _check_schema(self.schema)
        for where, grid in (("input", self.input), ("output", self.output)):
            for side in ("height", "width"):
                size = getattr(grid, side)
                _check(f"{where}.{side}", size, isinstance(size, int) and size > 0, "a positive number of pixels")
        _check_one_of("input.fit", self.input.fit, FITS)
        _check_one_of("input.resample", self.input.resample, get_args(Resample))
        _check_one_of("output.activation", self.output.activation, get_args(Activation))
        _check_one_of("precision", self.precision, get_args(Precision))
        margin, shorter = self.input.margin, min(self.input.height, self.input.width)
        fits = isinstance(margin, int) and 0 <= 2 * margin < shorter
        _check("input.margin", margin, fits, f"0 or more pixels, and less than half of {shorter}")
        _check("classes", len(self.classes), 2 <= len(self.classes) <= 256, "2 to 256 classes")
        for index, entry in enumerate(self.classes):
            _check_one_of(f"classes[{index}].role", entry.role, ROLES)
            _check(f"classes[{index}].color", entry.color, _is_color(entry.color), "three integers in 0..255")

    def __repr__(self) -> str:
        sizes = f"{self.input.width}x{self.input.height} -> {self.output.width}x{self.output.height}"
        return f"ModelSpec({self.name}, {self.architecture}, {self.precision}, {sizes}, {' '.join(self.class_names)})"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class id."""
        return tuple(entry.name for entry in self.classes)

    def roles(self, role: Role) -> tuple[int, ...]:
        """Ids of the classes with ``role``."""
        return tuple(index for index, entry in enumerate(self.classes) if entry.role == role)

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
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ModelFileError(f"model spec is not JSON ({error}): export the model again") from error
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
        return _build(cls, parts, "spec")


_T = TypeVar("_T")


def _build(kind: type[_T], data: Any, where: str) -> _T:
    if not isinstance(data, dict):
        raise ModelFileError(f"model spec: {where} is {type(data).__name__}, expected an object")
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - known)
    if unknown:
        raise ModelFileError(f"model spec: {where} has unknown fields {unknown}, expected some of {sorted(known)}")
    try:
        return kind(**data)
    except TypeError as error:  # a field without default is missing
        raise ModelFileError(f"model spec: {where} is incomplete ({error}): export the model again") from error


def _with_margin_in_input(data: dict[str, Any]) -> dict[str, Any]:
    """Schemas 1 and 2 had the margin in the output."""
    source, result = data.get("input"), data.get("output")
    if data.get("schema", SCHEMA) == SCHEMA or not isinstance(source, dict) or not isinstance(result, dict):
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


def _check(name: str, value: object, ok: bool, expected: str) -> None:
    if not ok:
        raise ModelFileError(f"model spec: {name} is {value!r}, expected {expected}")


def _check_one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    _check(name, value, value in allowed, f"one of {', '.join(allowed)}")


def _is_color(color: tuple[Any, ...]) -> bool:
    return len(color) == 3 and all(isinstance(channel, int) and 0 <= channel <= 255 for channel in color)
