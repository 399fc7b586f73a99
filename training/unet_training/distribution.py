"""Data parallel training: each device takes an equal share of every batch.

By Keras' own distribution API, which in Keras 3.15 does something under JAX alone: under TensorFlow it accepts a
distribution and trains on one device all the same, under torch it is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import keras

from unet_training.data.pairs import Labelled
from unet_training.errors import TrainingError


def choose_devices(mode: str, say: Callable[[str], None]) -> tuple[str, ...]:
    """The devices that share a training; empty: one device, as Keras chooses it.

    Args:
        mode: ``auto``: every device there is; ``none``: one.
        say: is told of several devices, used or not.
    """
    if mode == "none":
        return ()
    backend = keras.backend.backend()
    devices = _listed(backend)
    if len(devices) < 2:
        return ()
    names = ", ".join(devices)
    if backend != "jax":
        say(
            f"{len(devices)} devices ({names}), of which one is used: Keras distributes a training under JAX alone, "
            f"here it runs on {backend} (KERAS_BACKEND=jax takes them all)"
        )
        return ()
    say(f"each batch is shared by {len(devices)} devices: {names}")
    return devices


def _listed(backend: str) -> tuple[str, ...]:
    """Names such as ``gpu:0``, of one kind only: accelerators where there are any."""
    if backend == "torch":  # Keras has no list of its own there; the module is loaded already
        return tuple(f"gpu:{index}" for index in range(sys.modules["torch"].cuda.device_count()))
    return tuple(keras.distribution.list_devices())


def check_batch(photos: int, devices: Sequence[str]) -> None:
    """Refuse batches that the devices cannot share equally.

    Args:
        photos: of every training batch.
        devices: as ``choose_devices`` gives them.

    Raises:
        TrainingError: there is a rest.
    """
    count = len(devices)
    if count and photos % count:
        lower, higher = photos // count * count, (photos // count + 1) * count
        fitting = f"{lower} or {higher}" if lower else str(higher)
        raise TrainingError(
            f"batches of {photos} photos cannot be shared by {count} devices ({', '.join(devices)}), expected a "
            f"multiple of {count}: give --batch-size {fitting}, or --distribute none"
        )


def shareable(photos: Labelled, devices: Sequence[str], say: Callable[[str], None]) -> Labelled:
    """``photos`` without the last few that the devices could not share equally in a batch of its own.

    For the validation while training: its last batch holds what is left over. The batch size divides already.

    Raises:
        TrainingError: fewer photos than devices.
    """
    rest = len(photos) % len(devices) if devices else 0
    if not rest:
        return photos
    kept = len(photos) - rest
    if not kept:
        raise TrainingError(
            f"{len(photos)} photos choose the checkpoint, expected at least {len(devices)}, one for each of "
            f"{', '.join(devices)}: take more photos, or give --distribute none"
        )
    say(f"{rest} of {len(photos)} photos that choose the checkpoint are left out: {len(devices)} devices share them")
    return replace(photos, names=photos.names[:kept], photos=photos.photos[:kept], masks=photos.masks[:kept])


@contextmanager
def shared_by(devices: Sequence[str]) -> Iterator[None]:
    """Inside, models are built with a copy of each weight on every device, and ``fit`` splits batches among them.

    The loss, BatchNormalization's statistics and the gradients are those of the whole batch, as on one device. A
    model that was built outside must not be trained inside, nor the other way round.

    Args:
        devices: as ``choose_devices`` gives them; empty: nothing is changed.
    """
    if not devices:
        yield
        return
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=list(devices)))
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)
