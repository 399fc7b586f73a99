"""Data-parallel training: each device takes an equal share of every batch.

By Keras' own distribution API, which works under JAX alone (https://github.com/keras-team/keras/issues/21190): under
TensorFlow it accepts a distribution and trains on one device all the same, under torch it is missing.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import keras

from unet_training import processes
from unet_training.data.pairs import Labelled
from unet_training.errors import TrainingError

logger = logging.getLogger(__name__)

Distribute = Literal["auto", "none"]


def choose_devices(mode: Distribute) -> tuple[str, ...]:
    """The devices that share a training (``auto``: every one there is); empty: one device, as Keras chooses it.

    Raises:
        TrainingError: processes that train together have not as many each.
    """
    if mode == "none":
        return ()
    backend = keras.backend.backend()
    devices = _list_devices(backend)
    if len(devices) < 2:
        return ()
    names = ", ".join(devices)
    if backend != "jax":
        logger.warning(
            f"{len(devices)} devices ({names}), of which one is used: Keras distributes a training under JAX alone, "
            f"here it runs on {backend} (KERAS_BACKEND=jax takes them all)"
        )
        return ()
    if len(devices) % processes.count():
        raise TrainingError(
            f"{len(devices)} devices in {processes.count()} processes ({names}), expected as many in each: each takes "
            "an equal share of a batch"
        )
    logger.info(f"each batch is shared by {len(devices)} devices: {names}")
    return devices


def _list_devices(backend: str) -> tuple[str, ...]:
    """Names such as ``gpu:0``, of one kind only: accelerators where there are any."""
    if backend == "torch":  # Keras has no list of its own there; the module is loaded already
        return tuple(f"gpu:{index}" for index in range(sys.modules["torch"].cuda.device_count()))
    return tuple(keras.distribution.list_devices())


def check_batch(photos: int, devices: Sequence[str]) -> None:
    """
    Raises:
        TrainingError: the devices cannot share a batch of so many photos equally.
    """
    count = len(devices)
    if count and photos % count:
        lower, higher = photos // count * count, (photos // count + 1) * count
        fitting = f"{lower} or {higher}" if lower else str(higher)
        raise TrainingError(
            f"batches of {photos} photos cannot be shared by {count} devices ({', '.join(devices)}), expected a "
            f"multiple of {count}: give --batch-size {fitting}, or --distribute none"
        )


def divisible(photos: Labelled, devices: Sequence[str]) -> Labelled:
    """``photos`` without the last few, which the devices could not share equally in the last batch of a validation.

    Raises:
        TrainingError: fewer photos than devices.
    """
    remainder = len(photos) % len(devices) if devices else 0
    if not remainder:
        return photos
    kept = len(photos) - remainder
    if not kept:
        raise TrainingError(
            f"{len(photos)} photos choose the checkpoint, expected at least {len(devices)}, one for each of "
            f"{', '.join(devices)}: take more photos, or give --distribute none"
        )
    logger.warning(
        f"{remainder} of {len(photos)} photos that choose the checkpoint are left out: "
        f"{len(devices)} devices share them"
    )
    return replace(photos, names=photos.names[:kept], photos=photos.photos[:kept], masks=photos.masks[:kept])


@contextmanager
def data_parallel(devices: Sequence[str]) -> Iterator[None]:
    """Inside, models are built with a copy of each weight on every device, and ``fit`` splits batches among them; loss,
    statistics and gradients are those of the whole batch. Without devices nothing is changed.

    A model that was built outside must not be trained inside, nor the other way round.
    """
    if not devices:
        yield
        return
    before = keras.distribution.distribution()
    # Batches come as each process' share: Keras itself could share tf.data alone.
    parallel = keras.distribution.DataParallel(devices=list(devices), auto_shard_dataset=False)
    keras.distribution.set_distribution(parallel)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)
