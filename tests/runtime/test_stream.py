"""A stream is lazy, in order, reads ahead no more than it may, and leaves no thread behind."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.live import wait_for
from unet_runtime import BackendError, ImageError, Segmenter
from unet_runtime.core.stream import Stream

SHAPES = [(10 + index, 20) for index in range(8)]


def frames() -> list[np.ndarray]:
    return [np.full((*shape, 3), 30 * index, np.uint8) for index, shape in enumerate(SHAPES)]


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "unet-edge-stream"]


def test_results_come_in_order(colour_model: Path) -> None:
    segmenter = Segmenter(colour_model)
    results = list(segmenter.stream(frames()))
    assert [result.mask.shape for result in results] == SHAPES
    for result, frame in zip(results, frames(), strict=True):
        assert np.array_equal(result.probabilities, segmenter(frame).probabilities)
    assert threads() == []


def test_any_kind_of_photo_streams(colour_model: Path, sample_photo: Path, stripes: np.ndarray) -> None:
    photos = [sample_photo, str(sample_photo), Image.fromarray(stripes), stripes]
    sizes = [result.photo.size for result in Segmenter(colour_model).stream(photos)]
    assert sizes == [(451, 300), (451, 300), (60, 40), (60, 40)]


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_no_more_than_ahead_is_taken_before_its_turn(ahead: int, colour_model: Path) -> None:
    taken: list[int] = []

    def source() -> Iterator[np.ndarray]:
        for index, frame in enumerate(frames()):
            taken.append(index)
            yield frame

    stream = Segmenter(colour_model).stream(source(), ahead=ahead)
    time.sleep(0.05)
    assert taken == []  # nothing before the first result is asked for
    for done in range(1, len(SHAPES) + 1):
        next(stream)
        allowed = min(len(SHAPES), done + ahead)
        wait_for(lambda allowed=allowed: len(taken) == allowed)  # type: ignore[misc]  # it does read ahead ...
        time.sleep(0.02)
        assert len(taken) == allowed  # ... and no farther
    with pytest.raises(StopIteration):
        next(stream)


def test_photos_are_freed_as_the_stream_goes_on(colour_model: Path) -> None:
    """Alive at a time: two ahead, the one at work, and the caller's."""
    alive: set[int] = set()
    most = 0

    def source() -> Iterator[Image.Image]:
        nonlocal most
        for index in range(40):
            image = Image.new("RGB", (30, 20))
            alive.add(index)
            weakref.finalize(image, alive.discard, index)
            most = max(most, len(alive))
            yield image
            del image

    for _ in Segmenter(colour_model).stream(source(), ahead=2):
        time.sleep(0.002)
    assert 2 <= most <= 4


def test_a_bad_photo_raises_in_its_turn_and_the_stream_goes_on(colour_model: Path) -> None:
    first, second, third = frames()[:3]
    results = Segmenter(colour_model).stream([first, "absent.jpg", second, "absent too.jpg", third])
    seen: list[object] = []
    while True:
        try:
            for result in results:
                seen.append(result.mask.shape)
        except ImageError as error:
            seen.append(str(error).partition(":")[0])
        else:
            break
    assert seen == [SHAPES[0], "absent.jpg", SHAPES[1], "absent too.jpg", SHAPES[2]]
    assert threads() == []


def test_an_error_of_the_source_comes_in_its_turn_and_ends_the_stream(colour_model: Path) -> None:
    def source() -> Iterator[np.ndarray]:
        yield from frames()[:2]
        raise OSError("cable")

    results = Segmenter(colour_model).stream(source())
    assert [next(results).mask.shape, next(results).mask.shape] == SHAPES[:2]
    with pytest.raises(OSError, match="cable"):
        next(results)
    assert list(results) == []
    assert threads() == []


def test_closed_early_the_thread_ends_and_the_source_is_closed(colour_model: Path) -> None:
    ended: list[str] = []

    def source() -> Iterator[np.ndarray]:
        try:
            while True:
                yield frames()[0]
        finally:
            ended.append("source")

    with Segmenter(colour_model).stream(source()) as results:
        next(results)
        assert len(threads()) == 1
    assert (threads(), ended) == ([], ["source"])
    assert list(results) == []
    results.close()  # twice is once


def test_a_stream_that_is_dropped_ends_its_thread(colour_model: Path) -> None:
    segmenter = Segmenter(colour_model)
    for result in segmenter.stream(frames() * 1000):
        assert result.mask.shape == SHAPES[0]
        break
    gc.collect()
    wait_for(lambda: threads() == [])


def test_an_engine_that_fails_raises_in_turn(colour_model: Path) -> None:
    segmenter = Segmenter(colour_model)
    results = segmenter.stream(frames())
    next(results)
    segmenter.close()
    with pytest.raises(BackendError, match="closed"):
        next(results)
    results.close()
    assert threads() == []


def test_a_stream_that_was_never_started_leaves_nothing() -> None:
    stream: Stream[int, int, int] = Stream([1], lambda x: x, lambda x: x, 1)
    stream.close()
    assert list(stream) == []
    with pytest.raises(ValueError, match="ahead 0, expected 1 photo or more"):
        Stream([1], lambda x: x, lambda x: x, 0)


def test_the_next_photo_is_prepared_while_this_one_is_at_work() -> None:
    begun = [threading.Event() for _ in range(3)]

    def prepare(index: int) -> int:
        begun[index].set()
        return index

    def finish(index: int) -> bool:
        return begun[index + 1].wait(60) if index < 2 else True

    assert list(Stream(range(3), prepare, finish, 1)) == [True, True, True]
