"""Open Inference Protocol v2, which the clients of Triton, KServe and OpenVINO Model Server speak.

One input, ``image``: the model's own tensor, UINT8 (n, h, w, 3), or BYTES (n), encoded photos of any size. Outputs:

    probabilities   FP32 (n, h', w', C), on the model's grid, as an engine gives them
    labels          UINT8 (n, h', w'), the class of each pixel of that grid
    mask, overlay, cutout, palette, json
                    BYTES (n), the files that /segment makes, at each photo's own size; of encoded photos alone,
                    where they are asked for
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from unet_runtime import __version__
from unet_runtime.core.masks import first_of_the_largest
from unet_runtime.io.kind import Checkpoint, Metadata
from unet_runtime.io.sinks import KINDS
from unet_runtime.serve.models import Model
from unet_runtime.serve.photos import Photographer, pixels
from unet_runtime.serve.refusals import BAD_REQUEST, RefusalError
from unet_runtime.serve.tensors import Asked, Output, Request, write_response

PROBABILITIES, LABELS = "probabilities", "labels"
TENSORS = (PROBABILITIES, LABELS)
FILES = tuple(kind for kind in KINDS if kind != PROBABILITIES)

_PLATFORMS = {"onnx": "onnxruntime_onnx", "tflite": "tflite", "openvino": "openvino"}


def server_metadata() -> dict[str, Any]:
    """GET /v2."""
    return {"name": "unet-serve", "version": __version__, "extensions": ["binary_tensor_data", "model_configuration"]}


def model_metadata(model: Model, versions: list[str]) -> dict[str, Any]:
    """GET /v2/models/NAME."""
    image, grid = model.spec.input, model.spec.output
    classes = len(model.spec.classes)
    return {
        "name": model.name,
        "versions": versions,
        "platform": _PLATFORMS.get(model.backend.name, model.backend.name),
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, image.height, image.width, 3]}],
        "outputs": [
            {"name": PROBABILITIES, "datatype": "FP32", "shape": [-1, grid.height, grid.width, classes]},
            {"name": LABELS, "datatype": "UINT8", "shape": [-1, grid.height, grid.width]},
        ],
    }


def model_config(model: Model, versions: list[str], most: int) -> dict[str, Any]:
    """GET /v2/models/NAME/config, an extension of Triton: what ``perf_analyzer`` and other of its tools ask for."""
    metadata = model_metadata(model, versions)
    config: dict[str, Any] = {"name": model.name, "platform": metadata["platform"], "max_batch_size": most}
    for direction in ("input", "output"):
        entries = []
        for entry in metadata[f"{direction}s"]:
            kind = f"TYPE_{entry['datatype']}"
            entries.append({"name": entry["name"], "data_type": kind, "dims": entry["shape"][1:]})
        config[direction] = entries
    return config


def infer(
    request: Request, model: Model, photographer: Photographer, checkpoint: Checkpoint
) -> tuple[bytes, str, dict[str, str]]:
    """(body, media type, headers) of the response to an inference.

    Raises:
        RefusalError: an output that there is not.
        ImageError: a photo that cannot be read.
        BackendError: the engine failed.
    """
    asked = request.outputs or [Asked(name, request.is_binary) for name in TENSORS]
    known = TENSORS if request.images is not None else (*TENSORS, *FILES)
    for entry in asked:
        if entry.name not in known:
            kind = "photos" if request.images is None else "tensors"
            raise RefusalError(BAD_REQUEST, f"output {entry.name[:40]!r}, of {kind} there are {', '.join(known)}")
    if request.images is not None:
        with photographer.metrics.measure("infer"):
            made = _tensors(model.infer(request.images))
    else:
        made = _of_photos(request.photos, asked, model, photographer, checkpoint)
    outputs = [Output(entry.name, made[entry.name], entry.is_binary) for entry in asked]
    return write_response(model.name, model.version, request.id, outputs)


def _tensors(probabilities: npt.NDArray[np.float32]) -> dict[str, Any]:
    planes = np.moveaxis(probabilities, -1, 0)  # (C, n, h', w')
    return {PROBABILITIES: probabilities, LABELS: first_of_the_largest(planes)}


def _of_photos(
    photos: list[bytes], asked: list[Asked], model: Model, photographer: Photographer, checkpoint: Checkpoint
) -> dict[str, Any]:
    kinds = [entry.name for entry in asked if entry.name in FILES]
    files: dict[str, list[bytes]] = {kind: [] for kind in kinds}
    grids = []
    for photo in photos:
        with photographer.budget.reserve(pixels(photo)):
            checkpoint()
            result = photographer.segment(photo, model, checkpoint)
            grids.append(result.probabilities)
            shown = result.only(result.found()) if kinds else result
            for kind in kinds:
                files[kind].append(photographer.encoded(shown, kind, "", Metadata(engine=model.backend.engine)))
    return {**_tensors(np.stack(grids)), **files}
