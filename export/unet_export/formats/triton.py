"""Keras model -> a model repository, which Triton Inference Server, OpenVINO Model Server and unet-serve read.

NAME/config.pbtxt       tensors, batches
NAME/labels.txt         names of the classes, by id
NAME/unet_edge.json     the spec, which the model file has inside, too
NAME/1/model.onnx       version 1, float32
SHA256SUMS              of every other file
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from unet_export.errors import ExportError
from unet_export.formats import onnx
from unet_export.formats.base import Builder, Format
from unet_export.formats.web import SUMS_NAME
from unet_export.quantization import Quantization
from unet_export.source_model import INPUT_NAME, OUTPUT_NAME
from unet_runtime.core.artifact import SPEC_NAME, read_artifact
from unet_runtime.core.spec import ModelSpec

_MOST_IN_A_BATCH = 16
"""As unet-serve takes on a GPU."""

_CONFIG = """\
name: {name}
platform: "onnxruntime_onnx"
max_batch_size: {batch}
input {{
  name: "{input_name}"
  data_type: TYPE_UINT8
  format: FORMAT_NHWC
  dims: [ {height}, {width}, 3 ]
}}
output {{
  name: "{output_name}"
  data_type: TYPE_FP32
  dims: [ {output_height}, {output_width}, {classes} ]
  label_filename: "labels.txt"
}}
dynamic_batching {{ }}
"""

_NOT_OPTIMIZED = "optimization { graph { level: 2 } }\n"
"""No graph optimiser of ONNX Runtime: Triton cannot leave out single ones."""


def config(spec: ModelSpec) -> str:
    """``config.pbtxt`` of a model: NHWC RGB 0 to 255 in, probabilities out, the batch in front of both.

    Where an optimiser of the engine computes the file wrongly, none runs.
    """
    text = _CONFIG.format(
        name=json.dumps(spec.name, ensure_ascii=False),
        batch=_MOST_IN_A_BATCH,
        input_name=INPUT_NAME,
        height=spec.input.height,
        width=spec.input.width,
        output_name=OUTPUT_NAME,
        output_height=spec.output.height,
        output_width=spec.output.width,
        classes=len(spec.classes),
    )
    return text + _NOT_OPTIMIZED if spec.disabled_optimizers else text


def _write(builder: Builder, path: Path, quantization: Quantization) -> None:
    if builder.dynamic or builder.labels:
        raise ExportError(
            "format triton: its config.pbtxt has one size and one output: leave out --dynamic and --labels, or triton"
        )
    folder = path / builder.spec.name
    (folder / "1").mkdir(parents=True)
    model = folder / "1" / "model.onnx"
    builder.write(onnx.FLOAT32, model, quantization)
    spec = read_artifact(model).spec
    texts = {
        "config.pbtxt": config(spec),
        "labels.txt": "".join(f"{name}\n" for name in spec.class_names),
        SPEC_NAME: spec.to_json(),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    (path / SUMS_NAME).write_text(sums(path), encoding="utf-8", newline="\n")


def sums(path: Path) -> str:
    """Lines of ``SHA256SUMS``: every other file below a folder."""
    lines = ""
    for file in sorted(filter(Path.is_file, path.rglob("*"))):
        if file.name != SUMS_NAME:
            lines += f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(path).as_posix()}\n"
    return lines


def _check(path: Path) -> None:
    if (path / SUMS_NAME).read_text(encoding="utf-8") != sums(path):
        raise ExportError(f"{path}: its files are not those of {SUMS_NAME}: export again")


TRITON = Format("triton", "float32", ".triton", ("onnx", "openvino"), _write, _check)
