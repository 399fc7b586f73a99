"""The ONNX formats: float32, float16 in two ways, and int8. What they need is imported when a file is written."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet_export.formats.base import Builder, Format, measuring_norms
from unet_export.formats.onnx_model import OnnxModel, is_adopted
from unet_export.photos import sha256
from unet_export.quantization import METHODS, Quantization
from unet_export.transforms.rounding import MOMENT_PHOTOS
from unet_runtime.core.artifact import Artifact, read_artifact
from unet_runtime.core.spec import Precision

if TYPE_CHECKING:
    import onnx

_ENGINES = ("onnx", "openvino")


def _write(builder: Builder, path: Path, quantization: Quantization, *, precision: Precision) -> None:
    from unet_export.formats import onnx_convert, onnx_float16, onnx_reduced

    proto = _graph(builder, quantization, precision)
    provenance: dict[str, Any] = {}
    if precision in ("float16", "float16-weights"):
        images = builder.images(MOMENT_PHOTOS)
        make = onnx_float16.to_float16 if precision == "float16" else onnx_float16.store_float16
        proto = make(proto, images)
        provenance = {"calibration_sha256": sha256(images)}
    elif precision in ("int8", "mixed"):
        images = builder.images(quantization.photos)
        if precision == "mixed":
            norms = onnx_reduced.layers_with_nodes(proto, measuring_norms(builder.model(quantization)))
            quantization = replace(quantization, precise=(*quantization.precise, *norms))
        proto = onnx_reduced.quantize(proto, images, quantization)
        settings = quantization.as_dict()
        if precision == "mixed":
            settings["float"] = onnx_reduced.float_products(proto)
        provenance = {"quantization": settings, "calibration_sha256": sha256(images)}
    spec = replace(builder.spec, disabled_optimizers=_wrong_optimizers(builder, quantization, precision))
    path.write_bytes(onnx_convert.finish(proto, spec, precision, **provenance))


def _graph(builder: Builder, quantization: Quantization, precision: str) -> onnx.ModelProto:
    """The clean float32 graph of the model's variant, which all ONNX files start from."""
    from unet_export.formats import onnx_convert

    def convert() -> onnx.ModelProto:
        model = builder.model(quantization, precision)
        if isinstance(model, OnnxModel):
            return model.graph
        return onnx_convert.build_onnx(model, builder.spec.name, dynamic=builder.dynamic, labels=builder.labels)

    return builder.once(("onnx", builder.variant(quantization, precision)), convert)


def _wrong_optimizers(builder: Builder, quantization: Quantization, precision: Precision) -> tuple[str, ...]:
    """The optimisers of ONNX Runtime that get the float32 graph wrong, and so every file made of it."""
    from unet_export.formats import onnx_convert, onnx_optimizers

    def search() -> tuple[str, ...]:
        content = onnx_convert.finish(_graph(builder, quantization, precision), builder.spec, "float32")
        artifact = Artifact(Path(builder.spec.name).with_suffix(".onnx"), builder.spec, content)
        return onnx_optimizers.wrong_optimizers(artifact)

    return builder.once(("optimizers", builder.variant(quantization, precision)), search)


def _check(path: Path, *, precision: Precision) -> None:
    import onnx

    from unet_export.formats import onnx_convert, onnx_float16, onnx_reduced
    from unet_export.formats.onnx_parts import head_layers

    artifact = read_artifact(path)
    proto = onnx.load_from_string(artifact.content)
    if not is_adopted(artifact.spec):
        onnx_convert.check(proto)
    if precision == "int8":
        asked = artifact.spec.provenance.quantization.get("precise", ())
        onnx_reduced.check_quantized(proto, (*head_layers(proto), *asked))
    elif precision == "mixed":
        onnx_reduced.check_mixed(proto)
    elif precision == "float16-weights":
        onnx_float16.check_stored(proto)


def _format(name: str, precision: Precision, **settings: Any) -> Format:
    write, check = partial(_write, precision=precision), partial(_check, precision=precision)
    return Format(name, precision, f".{precision}.onnx", _ENGINES, write, check, resizable=True, **settings)


FLOAT32 = _format("onnx", "float32")

# x86 without VNNI adds pairs of products in 16 bits, which 8-bit weights would overflow (see onnx_reduced.py).
_INTEGERS: dict[str, Any] = {
    "quantization": Quantization(weight_bits=7),
    "methods": METHODS,
    "baseline": FLOAT32,
}

INT8 = _format("onnx-int8", "int8", **_INTEGERS, mixed=_format("onnx-mixed", "mixed", **_INTEGERS))

FORMATS = (
    FLOAT32,
    _format("onnx-float16", "float16"),
    _format("onnx-float16-weights", "float16-weights"),
    INT8,
)
