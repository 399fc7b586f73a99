"""What every engine offers: an ``Engine`` record, and a ``Backend`` for each model that is loaded into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np

from unet_runtime.core.artifact import Artifact
from unet_runtime.core.errors import BackendError, ModelFileError

if TYPE_CHECKING:
    import numpy.typing as npt

Device = Literal["auto", "cpu", "cuda", "tensorrt", "gpu", "npu"]
"""``auto``: CUDA where it really runs, else the CPU; never TensorRT, whose first start takes minutes.

``gpu`` and ``npu`` are those of Intel, through OpenVINO. Where there are several, a number says which: ``cuda:1``."""

MODELS = Path(__file__).parents[1] / "models"
"""Folder of the bundled models."""

FLOAT32_ONNX = MODELS / "pets-edge-160.float32.onnx"
INT8_ONNX = MODELS / "pets-edge-160.int8.onnx"
INT8_TFLITE = MODELS / "pets-edge-160.int8.tflite"


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
    expected = (
        ("input", inputs[0], "uint8", (spec.input.height, spec.input.width, 3)),
        ("output", output, "float32", (spec.output.height, spec.output.width, len(spec.classes))),
    )
    for name, (found, shape), dtype, sizes in expected:
        wanted = (1, *sizes)
        agrees = len(shape) == len(wanted) and (found == dtype or (quantized and name == "output"))
        for size, known in zip(shape[1:], sizes, strict=False):
            if isinstance(size, int) and size > 0 and size != known:
                agrees = False
        if not agrees:
            shown = ", ".join(map(str, shape))
            raise ModelFileError(
                f"{artifact.path}: the model's {name} is {found}({shown}), its spec says {dtype}{('n', *sizes)}: "
                "export it again"
            )


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
    parallel: bool = False
    """Whether one loaded model runs several photos at a time on the CPU, each in its caller's thread."""
    rival_wheels: tuple[str, ...] = ()
    """Distributions that install the same package: only one may be installed."""
    slow_start: Mapping[Device, Callable[[], str]] = MappingProxyType({})
    """Devices that prepare a model for minutes, so that ``unet-info`` does not try them. It calls the function: what
    is missing for the device, with the remedy; empty if its libraries load."""
