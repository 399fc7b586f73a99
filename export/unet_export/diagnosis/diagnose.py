"""Layers of an integer file in the order of the noise that they add, for people and for repair."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unet_export.diagnosis.layer_errors import NARROW, LayerError, Pair, measure
from unet_export.errors import ExportError
from unet_export.formats import Builder, Format
from unet_export.quantization import Quantization
from unet_runtime.core import text

MEASURED = 16
"""Calibration photos whose activations are compared; for each, all layers' activations are in memory at once."""

ROWS = 12
"""Layers shown in a table; the others add little."""

_HEAD = ("layer", "own", "added", "noise", "SQNR", "float range", "integer range", "sat.", "narrow", "kernel")

_LEGEND = f"""
own     noise of rounding this activation alone, relative to the signal's power, mean over channels
added   noise of this activation less that of what it is computed from; noise: its own and all before it
SQNR    signal-to-quantisation-noise ratio of the whole tensor, dB; kernel: of the rounded weights
sat.    values outside the integer range; narrow: channels that use less than {NARROW:.0%} of the range"""


def diagnose_export(builder: Builder, form: Format, path: Path, quantization: Quantization) -> list[LayerError]:
    """``diagnose`` the file that ``builder`` wrote with these settings."""
    layers = list(map(attrgetter("name"), builder.model(quantization).layers))
    counterpart = builder.baseline(form, quantization)
    return diagnose(counterpart, path.read_bytes(), builder.images(MEASURED), path.suffix, layers)


def diagnose(
    float_content: bytes, integer_content: bytes, images: npt.NDArray[np.uint8], suffix: str, layers: Sequence[str]
) -> list[LayerError]:
    """Compare an integer file with its float32 counterpart layer by layer; the main contributor to the noise first.

    Args:
        float_content, integer_content: whole files of one model in one family.
        images: real photos as fed, uint8 (n, h, w, 3), at least one; 8 to 16 rank layers well.
        suffix: ``.onnx`` or ``.tflite``.
        layers: names of the Keras layers: TFLite's ``conv_1`` may be ``conv`` called for the second time.

    Raises ExportError for another suffix, or files that do not belong together.
    """
    pair: Pair
    # Each family's engine is imported for its own files.
    if suffix == ".onnx":
        from unet_export.diagnosis.onnx_tensors import OnnxPair

        pair = OnnxPair(float_content, integer_content, layers)
    elif suffix == ".tflite":
        from unet_export.diagnosis.tflite_tensors import TFLitePair

        pair = TFLitePair(float_content, integer_content, layers)
    else:
        raise ExportError(f"files {suffix!r} cannot be diagnosed, expected .onnx or .tflite")
    return sorted(measure(pair, images), key=attrgetter("contribution"), reverse=True)


def main_contributors(errors: Sequence[LayerError]) -> list[str]:
    """Keras layers to keep precise, in the order of ``errors``: the layer that makes each activation, then its readers.

    A tensor is precise only if no integer layer makes or reads it.
    """
    names: dict[str, None] = {}
    for error in errors:
        names |= dict.fromkeys((error.layer, *error.readers))
    names.pop("", None)
    return list(names)


def table(errors: Sequence[LayerError], rows: int = ROWS) -> str:
    """The first ``rows`` of ``errors`` as text for a terminal, with the meaning of the columns below."""
    lines = [text.table([_HEAD, *map(_row, errors[:rows])])]
    if len(errors) > rows:
        lines.append(f"... and {len(errors) - rows} layers that add less")
    return "\n".join([*lines, _LEGEND])


def _row(error: LayerError) -> tuple[str, ...]:
    return (
        error.layer or error.tensor,
        f"{error.own:.2%}",
        f"{error.added:+.2%}",
        f"{error.noise:.2%}",
        f"{error.sqnr:.1f} dB",
        f"{error.low:.3g} .. {error.high:.3g}",
        "float" if error.represented is None else "{:.3g} .. {:.3g}".format(*error.represented),
        f"{error.saturated:.2%}",
        f"{error.narrow:.0%}",
        "" if error.weights_sqnr is None else f"{error.weights_sqnr:.1f} dB",
    )
