"""The ONNX formats: float32, float16 and int8. What they need is imported when a file is written."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet_export.formats.base import Builder, Format
from unet_export.photos import sha256
from unet_export.quantization import METHODS, Quantization
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.spec import Precision

if TYPE_CHECKING:
    import onnx

_ENGINES = ("onnx", "openvino")


def _write(builder: Builder, path: Path, quantization: Quantization, *, precision: Precision) -> None:
    from unet_export.formats import onnx_convert, onnx_reduced

    proto = _graph(builder, quantization, precision)
    provenance: dict[str, Any] = {}
    if precision == "float16":
        proto = onnx_reduced.to_float16(proto)
    elif precision == "int8":
        images = builder.images(quantization.photos)
        proto = onnx_reduced.quantize(proto, images, quantization)
        provenance = {"quantization": quantization.as_dict(), "calibration_sha256": sha256(images)}
    path.write_bytes(onnx_convert.finish(proto, builder.spec, precision, **provenance))


def _graph(builder: Builder, quantization: Quantization, precision: str) -> onnx.ModelProto:
    """The clean float32 graph of the model's variant, which all ONNX files start from."""
    from unet_export.formats import onnx_convert

    def convert() -> onnx.ModelProto:
        model = builder.model(quantization, precision)
        return onnx_convert.build_onnx(model, builder.spec.name, dynamic=builder.dynamic, labels=builder.labels)

    return builder.once(("onnx", builder.variant(quantization, precision)), convert)


def _check(path: Path, *, precision: Precision) -> None:
    import onnx

    from unet_export.formats import onnx_convert, onnx_reduced

    artifact = read_artifact(path)
    proto = onnx.load_from_string(artifact.content)
    onnx_convert.check(proto)
    if precision == "int8":
        asked = artifact.spec.provenance.quantization.get("precise", ())
        onnx_reduced.check_quantized(proto, (*onnx_reduced.head_layers(proto), *asked))


def _format(name: str, precision: Precision, **settings: Any) -> Format:
    write, check = partial(_write, precision=precision), partial(_check, precision=precision)
    return Format(name, precision, f".{precision}.onnx", _ENGINES, write, check, resizable=True, **settings)


FLOAT32 = _format("onnx", "float32")

# x86 without VNNI adds pairs of products in 16 bits, which 8-bit weights would overflow (see onnx_reduced.py).
INT8 = _format("onnx-int8", "int8", quantization=Quantization(weight_bits=7), methods=METHODS, baseline=FLOAT32)

FORMATS = (FLOAT32, _format("onnx-float16", "float16"), INT8)
