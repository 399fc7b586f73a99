"""What every engine offers: an ``Engine`` record, and a ``Backend`` for each model that is loaded into it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np

from unet_runtime.core.artifact import Artifact
from unet_runtime.core.errors import BackendError, ModelFileError
from unet_runtime.core.spec import ModelSpec

if TYPE_CHECKING:
    import numpy.typing as npt

Device = Literal["auto", "cpu", "cuda", "tensorrt", "gpu", "npu"]
"""``auto``: CUDA where it really runs, else the CPU; never TensorRT, whose first start takes minutes.

``gpu`` is one of Intel's through OpenVINO, or one of any maker through ONNX Runtime's WebGPU plug-in; ``npu`` is one
of Intel's. Where a machine has several, a number says which: ``cuda:1``.
"""

MODELS = Path(__file__).parents[1] / "models"
"""Folder of the bundled models."""

_NAME = "pets-edge-160"
"""Name and size of the bundled model, as its files begin: ``benchmarks/replace_bundled.py`` writes these two lines."""

_FLOAT = "float16-weights"
"""Precision of the float file: ``float32``, or ``float16-weights``, which computes in float32 and is half as long."""

FLOAT_ONNX = MODELS / f"{_NAME}.{_FLOAT}.onnx"
INT8_ONNX = MODELS / f"{_NAME}.int8.onnx"
INT8_TFLITE = MODELS / f"{_NAME}.int8.tflite"


def split_device(device: str) -> tuple[str, int]:
    """Kind and number of a device; a name without a number means the first.

    Raises:
        BackendError: the number is none.

    Example:
        >>> split_device("cuda:1"), split_device("cpu")
        (('cuda', 1), ('cpu', 0))
    """
    kind, colon, number = device.partition(":")
    if colon and not (number.isascii() and number.isdecimal() and kind not in ("auto", "cpu")):
        raise BackendError(f"device {device!r}, expected a name such as cuda, or one with a number such as cuda:1")
    return kind, int(number or 0)


class Backend(Protocol):
    """A model loaded into an engine."""

    name: str
    """Name of the engine: ``onnx``, ``tflite``, ``openvino``."""
    device: str
    """Where the model really runs, read back from the engine: ``cpu``, ``cuda``, ``gpu:1``, ..."""
    engine: str
    """Engine and version for people: ``ONNX Runtime 1.31.1``."""
    note: str
    """Why a faster device was not taken, or what of the model it leaves to the CPU; else empty."""

    def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, h, w, 3) RGB 0..255, NHWC -> float32 (n, h', w', classes), as the file gives them.

        That is probabilities, or logits where the spec says so, which ``core.masks.activated`` makes probabilities of.
        May be called from several threads; the result belongs to the caller.

        Raises:
            BackendError: the engine refuses the input or fails.
        """
        ...


Tensor = tuple[str, Sequence[object]]
"""An input or output of a model, as its engine reports it: type as NumPy calls it, and sizes, of which those that
are no integers above 0 are free."""


def check_graph(artifact: Artifact, inputs: Sequence[Tensor], output: Tensor, *, quantized: bool = False) -> None:
    """Compare what an engine found in a model file with the file's spec.

    Args:
        artifact: the file.
        inputs: all inputs of the model; it must have one.
        output: the output that is used.
        quantized: whether the output's integers stand for real numbers.

    Raises:
        ModelFileError: they differ: the result would be wrong, or of other pixels than the spec says.
    """
    spec = artifact.spec
    if len(inputs) != 1:
        raise ModelFileError(f"{artifact.path}: the model has {len(inputs)} inputs, expected one: export it again")
    if not spec.is_plain:
        _check_foreign(artifact, inputs[0], output, quantized=quantized)
        return
    sizes = (spec.output.height, spec.output.width, len(spec.classes))
    _check_tensor(artifact, "input", inputs[0], ("uint8",), (spec.input.height, spec.input.width, 3))
    _check_tensor(artifact, "output", output, (output[0] if quantized else "float32",), sizes)


def _check_foreign(artifact: Artifact, source: Tensor, output: Tensor, *, quantized: bool) -> None:
    """As ``check_graph``, for a file of another tool: its output may have its axes in another arrangement."""
    from unet_runtime.core import tensors

    spec = artifact.spec
    found, shape = output
    _check_tensor(artifact, "input", source, (spec.input.dtype,), tensors.input_sizes(spec.input))
    sizes: tuple[object, ...] = tensors.output_sizes(spec)
    known = tuple(size for size in shape[1:] if isinstance(size, int) and size > 0)
    if len(shape) != 1 + len(sizes) and len(known) == len(shape) - 1 and _is_rearranged(spec, known):
        sizes = known
    is_label = spec.output.kind == "labels"
    _check_tensor(artifact, "output", output, (found,) if quantized or is_label else _REAL, sizes)


_REAL = ("float32", "float16", "float64")


def _is_rearranged(spec: ModelSpec, sizes: tuple[int, ...]) -> bool:
    """Whether an output of these sizes, without the batch, has the right number of values, channels in their place."""
    from unet_runtime.core import tensors

    if spec.output.kind == "classes" and sizes[0 if spec.output.layout == "nchw" else -1] != len(spec.classes):
        return False
    return math.prod(sizes) == math.prod(tensors.output_sizes(spec))


def _is_size(size: object) -> bool:
    return isinstance(size, int) and size > 0


def _check_tensor(
    artifact: Artifact, name: str, tensor: Tensor, dtypes: tuple[str, ...], sizes: tuple[object, ...]
) -> None:
    found, shape = tensor
    agrees = len(shape) == 1 + len(sizes) and found in dtypes
    for size, known in zip(shape[1:], sizes, strict=False):
        if _is_size(size) and size != known:
            agrees = False
    if not agrees:
        shown = ", ".join(map(str, shape))
        raise ModelFileError(
            f"{artifact.path}: the model's {name} is {found}({shown}), its spec says {dtypes[0]}{('n', *sizes)}: "
            "export it again"
        )


def output_position(artifact: Artifact, names: Sequence[Sequence[str]]) -> int:
    """Which of a file's outputs is the model's: the one that the spec names, else the first.

    Args:
        artifact: the file.
        names: of each output, which may have several.

    Raises:
        ModelFileError: none has the name.
    """
    wanted = artifact.spec.output.name
    if not wanted:
        return 0
    for position, known in enumerate(names):
        if wanted in known:
            return position
    listed = ", ".join("/".join(known) for known in names)
    raise ModelFileError(f"{artifact.path}: no output is named {wanted!r}, as its spec says, expected one of {listed}")


Load = Callable[[Artifact, str, int | None], Backend]
"""``load(artifact, device, threads)`` of an engine's module: imports the engine and loads a verified model file.

``device`` is ``auto`` or one of the engine's devices, with a number or without; ``threads`` the number of CPU threads,
None: the cores that this process may use. Raises BackendError where the engine does not run on ``device``,
ModelFileError where it refuses the model.
"""


class Engine(NamedTuple):
    """All that the rest of the project asks about an engine; each engine's module has one, named ``ENGINE``."""

    name: str
    """As ``--backend`` and ``Segmenter(backend=...)`` call it."""
    label: str
    """Name for people."""
    package: str
    """Top-level module of the engine."""
    extra: str
    """Extra of unet-edge-runtime that installs it."""
    suffixes: tuple[str, ...]
    """Model files that it reads."""
    default_model: Path
    """The bundled model that it takes where the table of ``choice.py`` has none for it."""
    default_threads: Callable[[], int]
    """How many CPU threads it uses where the caller does not say."""
    load: Load
    entry: str = ""
    """Module whose import proves that the installation works; empty: ``package``."""
    devices: tuple[Device, ...] = ("cpu",)
    foreign: bool = False
    """Whether its backends are ``foreign.TensorBackend`` too, and so run models of other tools."""
    parallel: bool = False
    """Whether one loaded model runs several photos at a time on the CPU, each in its caller's thread."""
    rival_wheels: tuple[str, ...] = ()
    """Distributions that install the same package: only one may be installed."""
    plugins: Mapping[Device, str] = MappingProxyType({})
    """Packages that devices need besides the engine's own; ``auto`` prefers engines that have them."""
    missing: Mapping[Device, Callable[[], str]] = MappingProxyType({})
    """What a device lacks here, with the remedy, found in milliseconds and without loading a model; empty: try it."""
    slow_start: tuple[Device, ...] = ()
    """Devices that prepare a model for minutes, so that ``unet-info`` asks what is missing and does not try them."""
