"""Architectures by name. A new one is a file of this folder with a ``build``, and a line in ``ARCHITECTURES``.

Importing this module does not import Keras: the names are known to the command line at once.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from typing import Any

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
    "lite-slim": "lite:build_slim",
    "lite1": "lite:build_lite1",
    "lite2": "lite:build_lite2",
}
"""Name -> ``module:function`` in this folder."""

ENCODER_PREFIX = "backbone_"
"""Names of layers of an encoder for which there are published weights begin with it; no other layer's name does."""


def builder(name: str) -> Callable[..., Any]:
    """The function that builds the architecture ``name``, as ``blocks.architecture`` makes it. Imports Keras.

    Raises:
        ValueError: no architecture of that name.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"no architecture {name!r}, expected one of {', '.join(ARCHITECTURES)}")
    build: Callable[..., Any] = pkgutil.resolve_name(f"{__name__}.{ARCHITECTURES[name]}")
    return build
