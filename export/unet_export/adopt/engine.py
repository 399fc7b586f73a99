"""A foreign file in its engine, as it is: its own input tensor in, all its output tensors out."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_export.adopt.facts import Facts
from unet_export.errors import ExportError
from unet_runtime.core.text import one_line

Array = npt.NDArray[Any]


_PLACE = re.compile(r"/\S*onnxruntime\S+:\d+ .*?\) (?=[A-Z])")
"""Where in its sources ONNX Runtime raised: a path, and a function with its arguments, hundreds of characters."""


def _words(error: Exception) -> str:
    return one_line(_PLACE.sub("", str(error)))


class RawModel:
    """A model that is run with its own tensors.

    Raises:
        ExportError: the engine refuses the file.
    """

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._open = _OnnxFile if facts.path.suffix == ".onnx" else _TFLiteFile
        try:
            self._file: Any = self._open(facts)
        except Exception as error:  # the engines' exceptions share no base
            raise ExportError(
                f"{facts.path}: {self._open.label} refuses it ({_words(error)}): export it with an older opset or "
                "IR version, or upgrade the engine"
            ) from error

    def outputs(self, tensor: Array) -> list[Array]:
        """All outputs for one input tensor.

        Raises:
            ExportError: the model does not run with such a tensor.
        """
        try:
            found: list[Array] = self._file.outputs(tensor)
        except Exception as error:  # as above
            raise ExportError(
                f"{self._facts.path}: cannot take {tensor.dtype}{tensor.shape} ({one_line(error)}): name another "
                "--size, such as a multiple of 32, or the --layout that it has"
            ) from error
        return found


class _OnnxFile:
    label = "ONNX Runtime"

    def __init__(self, facts: Facts) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(facts.content, options, providers=["CPUExecutionProvider"])
        self._input = facts.inputs[0].name

    def outputs(self, tensor: Array) -> list[Array]:
        return [np.asarray(made) for made in self._session.run(None, {self._input: tensor})]


class _TFLiteFile:
    label = "LiteRT"

    def __init__(self, facts: Facts) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter: Any = Interpreter(model_content=facts.content)

    def outputs(self, tensor: Array) -> list[Array]:
        source = self._interpreter.get_input_details()[0]
        if tuple(source["shape"]) != tensor.shape:
            self._interpreter.resize_tensor_input(source["index"], tensor.shape)
        self._interpreter.allocate_tensors()
        self._interpreter.set_tensor(source["index"], tensor)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(entry["index"]) for entry in self._interpreter.get_output_details()]
