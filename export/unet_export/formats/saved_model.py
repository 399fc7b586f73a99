"""Keras model -> SavedModel, the format that TensorFlow Serving and the TFLite converter read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from unet_runtime.core.artifact import write_saved_model_spec
from unet_runtime.core.spec import ModelSpec

INPUT_NAME = "image"
OUTPUT_NAME = "probabilities"
SIGNATURE_NAME = "serving_default"


def export_saved_model(model: Any, spec: ModelSpec, folder: Path) -> None:
    """Write ``folder``, with the spec in ``assets.extra/``.

    Signature ``serving_default``: uint8 ``image`` (batch, h, w, 3) -> float32 ``probabilities``
    (batch, h', w', classes); any batch size.

    Raises:
        OSError: the folder cannot be written.
    """
    import tensorflow as tf

    write_graph(model, folder, batch=None, dtype="uint8")
    tools = {**spec.provenance.tools, "tensorflow": tf.__version__}
    write_saved_model_spec(folder, spec.with_precision("float32", tools=tools))


def write_graph(model: Any, folder: Path, *, batch: int | None, dtype: str) -> None:
    """Write a bare SavedModel of ``model`` with one signature, ``serving_default``.

    The variables are listed as TensorFlow's own. Of a Keras 3 model TensorFlow finds only wrappers,
    and the TFLite converter then dies in calibration (READ_VARIABLE); Keras' ExportArchive finds
    both, and writes every weight twice.

    Raises:
        OSError: TensorFlow cannot write the folder.
    """
    import tensorflow as tf

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    module.serve = tf.function(serving(model), input_signature=[signature(model, batch, dtype)])
    try:
        tf.saved_model.save(module, str(folder), signatures={SIGNATURE_NAME: module.serve})
    except tf.errors.OpError as error:  # TensorFlow's own file system layer knows no OSError
        raise OSError(error.message.rpartition("; ")[2]) from error  # "<node> <temporary file>; File too large"


def serving(model: Any) -> Any:
    """The model as a function whose argument and result carry the contract's names."""

    def serve(image: Any) -> dict[str, Any]:
        with _pixels_repeated_at_once(model):
            return {OUTPUT_NAME: model(image, training=False)}

    return serve


@contextmanager
def _pixels_repeated_at_once(model: Any) -> Iterator[None]:
    """For the time of a call every nearest UpSampling2D is one operator, which every engine has: Keras repeats rows,
    then columns, in reshapes and tiles of five dimensions that no converter sees through."""
    enlarging = [
        layer
        for layer in flat(model)
        if type(layer).__name__ == "UpSampling2D"
        and layer.interpolation == "nearest"
        and layer.data_format == "channels_last"
    ]
    for layer in enlarging:
        vars(layer)["call"] = partial(_enlarged, layer.size)
    try:
        yield
    finally:
        for layer in enlarging:
            del vars(layer)["call"]


def _enlarged(factors: tuple[int, int], inputs: Any) -> Any:
    """(n, h, w, c) -> (n, h * factors[0], w * factors[1], c)."""
    import tensorflow as tf

    height, width = (known or tf.shape(inputs)[axis] for axis, known in enumerate(inputs.shape[1:3], start=1))
    return tf.raw_ops.ResizeNearestNeighbor(images=inputs, size=[height * factors[0], width * factors[1]])


def flat(model: Any) -> Iterator[Any]:
    """Layers, those inside of nested models too; each once."""
    seen: set[int] = set()
    waiting = list(reversed(model.layers))
    while waiting:
        layer = waiting.pop()
        if id(layer) not in seen:
            seen.add(id(layer))
            yield layer
            waiting.extend(reversed(getattr(layer, "layers", [])))


def signature(model: Any, batch: int | None, dtype: str) -> Any:
    """``tf.TensorSpec`` of ``image``, (batch, h, w, 3)."""
    import tensorflow as tf

    return tf.TensorSpec((batch, *model.inputs[0].shape[1:]), dtype, name=INPUT_NAME)
