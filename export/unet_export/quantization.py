"""How integers are chosen: one frozen object that travels with the artifact."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

METHODS = ("minmax", "percentile", "entropy")
"""How an activation's range follows from calibration: all that was seen; all but its rarest ends; the range whose
histogram loses least information (ONNX alone)."""


@dataclass(frozen=True)
class Quantization:
    """Of one quantised file."""

    method: str = "minmax"
    """Of ``METHODS``."""
    photos: int = 200
    """Calibration photos asked for."""
    weight_bits: int = 8
    """Of the 8 that a weight has room for, those in use: with 7, CPUs that add products in 16 bits cannot overflow."""
    equalized: bool = False
    """Whether channels were brought to equal ranges first (see ``equalize.py``): the same function in float32."""
    precise: tuple[str, ...] = ()
    """Keras layers, by name, besides the head: kept in float32 (ONNX) or given 16-bit activations (TFLite, where no
    float may be)."""
    finetune_steps: int = 0
    """Steps of quantisation-aware training before (see ``finetune.py``); 0: the weights as trained."""

    def as_dict(self) -> dict[str, Any]:
        """For ``provenance.quantization``."""
        return {**asdict(self), "precise": list(self.precise)}


DEFAULTS = {
    # x86 without VNNI adds pairs of products in 16 bits: one file, other answers (docs/results.md has what it costs).
    "onnx-int8": Quantization(weight_bits=7),
    "tflite-int8": Quantization(),
    "tflite-int16x8": Quantization(),
}
"""By format."""
