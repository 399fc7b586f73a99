"""An adopted ONNX file as the model of an export.

What the file's spec says is put into the graph: colours, range, mean and std in front, activation and layout behind. So
the files made of it need no conversion on the device, and every format, gate and report works as for a Keras model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from unet_export.errors import ExportError
from unet_export.quantization import Quantization
from unet_export.source_model import ADOPTED
from unet_runtime.core.artifact import Artifact, read_artifact
from unet_runtime.core.spec import InputSpec, ModelSpec, OutputSpec

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class _Named:
    """What stands for a layer: a node of the graph."""

    name: str
    kind: str
    """Its operator."""


class _Array:
    """As much of a tensor as the gate asks for."""

    def __init__(self, values: npt.NDArray[np.float32]) -> None:
        self._values = values

    def numpy(self) -> npt.NDArray[np.float32]:
        return self._values


class OnnxModel:
    """An adopted ``.onnx`` file, called as a Keras model is: uint8 (n, h, w, 3) -> float32 (n, h', w', classes).

    Args:
        artifact: the file, float32.

    Raises:
        ExportError: a graph that cannot be rewritten.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        from unet_runtime import Segmenter

        self._segmenter = Segmenter(artifact.path, backend="onnx", device="cpu")

    def __call__(self, images: npt.NDArray[np.uint8], training: bool = False) -> _Array:
        return _Array(self._segmenter.infer(images))

    def predict(self, images: npt.NDArray[np.uint8], verbose: int = 0) -> npt.NDArray[np.float32]:
        """The file as it is, in ONNX Runtime."""
        return self._segmenter.infer(images)

    def count_params(self) -> int:
        """Numbers in its weights."""
        from unet_export.formats.onnx_graph import parameters

        return parameters(self.graph.graph)

    @cached_property
    def graph(self) -> onnx.ModelProto:
        """The graph in this project's form."""
        from unet_export.formats.onnx_rewrite import rewritten

        return rewritten(self.artifact)

    @property
    def layers(self) -> list[_Named]:
        """Its nodes, each a layer of its own."""
        from unet_export.formats.onnx_graph import layer_of_node

        kinds: dict[str, str] = {}
        for node in self.graph.graph.node:
            kinds.setdefault(layer_of_node(node.name), node.op_type)
        kinds.pop("", None)
        return list(starmap(_Named, kinds.items()))

    def variant(self, quantization: Quantization) -> OnnxModel:
        """The model with the settings' changes of its weights, which only Keras models can have.

        Raises:
            ExportError: there are some.
        """
        if quantization.equalized or quantization.finetune_steps:
            raise ExportError("it changes a Keras model's weights, and the source is an ONNX file")
        return self


def is_adopted(spec: ModelSpec) -> bool:
    """Whether a model is another tool's, whose graphs are not as clean as those made of Keras models."""
    return ADOPTED in spec.provenance.recipe


def load_onnx(path: Path) -> tuple[OnnxModel, ModelSpec]:
    """An adopted ``.onnx`` file, and the spec of what is made of it.

    Raises:
        ModelFileError: no such file, or one without a spec; the message says how it is adopted.
        ExportError: it is not float32, or its graph cannot be rewritten.
    """
    artifact = read_artifact(path)
    spec = artifact.spec
    if spec.precision != "float32":
        raise ExportError(f"{path}: is {spec.precision} already, expected float32, of which other formats are made")
    source = InputSpec(spec.input.height, spec.input.width, spec.input.fit, spec.input.resample, spec.input.margin)
    result = OutputSpec(spec.output.height, spec.output.width, spec.output.activation)
    if not is_adopted(spec):
        raise ExportError(f"{path}: was made by unet-export of a Keras model: export that again")
    return OnnxModel(artifact), replace(spec, input=source, output=result)


def refuse_formats(path: Path, formats: Sequence[str], *, dynamic: bool, labels: bool) -> None:
    """Formats and options that need Keras.

    Raises:
        ExportError: some are asked for.
    """
    others = [name for name in formats if not name.startswith("onnx")]
    if others:
        raise ExportError(
            f"{path}: {', '.join(others)}: made of a Keras model alone, and this is an ONNX file: --formats "
            "onnx,onnx-float16,onnx-int8"
        )
    for name, asked in (("dynamic", dynamic), ("labels", labels)):
        if asked:
            raise ExportError(f"{path}: --{name} needs a Keras model, and this is an ONNX file: leave it out")
