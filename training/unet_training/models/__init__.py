"""Architectures by name; one file each.

A builder takes (height, width, classes, *, filters, depth, activation, norm_momentum).
"""

from __future__ import annotations

from collections.abc import Callable

import keras

from unet_training.models import unet

ARCHITECTURES: dict[str, Callable[..., keras.Model]] = {"unet": unet.build}
