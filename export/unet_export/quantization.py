"""How integers are chosen: one frozen object that travels with the artifact."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Method = Literal["minmax", "percentile", "entropy"]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "entropy")
"""How an activation's range follows from calibration: all values seen; all but the rarest at both ends; the range whose
histogram loses least information."""

TFLITE_METHODS = METHODS[:2]
"""Methods that there are for a ``.tflite``."""


@dataclass(frozen=True)
class Quantization:
    """Settings of one quantised file."""

    method: Method = "minmax"
    photos: int = 200
    """Calibration photos asked for."""
    weight_bits: int = 8
    """Bits in use of a weight's 8: with 7, CPUs that add products in 16 bits cannot overflow."""
    equalized: bool = False
    """Whether channels were brought to equal ranges first (see ``equalize.py``): the same function in float32."""
    precise: tuple[str, ...] = ()
    """Keras layers, by name: kept in float32 (ONNX, whose head always is) or given 16-bit activations (TFLite, where no
    float may be)."""
    finer_head: bool = False
    """Whether an int8 ``.tflite`` gives 16-bit probabilities. Without it the file is int8 from end to end and gives
    logits, which every interpreter, compiler and accelerator of such files takes."""
    finetune_steps: int = 0
    """Steps of quantisation-aware training before the export (see ``finetune.py``); 0: the weights as trained."""

    def as_dict(self) -> dict[str, Any]:
        """The settings as ``provenance.quantization`` records them."""
        return {**asdict(self), "precise": list(self.precise)}
