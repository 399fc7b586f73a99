"""A foreign Keras model, loaded for export under the contract: uint8 photos in, probabilities of their size out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unet_export.errors import ExportError
from unet_export.foreign import outputs
from unet_export.foreign.files import Code, read_model
from unet_export.foreign.flatten import flatten, flatten_channels_last, functional, is_channels_first
from unet_export.foreign.inputs import CHANNELS, PREPROCESSING, Channels, Pixels, preprocess
from unet_export.foreign.outputs import Head
from unet_export.source_model import INPUT_NAME, check_names, check_softmax, import_keras, load_own
from unet_runtime.core.datasets import classes as class_lists
from unet_runtime.core.digest import weights_sha256
from unet_runtime.core.errors import SourceError
from unet_runtime.core.spec import ClassSpec, Fit, InputSpec, ModelSpec, OutputSpec, Provenance
from unet_runtime.core.text import one_line

logger = logging.getLogger(__name__)

SIDE = 256
"""Height and width, pixels, of the export of a model that takes photos of any size."""

_DEPTHS = {len(matrix[0]): name for name, matrix in reversed(CHANNELS.items())}
"""Number of channels -> the channels that are meant where nothing is said."""

_DRIFT = 1e-3
"""Largest difference, as a share of the largest output, between the model as loaded and as made anew."""

_MIXED_DRIFT = 0.1
"""The same of a model that was computed in 16 bits."""


@dataclass(frozen=True)
class Description:
    """What a file without a spec leaves open."""

    classes: tuple[ClassSpec, ...]
    size: tuple[int, int] | None = None
    """Height and width of the input, pixels; None: the model's own, or ``SIDE`` where it takes any."""
    pixels: Pixels = "0..255"
    head: Head = "auto"
    fit: Fit = "stretch"
    """How photos are brought to the input's size, as ``InputSpec.fit``."""
    split: str = ""
    """Split of the dataset that the model was trained on, where it was trained on one."""
    channels: Channels | None = None
    """Channels of its input; None: RGB of three, grey of one."""
    preprocessing: str = ""
    """A name of ``PREPROCESSING``, in place of ``pixels``."""
    output_name: str = ""
    """Which of several outputs is the map."""
    code: Code = field(default_factory=Code)
    """Code that may run to read the file."""


def parse_classes(text: str) -> tuple[ClassSpec, ...]:
    """``pet:foreground,background,border:neutral`` -> classes by id, each with a colour of its own.

    One name is that of a model of one channel: the object, whose background gets the id 0.

    Raises:
        ExportError: no name, a name twice, or an unknown role.
    """
    name = text.partition(":")[0].strip()
    single = "," not in text and name and class_lists.role_of(name) == class_lists.FOREGROUND
    try:
        return class_lists.parse_classes(f"background,{text}" if single else text).classes
    except SourceError as error:
        raise ExportError(str(error)) from error


def load_model(path: Path, description: Description | None = None) -> tuple[Any, ModelSpec]:
    """Load a ``.keras`` file with a spec inside, or any Keras model that ``description`` describes.

    Returns:
        The ``keras.Model``, uint8 (n, h, w, 3) -> float32 probabilities (n, h', w', classes), and its spec.

    Raises:
        ModelFileError: no such file, or a damaged one.
        ExportError: Keras runs on another backend than TensorFlow or refuses the file, or the model is not what its
            spec or ``description`` says.
        OSError: no space to unpack the weights.
    """
    if description is None:
        return load_own(path)
    source = read_model(path, description.code)
    try:
        model, spec = _adapted(source, path, description)
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from error
    check_softmax(model, spec, path)
    check_names(spec, path)
    return model, spec


def _adapted(source: Any, path: Path, description: Description) -> tuple[Any, ModelSpec]:
    keras = import_keras()
    entry = _Entry(source)
    size = _size(entry, description)
    channels = _channels(entry, description)
    image = keras.Input((*size, 3), dtype="uint8", name=INPUT_NAME)
    try:
        plain = entry.dtype == "uint8" and channels == "rgb" and description.pixels == "0..255"
        takes_bytes = plain and PREPROCESSING.get(description.preprocessing, "none") == "none"
        fed = image
        if not takes_bytes:
            fed = preprocess(image, description.pixels, channels, description.preprocessing)
        if channels == "rgba":
            logger.info("its fourth channel is opacity: a photo is opaque")
        results = entry.call(fed)
    except ExportError:
        raise
    except Exception as error:  # Keras raises whatever a layer raises
        raise ExportError(
            f"cannot take photos of {size[0]}x{size[1]} ({one_line(error)}): name a --size that it can halve as "
            "often as it does, such as multiples of 16 or 32"
        ) from error
    index = _chosen(entry, results, description)
    result = keras.tree.flatten(results)[index]
    own = result
    result, activation = _as_probabilities(own, size, description)
    _check_same(entry, image, fed, own, index)
    result, margin = _as_large(image, result, size)
    if activation == "logits":
        result, activation = outputs.softmax(result), "softmax"
    model = keras.Model(image, result, name=source.name)
    spec = ModelSpec(
        name=path.name.removesuffix(path.suffix).removesuffix(".weights"),
        architecture="unknown",
        license="unknown",
        input=InputSpec(*size, description.fit, margin=margin),
        output=OutputSpec(
            size[0] - 2 * margin, size[1] - 2 * margin, "sigmoid" if activation == "sigmoid" else "softmax"
        ),
        classes=description.classes,
        provenance=Provenance(split=description.split, weights_sha256=_digest(source, path)),
    )
    return model, spec


class _Entry:
    """A model as loaded: what it takes, and how it is called with channels last.

    Raises ExportError where it does not take one picture.
    """

    def __init__(self, source: Any) -> None:
        self.source = source
        self.moved = is_channels_first(source)
        """Whether its layers compute with channels first, so that it is made anew with channels last."""
        self.dtype = "float32"
        shape: tuple[int | None, ...] = (None, None, 3)
        found = getattr(source, "inputs", None) or []  # a subclassed model may have none
        if len(found) > 1 or (found and len(found[0].shape) != 4):
            taken = ", ".join(f"{tensor.dtype}{tuple(tensor.shape)}" for tensor in found)
            raise ExportError(f"takes {taken}, expected one picture, (n, h, w, channels): a segmentation model")
        if found:
            self.dtype, shape = found[0].dtype, tuple(found[0].shape[1:])
        self.permuted = not self.moved and shape[0] in _DEPTHS and shape[2] not in _DEPTHS
        """Whether channels are first at its input alone."""
        if self.moved or self.permuted:
            shape = (*shape[1:], shape[0])
        self.size, self.depth = shape[:2], shape[2]

    def call(self, fed: Any) -> Any:
        """Its outputs, as it arranges them; channels last where ``moved``."""
        if self.moved:
            return flatten_channels_last(self.source, fed)
        if self.permuted:
            fed = import_keras().layers.Permute((3, 1, 2), name="channels_first")(fed)
        return flatten(self.source, fed)

    def predict(self, values: Any, index: int) -> Any:
        """One output of the model as loaded, as ``call`` arranges it, for float (n, h, w, channels)."""
        keras = import_keras()
        if self.moved or self.permuted:
            values = np.moveaxis(values, -1, 1)
        result = keras.tree.flatten(self.source(values.astype(self.dtype), training=False))[index]
        result = keras.ops.convert_to_numpy(result)
        return np.moveaxis(result, 1, -1) if self.moved and result.ndim == 4 else result

    def names(self, results: Any) -> list[str]:
        """Names of the outputs, in the order of ``keras.tree.flatten``."""
        if isinstance(results, dict):
            return sorted(results)
        graph = functional(self.source)
        count = len(import_keras().tree.flatten(results))
        return list(graph.output_names) if graph is not None else list(map(str, range(count)))


def _size(entry: _Entry, description: Description) -> tuple[int, int]:
    own = entry.size
    height, width = description.size or own
    if height is None or width is None:
        height, width = height or SIDE, width or SIDE
        logger.info("it takes photos of any size: exported for %dx%d, --size names another", height, width)
    if own[0] not in (None, height) or own[1] not in (None, width):
        raise ExportError(f"takes photos of {own[0]}x{own[1]}, --size says {height}x{width}: leave it out")
    return int(height), int(width)


def _channels(entry: _Entry, description: Description) -> Channels:
    chosen = description.channels
    if chosen is not None and entry.depth in (None, len(CHANNELS[chosen][0])):
        return chosen
    if entry.depth is not None and entry.depth not in _DEPTHS:
        raise ExportError(
            f"takes pictures of {entry.depth} channels, expected 1 (grey), 3 or 4: a photo has no more to give"
        )
    if chosen is not None:
        raise ExportError(f"takes pictures of {entry.depth} channels, --channels says {chosen}")
    if entry.depth == len(CHANNELS["rgba"][0]):
        raise ExportError(
            "takes pictures of 4 channels: say --channels rgba if the fourth is opacity, which is 255 in a photo; "
            "if it is anything else (infrared, depth), photos do not have it"
        )
    return _DEPTHS[entry.depth or 3]


def _chosen(entry: _Entry, results: Any, description: Description) -> int:
    names = entry.names(results)
    if description.output_name:
        if description.output_name not in names:
            raise ExportError(f"has no output {description.output_name!r}, expected one of {', '.join(names)}")
        return names.index(description.output_name)
    if len(names) > 1:
        listed = []
        for name, tensor in zip(names, import_keras().tree.flatten(results), strict=True):
            listed.append(f"{name} {tuple(tensor.shape[1:])}")
        raise ExportError(f"has {len(names)} outputs ({', '.join(listed)}): name the map with --output-name")
    return 0


def _check_same(entry: _Entry, image: Any, fed: Any, result: Any, index: int) -> None:
    """Raise ExportError where the model made anew computes something else than the model as loaded."""
    keras = import_keras()
    noise = np.random.default_rng(0).integers(0, 256, (1, *image.shape[1:]), np.uint8)
    # Where nobody says so, a Resizing takes a call for training, and every BatchNormalization behind it with it.
    both = keras.Model(image, [fed, result])(noise, training=False)
    values, actual = (np.asarray(keras.ops.convert_to_numpy(one)) for one in both)
    try:
        expected = entry.predict(values, index)
    except Exception as error:  # channels first on a CPU, and whatever else a layer raises
        logger.info("the model as loaded does not run here, so its copy is not compared: %s", one_line(error))
        return
    if not np.isfinite(expected).all():
        raise ExportError("the model as loaded gives NaN or infinity for a picture of noise: train it again")
    dtypes = {layer.compute_dtype for layer in getattr(entry.source, "layers", [])}
    share = _MIXED_DRIFT if {"float16", "bfloat16"} & dtypes else _DRIFT
    if share == _MIXED_DRIFT:
        logger.info("it computes in 16 bits: copied into float32")
    limit = share * max(1.0, float(np.abs(expected).max()))
    drift = np.abs(actual.astype(np.float64) - expected).max() if actual.shape == expected.shape else np.inf
    if not drift <= limit and actual.dtype.kind == "f":
        raise ExportError(
            f"made anew for export it differs by {drift:.3g} from the model as loaded, expected at most {limit:.3g}: "
            "its layers do not come from their own configuration, correct their get_config"
        )


def _as_probabilities(result: Any, size: tuple[int, int], description: Description) -> tuple[Any, str]:
    """(map of the classes, what it is: ``softmax``, ``sigmoid`` or ``logits``)"""
    count, head = len(description.classes), description.head
    if head == "labels" or "int" in result.dtype:
        before = outputs.without_argmax(result)
        if before is None:
            logger.info("its output is class ids: the file gives 1 for the class and 0 for the others")
            return outputs.one_hot(result, count), "softmax"
        logger.info("its output is class ids: the file gives what they were chosen from")
        result, head = before, "auto"
    result = outputs.as_map(result, size, count)
    read = outputs.read_head(result)
    if head == "logits" and read in ("softmax", "sigmoid"):
        raise ExportError(f"its last activation is {read}, --head says logits: leave it out")
    if head == "auto":
        head = read
    if head == "logits" and description.head == "auto":
        logger.info("its last layer has no activation: its output is taken for logits")
    depth = result.shape[-1]
    if depth == 1:
        return _two_classes(result, head, description.classes)
    if depth != count:
        raise ExportError(
            f"gives {depth} channels, {count} classes were named "
            f"({', '.join(entry.name for entry in description.classes)}): name each, in the order of the channels"
        )
    return result, "softmax" if head == "auto" else head


def _two_classes(result: Any, head: str, classes: tuple[ClassSpec, ...]) -> tuple[Any, str]:
    """Two classes of the one channel of a model that tells an object from its background."""
    if len(classes) != 2:
        raise ExportError(
            f"gives 1 channel, {len(classes)} classes were named: one channel tells an object from its background, "
            "name the object (--classes pet) or both (--classes background,pet)"
        )
    if head == "softmax":
        raise ExportError(
            "gives 1 channel behind a softmax, which is 1 everywhere: it predicts nothing, train it again"
        )
    if head == "auto":
        raise ExportError(
            "gives 1 channel, and its graph does not say of what: name --head sigmoid (0..1) or --head logits"
        )
    foreground = outputs.foreground_of(classes)
    logger.info("its one channel is class %s, the rest is %s", classes[foreground].name, classes[1 - foreground].name)
    logit = result if head == "logits" else outputs.before_sigmoid(result)
    if logit is None:
        return outputs.two_probabilities(result, foreground), "softmax"
    return outputs.two_logits(logit, foreground), "logits"


def _as_large(image: Any, result: Any, size: tuple[int, int]) -> tuple[Any, int]:
    """(the map at the photo's size, or without its margin; the margin)"""
    keras = import_keras()
    height, width = result.shape[1:3]
    if (height, width) == size:
        return result, 0
    margin = outputs.margin_of(keras.Model(image, result), size, (height, width))
    if margin is not None and _is_seen(keras.Model(image, result), size, (height, width), margin):
        logger.info("its unpadded convolutions leave out %d pixels on each side", margin)
        return result, margin
    coarser = size[0] % height == 0 and size[0] * width == size[1] * height
    if margin is None and coarser and size[0] // height <= outputs.COARSEST:
        return outputs.enlarge(result, size), 0
    # Unpadded convolutions and a coarser grid look alike from here, and one of them is a mask in the wrong place.
    raise ExportError(
        f"gives {height}x{width} for {size[0]}x{size[1]}, expected a class for each pixel, or for a whole part of the "
        "photo's size: name a --size that it can halve as often as it does, put an upsampling behind it, or train it "
        "with unet-train, which records a margin"
    )


def _is_seen(model: Any, size: tuple[int, int], result: tuple[int, int], margin: int) -> bool:
    """Whether a spot of a test picture comes out where the margin says, rather than where a coarser grid would."""
    seen = np.array(outputs.reach(lambda images: model(images, training=False).numpy(), size, result))
    spot = np.array([size[0] // 3, size[1] // 4])
    by_margin = np.abs(seen - (spot - margin)).max()
    by_scale = np.abs(seen - spot * np.array(result) / np.array(size)).max()
    unmoved = np.abs(seen - spot).max()
    return bool(by_margin < min(by_scale, unmoved))


def _digest(source: Any, path: Path) -> str:
    """SHA-256 of the weights; of a SavedModel, whose variables are constants here, of its files."""
    if source.weights:
        return weights_sha256((variable.path, variable.numpy()) for variable in source.weights)
    digest = hashlib.sha256()
    for file in _files(path):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    """A file, or all files of a folder in the order of their names."""
    yield from [path] if path.is_file() else sorted(filter(Path.is_file, path.rglob("*")))
