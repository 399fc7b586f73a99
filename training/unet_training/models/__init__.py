"""Architectures by name; one file each."""

from __future__ import annotations

from typing import Protocol

import keras

from unet_training.models import (
    attention,
    canet,
    dense,
    edge_fast,
    ladder,
    lite,
    recurrent_residual,
    residual,
    unet,
    unet2015,
)  # fmt: skip


class Build(Protocol):
    """``build`` of every architecture."""

    def __call__(
        self, height: int | None, width: int | None, classes: int, *, filters: int = ..., depth: int = ...,
        activation: str = ..., norm_momentum: float = ...,
    ) -> keras.Model:  # fmt: skip
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
            (n, height, width, classes); of ``unet2015`` fewer pixels.

        Raises:
            ValueError: a size that the network does not take.
        """
        ...


ARCHITECTURES: dict[str, Build] = {
    "unet": unet.build,
    "unet2015": unet2015.build,
    "attention": attention.build,
    "residual": residual.build,
    "recurrent-residual": recurrent_residual.build,
    "dense": dense.build,
    "ladder": ladder.build,
    "canet": canet.build,
    "edge-fast": edge_fast.build,
    "lite": lite.build,
    "lite1": lite.build_lite1,
    "lite2": lite.build_lite2,
}
