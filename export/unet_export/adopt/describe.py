"""Facts of a file and the user's choices -> its spec. What neither says is asked for, all of it at once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from unet_export.adopt.engine import RawModel
from unet_export.adopt.facts import Facts, Said, Tensor
from unet_export.errors import ExportError
from unet_export.source_model import ADOPTED
from unet_runtime.core.datasets.classes import named_classes
from unet_runtime.core.errors import ModelFileError
from unet_runtime.core.spec import (
    BYTES,
    MAX_SIDE,
    MAX_VALUES,
    ClassSpec,
    InputSpec,
    Layout,
    ModelSpec,
    OutputSpec,
    Provenance,
)
from unet_runtime.core.tensors import input_sizes

_OPTION = "your option"
_FILE = "the file"
_ASSUMED = "assumed"
_DEPTHS = (1, 3)
_WHOLE_FACTORS = range(2, 65)
"""Factors by which an output is smaller or larger and still covers the same photo, without a question."""

_BACKGROUND = "background"

_SCALE_ERROR = 0.02
"""Part of a range by which a quantised input's may differ from a usual one: a step or two of its scale."""

_USUAL = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))

ACTIVATIONS = ("softmax", "sigmoid", "logits", "sigmoid-logits", "labels")


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and std of ImageNet's photos in 0..1, RGB."""

CAFFE_MEAN = (103.939, 116.779, 123.68)
"""The mean of ImageNet's photos in 0..255, blue, green, red: what Caffe's models subtract."""

PRESETS: dict[str, dict[str, Any]] = {
    "imagenet": {"range": (0.0, 1.0), "channels": "rgb", "mean": IMAGENET[0], "std": IMAGENET[1]},
    "caffe": {"range": BYTES, "channels": "bgr", "mean": CAFFE_MEAN},
    "tf": {"range": (-1.0, 1.0), "channels": "rgb"},
    "none": {"range": BYTES, "channels": "rgb"},
}
"""Kind of preprocessing, as ``foreign.inputs.PREPROCESSING`` has it -> what it says of the input."""


@dataclass(frozen=True)
class Choices:
    """What the user says of a file; None: nothing."""

    classes: tuple[ClassSpec, ...] | None = None
    size: tuple[int, int] | None = None
    range: tuple[float, float] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channels: str | None = None
    activation: str | None = None
    """One of ``ACTIVATIONS``; ``logits`` of one channel get a sigmoid, of several a softmax."""
    layout: str | None = None
    output_layout: str | None = None
    output_name: str | None = None
    covers: str | None = None
    """``all`` or ``middle``: what of the photo a smaller output shows."""
    fit: str | None = None
    name: str | None = None
    license: str | None = None
    split: str = ""
    command: str = ""


class Row(NamedTuple):
    """A line of what is known."""

    field: str
    value: str
    source: str


class Unknown(NamedTuple):
    """Something that nobody said, and the option that says it."""

    what: str
    option: str


class UnknownError(ExportError):
    """Things that neither the file nor the user said."""

    def __init__(self, message: str, unknown: Sequence[Unknown]) -> None:
        super().__init__(message)
        self.unknown = tuple(unknown)


@dataclass
class _Collected:
    """What is known so far."""

    rows: list[Row] = field(default_factory=list)
    unknown: list[Unknown] = field(default_factory=list)

    def take(self, name: str, *found: Said | None, ask: Unknown | None = None) -> Any:
        """The first that is said, as a row; None, and a question, where none is."""
        for said in found:
            if said is not None:
                self.rows.append(Row(name, shown(said.value), said.source))
                return said.value
        if ask is not None:
            self.unknown.append(ask)
        return None


def shown(value: object) -> str:
    """A value for the table."""
    if isinstance(value, tuple) and value and isinstance(value[0], ClassSpec):
        return ", ".join(entry.name for entry in value)
    if isinstance(value, tuple):
        return ", ".join(f"{entry:.6g}" if isinstance(entry, float) else str(entry) for entry in value)
    return str(value)


def described(facts: Facts, choices: Choices) -> tuple[ModelSpec, list[Row]]:
    """The spec of a file, and where each part of it is from.

    Raises:
        UnknownError: something is not known; the message lists it, with the options that say it.
        ExportError: the file is no model of one picture to one map, or a choice contradicts it.
    """
    if len(facts.inputs) != 1:
        raise ExportError(
            f"{facts.path}: {_listed(facts.inputs)} go in, expected one picture: export it with one input"
        )
    known = _Collected()
    source, can_run = _input(facts, choices, known)
    classes = _classes(facts, choices, known)
    result = OutputSpec(1, 1)
    if can_run:
        source, result = _output(facts, choices, classes, source, known)
    fit = known.take("fit", _chosen(choices.fit), facts.said.get("fit"), Said("stretch", _ASSUMED))
    license_text = known.take("license", _chosen(choices.license), facts.said.get("license"), Said("unknown", _ASSUMED))
    if known.unknown:
        listed = "; ".join(f"{entry.what}: {entry.option}" for entry in known.unknown)
        raise UnknownError(f"{facts.path}: not known, and not guessed: {listed}", known.unknown)
    provenance = Provenance(
        split=choices.split,
        command=choices.command,
        weights_sha256=hashlib.sha256(facts.content).hexdigest(),
        tools=dict(facts.tools),
        recipe={ADOPTED: ", ".join(f"{tool} {version}" for tool, version in facts.tools.items()) or "unknown"},
    )
    try:
        spec = ModelSpec(
            name=choices.name or facts.path.stem,
            architecture="unknown",
            license=license_text,
            input=replace(source, fit=fit),
            output=result,
            classes=classes,
            precision=facts.precision,
            provenance=provenance,
        )
    except ModelFileError as error:
        raise ExportError(f"{facts.path}: {error}") from error
    return spec, known.rows


def _chosen(value: object) -> Said | None:
    return None if value is None else Said(value, _OPTION)


def _listed(tensors: Sequence[Tensor]) -> str:
    return ", ".join(map(str, tensors)) or "nothing"


# --- input -----------------------------------------------------------------------------------------


def _input(facts: Facts, choices: Choices, known: _Collected) -> tuple[InputSpec, bool]:
    """The input, and whether enough of it is known to run the model."""
    tensor = facts.inputs[0]
    if len(tensor.shape) != 4:
        raise ExportError(f"{facts.path}: takes {tensor}, expected pictures, four axes: (n, 3, h, w) or (n, h, w, 3)")
    if tensor.dtype not in ("uint8", "int8", "float16", "float32"):
        raise ExportError(f"{facts.path}: takes {tensor}, expected uint8, int8, float16 or float32 pictures")
    known.rows.append(Row("input", str(tensor), _FILE))
    layout = known.take(
        "layout",
        _chosen(choices.layout) or _layout(tensor),
        ask=Unknown(f"the layout of {tensor}", "--layout nchw or nhwc"),
    )
    axes = (2, 3, 1) if layout == "nchw" else (1, 2, 3)
    own = tuple(tensor.shape[axis] for axis in axes)
    depth = own[2] if layout else None
    if depth not in (None, *_DEPTHS):
        raise ExportError(
            f"{facts.path}: takes {depth} channels ({tensor}), expected 3 (colour) or 1 (grey)"
            + (f": --layout {choices.layout} is not what it has" if choices.layout else "")
        )
    size = _size(facts, choices, known, layout, (own[0], own[1]) if layout else (None, None))
    channels = _channels(facts, choices, known, depth)
    low_high = _range(facts, choices, known, tensor)
    count = 1 if channels == "grey" else 3
    mean = _per_channel(facts, "mean", known.take("mean", _chosen(choices.mean), facts.said.get("mean")), count)
    std = _per_channel(facts, "std", known.take("std", _chosen(choices.std), facts.said.get("std")), count)
    height, width = size or (1, 1)
    spec = InputSpec(
        height,
        width,
        dtype=tensor.dtype,  # type: ignore[arg-type]  # one of four, as checked above
        layout=layout or "nhwc",
        channels=channels or "rgb",
        range=low_high or (0.0, 1.0),
        mean=mean,
        std=std,
    )
    return spec, None not in (layout, size, channels or depth)


def _layout(tensor: Tensor) -> Said | None:
    first, last = tensor.shape[1] in _DEPTHS, tensor.shape[3] in _DEPTHS
    if first == last:
        return None
    return Said("nchw" if first else "nhwc", "its shape")


def _size(
    facts: Facts, choices: Choices, known: _Collected, layout: str | None, own: tuple[int | None, int | None]
) -> tuple[int, int] | None:
    """Height and width; not asked for while only the layout is missing."""
    fixed = Said(own, _FILE) if None not in own else None
    said = facts.said.get("size") if fixed is None else None
    ask = Unknown("the size of its pictures, which it leaves open", "--size 256 or 256x320 (height x width)")
    is_open = layout is not None or None in facts.inputs[0].shape[1:]
    size: tuple[int, int] | None = known.take(
        "size", _chosen(choices.size) or fixed, said, ask=ask if is_open else None
    )
    if size and (max(size) > MAX_SIDE or size[0] * size[1] * max(_DEPTHS) > MAX_VALUES):
        raise ExportError(
            f"{facts.path}: takes {shown(size)} pixels, at most {MAX_SIDE} a side, {MAX_VALUES // max(_DEPTHS):,} in "
            "all: export it for a smaller picture, larger photos are covered with tiles"
        )
    for side, given in zip(own, size or (), strict=False):
        if side not in (None, given):
            raise ExportError(
                f"{facts.path}: takes {own[0] or '?'}x{own[1] or '?'} pixels, --size says {shown(size)}: leave it out"
            )
    return size


def _channels(facts: Facts, choices: Choices, known: _Collected, depth: int | None) -> Any:
    if depth == 1:
        if choices.channels not in (None, "grey"):
            raise ExportError(f"{facts.path}: takes one channel, --channels says {choices.channels}: leave it out")
        return known.take("channels", Said("grey", "its one channel"))
    ask = Unknown("the order of its colours", "--channels rgb or bgr")
    if depth is None:
        ask = Unknown("which colours it takes", "--channels rgb, bgr or grey")
    said = facts.said.get("channels")
    if depth == 3 and "grey" in (choices.channels, said.value if said else ""):
        raise ExportError(f"{facts.path}: takes three channels, not grey: give --channels rgb or bgr")
    return known.take("channels", _chosen(choices.channels), said, ask=ask)


def _range(facts: Facts, choices: Choices, known: _Collected, tensor: Tensor) -> Any:
    scale, zero_point = tensor.scaling
    read = None
    if tensor.dtype == "uint8" and not scale:
        read = Said((0.0, 255.0), "its type, uint8")
    elif tensor.dtype in ("uint8", "int8") and scale:
        low = float((np.iinfo(tensor.dtype).min - zero_point) * scale)
        read = _usual(low, low + 255 * scale)
    ask = Unknown(
        "what it expects of a pixel", "--range 0..1, 0..255 or -1..1, and --mean, --std if it was trained with them"
    )
    return known.take("range", _chosen(choices.range), facts.said.get("range"), read, ask=ask)


def _usual(low: float, high: float) -> Said | None:
    for known in _USUAL:
        width = known[1] - known[0]
        if max(abs(low - known[0]), abs(high - known[1])) < _SCALE_ERROR * width:
            return Said(known, "the scale of its input")
    return None


def _per_channel(facts: Facts, name: str, values: Any, count: int) -> tuple[float, ...]:
    """One number for all channels, or one for each."""
    if values is None:
        return ()
    if len(values) == 1:
        return tuple(values) * count
    if len(values) != count:
        raise ExportError(f"{facts.path}: --{name} has {len(values)} numbers, expected {count}, one for each channel")
    return tuple(values)


# --- classes and output ----------------------------------------------------------------------------


def _classes(facts: Facts, choices: Choices, known: _Collected) -> tuple[ClassSpec, ...]:
    said = facts.said.get("classes")
    if said is not None:
        said = Said(named_classes(said.value), said.source)
    ask = Unknown("its classes", "--classes background,NAME,... in the order of its channels")
    return known.take("classes", _chosen(choices.classes), said, ask=ask) or ()


class _Shape(NamedTuple):
    """One way to read an output's axes."""

    layout: Layout
    depth: int
    height: int
    width: int


def _output(
    facts: Facts, choices: Choices, classes: tuple[ClassSpec, ...], source: InputSpec, known: _Collected
) -> tuple[InputSpec, OutputSpec]:
    """The input with its margin, and the output."""
    batch = facts.inputs[0].shape[0] or 1
    if batch * math.prod(input_sizes(source)) > MAX_VALUES:
        raise ExportError(f"{facts.path}: takes {batch} pictures at a time, which is too much: export it for one")
    arrays = RawModel(facts).outputs(np.zeros((batch, *input_sizes(source)), source.dtype))
    found: list[tuple[Tensor, list[_Shape]]] = []
    for tensor, array in zip(facts.outputs, arrays, strict=True):
        sizes = tensor._replace(shape=tuple(array.shape))
        found.append((sizes, _readings(array.shape, batch, source, is_label=_is_label(tensor, choices))))
    tensor, readings = _the_output(facts, choices, found, known)
    if tensor.dtype == "bool":
        raise ExportError(
            f"{facts.path}: gives {tensor}, true or false: export it with probabilities, logits, or int64 class ids"
        )
    known.rows.append(Row("output", str(tensor), _FILE))
    reading = _reading(facts, choices, readings, classes, source, known, tensor)
    source = _with_margin(facts, choices, source, reading, known)
    result = _activation(facts, choices, tensor, reading, classes, known)
    name = tensor.name if len(facts.outputs) > 1 else ""
    size = (reading.height, reading.width)
    return source, replace(result, height=size[0], width=size[1], layout=reading.layout, name=name)


def _is_label(tensor: Tensor, choices: Choices) -> bool:
    is_integer = tensor.dtype.startswith(("int", "uint")) and not tensor.scaling[0]
    return choices.activation == "labels" or tensor.ends == "labels" or is_integer


def _readings(shape: tuple[int, ...], batch: int, source: InputSpec, *, is_label: bool) -> list[_Shape]:
    """Every way in which an output is a map of the picture."""
    if not shape or shape[0] != batch:
        return []
    sizes = shape[1:]
    found = []
    if len(sizes) == 3:
        found = [_Shape("nchw", *sizes), _Shape("nhwc", sizes[2], sizes[0], sizes[1])]
    elif len(sizes) == 2 and (is_label or _is_map(_Shape("nhwc", 1, *sizes), source)):
        found = [_Shape("nhwc", 1, *sizes)]
    elif len(sizes) == 2 and sizes[0] == source.height * source.width:
        found = [_Shape("nhwc", sizes[1], source.height, source.width)]
    elif len(sizes) == 2 and sizes[1] == source.height * source.width:
        found = [_Shape("nchw", sizes[0], source.height, source.width)]
    maps = [reading for reading in found if _is_map(reading, source)]
    return [reading for reading in maps if reading.depth == 1] if is_label else maps


def _is_map(reading: _Shape, source: InputSpec) -> bool:
    """Whether axes are a map's: two sides in the picture's ratio, or what no padding leaves, and few channels."""
    height, width = reading.height, reading.width
    if min(height, width) < 2 or reading.depth > 256:
        return False
    is_margin = source.height - height == source.width - width >= 0
    error = abs(height * source.width - width * source.height)
    return is_margin or error < max(source.height, source.width)


def _the_output(
    facts: Facts, choices: Choices, found: list[tuple[Tensor, list[_Shape]]], known: _Collected
) -> tuple[Tensor, list[_Shape]]:
    listed = _listed([tensor for tensor, _ in found])
    if choices.output_name is not None:
        named = [entry for entry in found if entry[0].name == choices.output_name]
        if not named:
            raise ExportError(f"{facts.path}: no output {choices.output_name!r}, expected one of {listed}")
        found = named
    maps = [entry for entry in found if entry[1]]
    if not maps:
        raise ExportError(
            f"{facts.path}: gives {listed}, none of which is a map of its picture: expected (n, classes, h, w), "
            "(n, h, w, classes) or class ids (n, h, w): detectors and classifiers cannot be adopted; if it is a "
            "segmentation model, export it up to its map"
        )
    if len(maps) > 1:
        known.unknown.append(
            Unknown(f"which of its outputs ({_listed([tensor for tensor, _ in maps])})", "--output-name NAME")
        )
    elif len(facts.outputs) > 1:
        source = _OPTION if choices.output_name else "the only map"
        known.rows.append(Row("output name", maps[0][0].name, source))
    return maps[0]


def _reading(
    facts: Facts,
    choices: Choices,
    readings: list[_Shape],
    classes: tuple[ClassSpec, ...],
    source: InputSpec,
    known: _Collected,
    tensor: Tensor,
) -> _Shape:
    if choices.output_layout is not None:
        readings = [entry for entry in readings if entry.layout == choices.output_layout]
        if not readings:
            raise ExportError(f"{facts.path}: gives {tensor}, which is no map in {choices.output_layout}")
    is_label = _is_label(tensor, choices)
    fitting = [entry for entry in readings if is_label or entry.depth in (len(classes), 1 if len(classes) == 2 else 0)]
    if classes and not fitting:
        depths = " or ".join(dict.fromkeys(str(entry.depth) for entry in readings))
        one = ": of one channel there are two classes, as background,pet" if depths == "1" else ""
        raise ExportError(
            f"{facts.path}: gives {depths} channels ({tensor}), {len(classes)} classes were named ({shown(classes)}): "
            f"name each with --classes, in the order of the channels{one}"
        )
    fitting = fitting or readings
    if len(fitting) > 1 and fitting[0].depth != fitting[1].depth:
        known.unknown.append(Unknown(f"the layout of {tensor}", "--output-layout nchw or nhwc"))
    own = [entry for entry in fitting if entry.layout == source.layout]
    return (own or fitting)[0]


def _with_margin(facts: Facts, choices: Choices, source: InputSpec, reading: _Shape, known: _Collected) -> InputSpec:
    """The input with a margin, where the output covers its middle alone."""
    given, made = (source.height, source.width), (reading.height, reading.width)
    if given == made:
        return source
    is_whole = any((made[0] * k, made[1] * k) == given or (given[0] * k, given[1] * k) == made for k in _WHOLE_FACTORS)
    covers = choices.covers or ("all" if is_whole else None)
    if covers is None:
        known.unknown.append(
            Unknown(
                f"which part of {given[0]}x{given[1]} its {made[0]}x{made[1]} show",
                "--covers all (a coarser map), or middle (unpadded convolutions)",
            )
        )
        return source
    known.rows.append(Row("covers", covers, _OPTION if choices.covers else "a whole factor"))
    if covers == "all":
        return source
    lost = given[0] - made[0]
    if lost != given[1] - made[1] or lost <= 0 or lost % 2:
        raise ExportError(f"{facts.path}: {made[0]}x{made[1]} is not the middle of {given[0]}x{given[1]}: --covers all")
    return replace(source, margin=lost // 2)


def _activation(
    facts: Facts,
    choices: Choices,
    tensor: Tensor,
    reading: _Shape,
    classes: tuple[ClassSpec, ...],
    known: _Collected,
) -> OutputSpec:
    """Kind, activation and logits of the output; its size is another's to say."""
    is_label = _is_label(tensor, choices)
    read = Said("labels", "its type") if is_label else None
    if tensor.ends:
        read = Said(tensor.ends, "its last operator")
    chosen = _chosen(choices.activation)
    if chosen and read and chosen.value != read.value and not (read.value == "logits" and not is_label):
        raise ExportError(
            f"{facts.path}: its output is {read.value} by {read.source}, --activation says {chosen.value}: leave it out"
        )
    ask = Unknown("what its output is", f"--activation {', '.join(ACTIVATIONS[:-1])} or {ACTIVATIONS[-1]}")
    said = facts.said.get("activation")
    if said and read and read.value != "logits":
        said = None
    activation = known.take("activation", chosen, said, read, ask=ask) or "softmax"
    if activation == "labels":
        return OutputSpec(1, 1, kind="labels")
    is_logit = activation.endswith("logits")
    if reading.depth > 1:
        return OutputSpec(1, 1, "sigmoid" if activation.startswith("sigmoid") else "softmax", is_logit)
    if activation == "softmax":
        raise ExportError(
            f"{facts.path}: a softmax over its one channel is 1 everywhere: give --activation sigmoid or logits"
        )
    if classes and classes[0].role != _BACKGROUND and classes[1].role == _BACKGROUND:
        raise ExportError(
            f"{facts.path}: its one channel is the second class, which is {classes[1].name}: name the background "
            f"first: --classes {classes[1].name},{classes[0].name}"
        )
    return OutputSpec(1, 1, "sigmoid", is_logit, "mask")
