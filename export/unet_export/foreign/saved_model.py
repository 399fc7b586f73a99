"""A SavedModel as a Keras model of one layer: its graph, with the variables as constants.

Keras 3 reads no layers from a SavedModel, so nothing inside has a layer's name, and remedies for int8 that change
weights do not reach it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from unet_export.errors import ExportError
from unet_export.source_model import import_keras
from unet_runtime.core.text import one_line

logger = logging.getLogger(__name__)

_SIGNATURE = "serving_default"


def open_saved_model(folder: Path) -> Any:
    """The model of a SavedModel's folder; its outputs have the names that the signature gives them.

    Raises:
        ExportError: no SavedModel, or one without a signature of one picture.
    """
    import tensorflow as tf

    if not (folder / "saved_model.pb").is_file():
        raise ExportError(f"{folder}: a folder without saved_model.pb, expected a SavedModel or a model's file")
    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:  # of files that miss, of operators that are unknown
        raise ExportError(f"{folder}: TensorFlow cannot load it ({one_line(error)}): save it again") from error
    signatures = dict(loaded.signatures)
    function = signatures.get(_SIGNATURE) or next(iter(signatures.values()), None)
    if function is None:
        raise ExportError(
            f"{folder}: a SavedModel without signatures: save the Keras model again, with model.export(folder) or "
            "model.save('model.keras')"
        )
    return _as_keras(function, folder)


def _as_keras(function: Any, folder: Path) -> Any:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    keras = import_keras()
    specs = list(function.structured_input_signature[1].values())
    if len(specs) != 1 or specs[0].shape.rank is None:
        raise ExportError(
            f"{folder}: its signature takes {', '.join(f'{spec.dtype.name}{spec.shape}' for spec in specs)}, expected "
            "one picture"
        )
    names = list(function.structured_outputs)
    frozen = convert_variables_to_constants_v2(function)
    # The frozen function returns a list in the order of the signature's tensors.
    order = {tensor.name: name for name, tensor in function.structured_outputs.items()}
    ordered = [order.get(tensor.name, "") for tensor in function.outputs]
    if set(ordered) == set(names):
        names = ordered
    logger.info("%s: a SavedModel is one layer to Keras: no remedy or diagnosis reaches the layers inside", folder)

    base: Any = keras.layers.Layer

    class Graph(base):  # type: ignore[misc]
        """The frozen graph."""

        def call(self, image: Any) -> Any:
            results = frozen(tf.convert_to_tensor(image))
            return dict(zip(names, results, strict=True))

    spec = specs[0]
    image = keras.Input(batch_shape=tuple(spec.shape), dtype=spec.dtype.name)
    try:
        results = Graph(name="graph")(image)
    except Exception as error:  # TensorFlow raises whatever an operator raises
        raise ExportError(f"{folder}: its graph cannot be called ({one_line(error)}): save it again") from error
    named = {}
    for name, tensor in results.items():
        named[name] = keras.layers.Identity(name=name)(tensor)
    return keras.Model(image, list(named.values()), name=folder.name or "model")
