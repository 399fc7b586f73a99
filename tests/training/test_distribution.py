"""Which devices share a training, and what is refused. (That they train what one does: test_backends.py.)"""

from __future__ import annotations

from contextlib import suppress

import keras
import numpy as np
import pytest

from unet_training.data.pairs import Labelled
from unet_training.errors import TrainingError
from unet_training.fit import distribution

TWO = ("gpu:0", "gpu:1")


def _photos(count: int) -> Labelled:
    photos = np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1) * np.ones((1, 4, 4, 3), np.uint8)
    return Labelled([f"photo_{index}" for index in range(count)], photos, photos[..., 0], ["one was unreadable"])


@pytest.mark.parametrize(("mode", "listed"), [("none", TWO), ("auto", ("cpu:0",)), ("auto", ())])
def test_one_device_is_not_worth_a_word(
    mode: str, listed: tuple[str, ...], logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: list(listed))
    assert distribution.choose_devices(mode) == ()  # type: ignore[arg-type]
    assert logged == []


@pytest.mark.parametrize(
    ("backend", "chosen", "line"),
    [
        ("jax", TWO, "each batch is shared by 2 devices: gpu:0, gpu:1"),
        (
            "tensorflow",
            (),
            "2 devices (gpu:0, gpu:1), of which one is used: Keras distributes a training under JAX alone, "
            "here it runs on tensorflow (KERAS_BACKEND=jax takes them all)",
        ),
    ],
)
def test_several_devices_are_named(
    backend: str, chosen: tuple[str, ...], line: str, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: list(TWO))
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    assert distribution.choose_devices("auto") == chosen
    assert logged == [line]


@pytest.mark.parametrize(("photos", "fitting"), [(9, "8 or 10"), (1, "2")])
def test_a_batch_that_cannot_be_shared_is_refused(photos: int, fitting: str) -> None:
    expected = rf"^batches of {photos} photos .* 2 devices \(gpu:0, gpu:1\), expected a multiple of 2: .* {fitting}, or"
    with pytest.raises(TrainingError, match=expected):
        distribution.check_batch(photos, TWO)


@pytest.mark.parametrize(("photos", "devices"), [(8, TWO), (9, ()), (9, ("gpu:0",))])
def test_other_batches_pass(photos: int, devices: tuple[str, ...]) -> None:
    distribution.check_batch(photos, devices)


def test_what_cannot_be_shared_is_left_out_and_logged(logged: list[str]) -> None:
    kept = distribution.divisible(_photos(7), TWO)
    assert (len(kept), len(kept.photos), len(kept.masks)) == (6, 6, 6)
    assert kept.photos[-1].max() == 5
    assert kept.problems == ["one was unreadable"]
    assert logged == ["1 of 7 photos that choose the checkpoint are left out: 2 devices share them"]


def test_what_can_be_shared_stays(logged: list[str]) -> None:
    for photos, devices in ((_photos(6), TWO), (_photos(7), ())):
        assert distribution.divisible(photos, devices) is photos
    assert logged == []


def test_fewer_photos_than_devices_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"^1 photos choose the checkpoint, expected at least 2, .*gpu:0, gpu:1: "):
        distribution.divisible(_photos(1), TWO)


def test_the_distribution_ends_with_its_block() -> None:
    with suppress(ZeroDivisionError), distribution.data_parallel(("cpu:0",)):
        assert isinstance(keras.distribution.distribution(), keras.distribution.DataParallel)
        _ = 1 / 0
    assert keras.distribution.distribution() is None
