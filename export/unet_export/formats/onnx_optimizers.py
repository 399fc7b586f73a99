"""Search for the graph optimisers of ONNX Runtime that compute a file wrongly, so that its spec disables them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from unet_export.photos import trial_pictures
from unet_runtime.core import masks
from unet_runtime.core.artifact import Artifact
from unet_runtime.core.spec import ALL_OPTIMIZERS
from unet_runtime.engines import load

logger = logging.getLogger(__name__)

OPTIMIZERS = (
    # Rules of one operator and its neighbours.
    *("EliminateIdentity", "EliminateSlice", "UnsqueezeElimination", "EliminateDropout", "ExpandElimination"),
    *("CastElimination", "PreShapeNodeElimination", "NoopElimination", "DivMulFusion", "FuseReluClip"),
    *("GemmSumFusion", "GemmTransposeFusion", "NotWhereFusion", "ConvAddFusion", "ConvMulFusion", "ConvBNFusion"),
    *("Pad_Fusion", "MatMul_BatchNormalization_Fusion", "LabelEncoderFusion", "ClipQuantRewrite", "ReluQuantRewrite"),
    # Passes over the graph.
    *("ConstantSharing", "CommonSubexpressionElimination", "ConstantFolding", "MatMulAddFusion", "ReshapeFusion"),
    *("FreeDimensionOverrideTransformer", "GeluFusionL1", "GeluFusionL2", "LayerNormFusionL1", "LayerNormFusionL2"),
    *("SimplifiedLayerNormFusion", "TransposeOptimizer", "TransposeOptimizer_CPUExecutionProvider"),
    *("GemmActivationFusion", "ConvActivationFusion", "ConvAddActivationFusion", "MatMulScaleFusion"),
    *("MatmulTransposeFusion", "BiasGeluFusion", "FastGeluFusion", "QuickGeluFusion", "SkipLayerNormFusion"),
    *("AttentionFusion", "BiasSoftmaxFusion", "GatherSliceToSplitFusion", "GatherToSliceFusion"),
    *("SliceConcatToSpaceToDepthFusion", "NchwcTransformer", "NhwcTransformer"),
)
"""Names of those that change float graphs, as the engine has them:
https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/optimizer/graph_transformer_utils.cc"""


_TOLERANCES: dict[str, float] = {"float32": 1e-4, "float16": 5e-3}
"""Largest difference of a probability that is rounding (of class ids: share of pixels), by precision."""


def wrong_optimizers(artifact: Artifact) -> tuple[str, ...]:
    """The optimisers without which a float file gives what its graph says, as its spec has them; empty: none is wrong.

    The file is run as a device runs it, and with every optimiser off, on a photo and on noise. Integer files are left
    alone: there the optimisers make integer kernels of float operators, and the two round differently by design.

    Args:
        artifact: an ``.onnx`` file.

    Raises:
        BackendError, ModelFileError: the engine does not run it.
    """
    tolerance = _TOLERANCES.get(artifact.spec.precision)
    if tolerance is None:
        return ()
    pictures = trial_pictures(artifact.spec)[[0, -1]]
    expected = _run(artifact, pictures, (ALL_OPTIMIZERS,))
    if not np.isfinite(expected).all():
        return ()  # there is nothing to compare with; the gate reports values that are not finite

    def is_right(disabled: Sequence[str]) -> bool:
        found = np.abs(_run(artifact, pictures, disabled) - expected)
        return bool((found.mean() if artifact.spec.output.kind == "labels" else found.max()) <= tolerance)

    if is_right(()):
        return ()
    found = _smallest(is_right, (), OPTIMIZERS) if is_right(OPTIMIZERS) else (ALL_OPTIMIZERS,)
    logger.warning(
        "%s: ONNX Runtime computes another result with its graph optimisers than without: it runs without %s, as the "
        "spec says",
        artifact.path.name,
        "any" if found == (ALL_OPTIMIZERS,) else ", ".join(found),
    )
    return found


def _smallest(
    is_right: Callable[[Sequence[str]], bool],
    disabled: tuple[str, ...],
    names: tuple[str, ...],
    *,
    changed: bool = False,
) -> tuple[str, ...]:
    """The fewest of ``names`` that beside ``disabled`` must be off; all of them together are enough.

    Halves it again and again: seven sessions for one of a hundred. ``changed``: whether ``disabled`` is new since the
    last answer.
    """
    if changed and is_right(disabled):
        return ()
    if len(names) == 1:
        return names
    first, second = names[: len(names) // 2], names[len(names) // 2 :]
    of_second = _smallest(is_right, disabled + first, second, changed=True)
    of_first = _smallest(is_right, disabled + of_second, first, changed=bool(of_second))
    return of_first + of_second


def _run(artifact: Artifact, pictures: npt.NDArray[np.uint8], disabled: Sequence[str]) -> npt.NDArray[np.float32]:
    """Probabilities of the file under a spec that disables these."""
    spec = replace(artifact.spec, disabled_optimizers=tuple(disabled))
    backend = load("onnx", artifact._replace(spec=spec), device="cpu")
    found = [backend.run(picture[np.newaxis]) for picture in pictures]  # a file may take one at a time
    return masks.activated(np.concatenate(found), spec)
