"""A trained ``.keras`` file as one more engine of the runtime. Import it only where Keras is needed."""

from __future__ import annotations

import keras
import numpy as np
import numpy.typing as npt

from unet_runtime.core.artifact import Artifact
from unet_runtime.core.errors import ModelFileError


class KerasBackend:
    """See ``unet_runtime.engines.base.Backend``."""

    name = "keras"
    note = ""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self.device = "cuda" if accelerated() else "cpu"
        self.engine = f"Keras {keras.__version__} ({keras.backend.backend()})"

    def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, h, w, 3) RGB 0..255 -> float32 probabilities (n, h', w', classes)."""
        # Called, not predict(): that compiles a graph for every batch size, of which the last has its own.
        result: npt.NDArray[np.float32] = keras.ops.convert_to_numpy(self._model(images, training=False))
        return result


def accelerated() -> bool:
    """Whether Keras computes on an accelerator. A tensor knows: keras.distribution has no torch, and raises in JAX
    where there is no GPU."""
    return "cpu" not in str(keras.ops.ones((1,)).device).lower()


def load_model(artifact: Artifact) -> keras.Model:
    """Load a file that ``read_artifact`` has found undamaged; code inside it is not run.

    Raises:
        ModelFileError: Keras refuses it, or it is not what its spec says.
    """
    try:
        model = keras.models.load_model(artifact.path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever a layer's constructor raises
        reason = " ".join(str(error).split())[:300]
        raise ModelFileError(
            f"{artifact.path}: Keras {keras.__version__} refuses it ({reason}): train it again"
        ) from error
    source, result = artifact.spec.input, artifact.spec.output
    expected = (None, source.height, source.width, 3), (None, result.height, result.width, len(artifact.spec.classes))
    actual = model.input_shape, model.output_shape
    if actual != expected:
        raise ModelFileError(f"{artifact.path}: maps {actual}, its spec says {expected}: train it again")
    return model
