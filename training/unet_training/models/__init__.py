"""Architectures by name. A new one is a file of this folder with a ``build`` function, and a line in ``ARCHITECTURES``.

Importing this module does not import Keras: the names are known to the command line at once.
"""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import keras

ARCHITECTURES = {
    "unet": "unet:build",
    "unet2015": "unet2015:build",
    "attention": "attention:build",
    "residual": "residual:build",
    "recurrent-residual": "recurrent_residual:build",
    "dense": "dense:build",
    "ladder": "ladder:build",
    "canet": "canet:build",
    "edge-fast": "edge_fast:build",
    "lite": "lite:build",
    "lite1": "lite:build_lite1",
    "lite2": "lite:build_lite2",
}
"""Name -> ``module:function`` in this folder; the function is a ``Build``."""

ENCODER_PREFIX = "backbone_"
"""Names of layers of an encoder for which there are published weights begin with it; no other layer's name does."""


class Build(Protocol):
    """Signature of the function that builds a network of one architecture."""

    def __call__(
        self,
        height: int | None,
        width: int | None,
        classes: int,
        *,
        filters: int = ...,
        depth: int = ...,
        activation: str = ...,
        norm_momentum: float = ...,
    ) -> keras.Model:
        """Build the network.

        Args:
            height, width: input size in pixels; None: any that the network takes, as training needs.
            classes: channels of the output.
            filters: of the first stage; by default the paper's.
            depth: stages above the bridge; by default the paper's.
            activation: of the 1x1 head, ``softmax`` or ``sigmoid``.
            norm_momentum: of BatchNormalization's moving averages.

        Returns:
            Model from uint8 ``image`` (n, height, width, 3), RGB in 0..255, to float32 ``probabilities``
            (n, height, width, classes); ``unet2015`` predicts fewer pixels.

        Raises:
            ValueError: a size that the network does not take.
        """
        ...


def builder(name: str) -> Build:
    """The function that builds the architecture ``name``; its module, and Keras with it, is imported now.

    Raises:
        ValueError: no architecture of that name.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"no architecture {name!r}, expected one of {', '.join(ARCHITECTURES)}")
    return cast("Build", pkgutil.resolve_name(f"{__name__}.{ARCHITECTURES[name]}"))
