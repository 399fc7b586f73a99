"""Which layers of an integer file are to blame, in order, for people and for repair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from unet_export.diagnosis.layer_errors import NARROW, LayerError, measure
from unet_export.errors import ExportError

ROWS = 12
"""Of a table; the rest differ little."""


def diagnose(
    float_content: bytes, integer_content: bytes, images: npt.NDArray[np.uint8], suffix: str, layers: Sequence[str] = ()
) -> list[LayerError]:
    """Compare a float32 file with its integer twin layer by layer; the guiltiest layer first.

    Args:
        float_content: a whole file, as ``integer_content``: of the same model and family.
        integer_content: int8, or int16x8 for ``.tflite``.
        images: real photos as fed, uint8 (n, h, w, 3); 8 to 16 rank layers well.
        suffix: ``.onnx`` or ``.tflite``.
        layers: names of the Keras layers, where known: TFLite numbers scopes, and ``conv_1`` may be ``conv`` called
            for the second time.

    Raises:
        ExportError: another suffix, or files that do not belong together.
        ValueError: no photo.
    """
    # Each family's engine is imported for its own files.
    if suffix == ".onnx":
        from unet_export.diagnosis.onnx_tensors import OnnxPair

        errors = measure(OnnxPair(float_content, integer_content, layers), images)
    elif suffix == ".tflite":
        from unet_export.diagnosis.tflite_tensors import TFLitePair

        errors = measure(TFLitePair(float_content, integer_content, layers), images)
    else:
        raise ExportError(f"files {suffix!r} cannot be diagnosed, expected .onnx or .tflite")
    return sorted(errors, key=lambda error: error.guilt, reverse=True)


def guilty_layers(errors: Sequence[LayerError]) -> list[str]:
    """Keras layers to keep precise, the guiltiest first: of each activation the layer that makes it, then its readers.

    A tensor is precise only if no integer layer makes or reads it.
    """
    names = [name for error in errors for name in (error.layer, *error.readers)]
    return [name for name in dict.fromkeys(names) if name]


def table(errors: Sequence[LayerError], rows: int = ROWS) -> str:
    """The first ``rows`` of ``errors`` as text for a terminal, with what the columns mean below."""
    head = ("layer", "own", "added", "noise", "SQNR", "float range", "integer range", "sat.", "narrow", "kernel")
    lines = [head, *(_row(error) for error in errors[:rows])]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = ["  ".join(_aligned(line, widths)).rstrip() for line in lines]
    if len(errors) > rows:
        text.append(f"... and {len(errors) - rows} layers that add less")
    return "\n".join([*text, "", *_LEGEND])


_LEGEND = (
    "own     noise of rounding this activation alone, of the signal's power, mean of its channels",
    "added   noise of this activation less that of what it is computed from; noise: its own and all before it",
    "SQNR    signal-to-quantisation-noise ratio of the whole tensor, dB; kernel: of the weights, rounded",
    f"sat.    values outside the integer range; narrow: channels that use less than {NARROW:.0%} of the range",
)


def _row(error: LayerError) -> tuple[str, ...]:
    represented = "float" if error.represented is None else _range(*error.represented)
    kernel = "" if error.weights_sqnr is None else f"{error.weights_sqnr:.1f} dB"
    return (
        error.layer or error.tensor,
        f"{error.own:.2%}",
        f"{error.added:+.2%}",
        f"{error.noise:.2%}",
        f"{error.sqnr:.1f} dB",
        _range(error.low, error.high),
        represented,
        f"{error.saturated:.2%}",
        f"{error.narrow:.0%}",
        kernel,
    )


def _range(low: float, high: float) -> str:
    return f"{low:.3g} .. {high:.3g}"


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Names to the left, figures to the right."""
    return [line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))]
