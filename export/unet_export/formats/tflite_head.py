"""The end of a ``.tflite``: the head's operators, and what its logits need to be held in 8 bits.

Probabilities in 256 steps tell foreground from background no better than 1 to 1 where the border takes nearly all of a
pixel, so that cut-outs get holes and haze. Logits in 256 steps of 0.04 keep the odds of any two classes to 4 %.
"""

from __future__ import annotations

from itertools import filterfalse

import numpy as np
import numpy.typing as npt

from unet_export.formats.flatbuffer import LOGITS, WEIGHTED, WEIGHTS, Flatbuffer, Operator

_DECIDED = {"SOFTMAX": 5.0, "LOGISTIC": 8.0}
"""Activation -> size of a logit beyond which its pixel is decided: 1 to 20,000 between two classes of a softmax, whose
logits have the mean 0, and 1 to 3,000 for a sigmoid."""

_ENLARGED = 12.0
"""The same where the logits are enlarged: a clipped one would move the edge between it and its neighbour. In ``canet``,
which enlarges four times, 5 loses 1.1 points of mean IoU (the family's test weights), 8 loses 0.4 and 12 loses 0.2."""

_LINEAR = ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
"""Operators that leave the mean of a pixel's channels as it is, where it is 0."""


def head(flatbuffer: Flatbuffer) -> list[Operator]:
    """The operators from the output back to the last with weights, where one operator feeds the next."""
    operators: list[Operator] = []
    (index,) = flatbuffer.graph.outputs
    while (entry := flatbuffer.producers.get(int(index))) is not None:
        sources = list(filterfalse(flatbuffer.constant, entry.inputs))
        if entry.kind not in WEIGHTED and len(sources) != 1:
            break
        operators.append(entry)
        if entry.kind in WEIGHTED:
            break
        (index,) = sources
    return operators


def center_logits(flatbuffer: Flatbuffer) -> None:
    """Bring the mean of a pixel's logits to 0, in place, where a softmax follows, which does not see it.

    The mean says nothing, and takes a part of the range.
    """
    operators = head(flatbuffer)
    kinds = [entry.kind for entry in operators]
    if len(kinds) < 2 or kinds[0] != "SOFTMAX" or not set(kinds[1:-1]).issubset(_LINEAR):
        return
    last = operators[-1]
    if last.fused or last.kind not in ("CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"):
        return
    for index in last.inputs[WEIGHTS:]:
        if flatbuffer.constant(index) and flatbuffer.type(index) == "FLOAT32":
            values = flatbuffer.values(index, np.float32)  # (classes, ...)
            flatbuffer.set_values(index, values - values.mean(axis=0))


def without_activation(flatbuffer: Flatbuffer) -> tuple[Flatbuffer, float]:
    """The file without the softmax or sigmoid that ends it, and the size at which its logits decide a pixel.

    Itself and 0 where it ends with something else.
    """
    kinds = [entry.kind for entry in head(flatbuffer)]
    decided = _DECIDED.get(kinds[0], 0.0) if kinds else 0.0
    if decided and "RESIZE_BILINEAR" in kinds:
        decided = max(decided, _ENLARGED)
    return (Flatbuffer(flatbuffer.without_last()), decided) if decided else (flatbuffer, 0.0)


def decisive(logits: npt.NDArray[np.float32], decided: float) -> npt.NDArray[np.float32]:
    """Logits (..., classes) within the range that an int8 file needs: what is beyond it may be clipped.

    From a loser nothing below ``-decided`` is asked. Of a winner nothing above ``decided``, or above the largest logit
    of any class that comes second: two that are clipped would tie.
    """
    second = decided
    if logits.shape[-1] > 1:
        second = max(decided, float(np.partition(logits, -2, axis=-1)[..., -2].max()))
    return np.clip(logits, -decided, second)


def gives_logits(content: bytes) -> bool:
    """Whether a file's output is logits, by its name."""
    for signature in Flatbuffer(content).model.signatureDefs or []:
        for entry in signature.outputs:
            if entry.name == LOGITS.encode():
                return True
    return False
