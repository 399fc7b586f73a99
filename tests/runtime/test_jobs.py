"""Many at a time: order, bounds, errors, and an end that leaves nobody behind."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from unet_runtime import ImageError
from unet_runtime.io.jobs import Checkpoint, PixelBudget, Pool, StoppedError, map_in_order, plan


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_outcomes_are_in_order_and_work_overlaps() -> None:
    """The first two meet at a barrier: they are in work together. The first is the slowest."""
    both = threading.Barrier(2, timeout=120)

    def work(item: int, checkpoint: Checkpoint) -> int:
        if item < 2:
            both.wait()
        if item == 0:
            time.sleep(0.1)
        return item * item

    outcomes = list(map_in_order(work, range(20), workers=2))
    assert [outcome.item for outcome in outcomes] == list(range(20))
    assert [outcome.result for outcome in outcomes] == [item * item for item in range(20)]


def test_an_error_stays_with_its_item() -> None:
    def work(item: int, checkpoint: Checkpoint) -> int:
        if item == 3:
            raise ImageError("three")
        return item

    outcomes = list(map_in_order(work, range(6), workers=3))
    assert [outcome.result for outcome in outcomes] == [0, 1, 2, None, 4, 5]
    assert [str(outcome.error) for outcome in outcomes if outcome.error] == ["three"]


def test_any_other_error_ends_the_run() -> None:
    begun = []

    def work(item: int, checkpoint: Checkpoint) -> None:
        begun.append(item)
        if item == 3:
            raise ZeroDivisionError

    seen = []
    with pytest.raises(ZeroDivisionError):
        seen.extend(outcome.item for outcome in map_in_order(work, itertools.count(), workers=2, ahead=4))
    assert seen == [0, 1, 2]
    assert max(begun) < 12


def test_items_are_taken_no_faster_than_needed() -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in itertools.count():
            taken.append(item)
            yield item

    with closing(map_in_order(lambda item, checkpoint: item, items(), workers=2, ahead=5)) as outcomes:
        for outcome in outcomes:
            assert len(taken) <= outcome.item + 5
            if outcome.item == 50:
                break


def test_closing_stops_work_at_its_next_checkpoint() -> None:
    stopped = []
    begun = threading.Event()

    def work(item: int, checkpoint: Checkpoint) -> None:
        if item == 0:
            return
        begun.set()
        try:
            while True:
                time.sleep(0.001)
                checkpoint()
        except StoppedError:
            stopped.append(item)
            raise

    with closing(map_in_order(work, range(1000), workers=3)) as outcomes:
        next(outcomes)
        assert begun.wait(60)
    assert 1 <= len(stopped) <= 3  # those in work; those that waited were never begun


def test_a_consumer_that_fails_ends_it_too() -> None:
    def consume() -> None:
        with closing(map_in_order(lambda item, checkpoint: item, itertools.count(), workers=2)) as outcomes:
            for outcome in outcomes:
                if outcome.item == 5:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()


def test_nothing_to_do() -> None:
    assert list(map_in_order(lambda item, checkpoint: item, [], workers=2)) == []


def test_a_pool_lends_each_thing_to_one_worker() -> None:
    pool = Pool(["a", "b"])
    lent: list[str] = []
    most = []

    def work(item: int, checkpoint: Checkpoint) -> None:
        with pool.borrow() as thing:
            assert thing not in lent
            lent.append(thing)
            most.append(len(lent))
            time.sleep(0.002)
            lent.remove(thing)
        if item % 7 == 0:
            raise ImageError("after giving it back")

    assert len(list(map_in_order(work, range(40), workers=4))) == 40
    assert max(most) == 2


def test_a_budget_bounds_the_pixels_in_work() -> None:
    budget = PixelBudget(100)
    in_work: list[int] = []
    seen = []
    lock = threading.Lock()

    def work(pixels: int, checkpoint: Checkpoint) -> None:
        with budget.reserve(pixels):
            with lock:
                in_work.append(pixels)
                seen.append(list(in_work))
            time.sleep(0.002)
            with lock:
                in_work.remove(pixels)

    list(map_in_order(work, [30, 30, 30, 30, 500, 30, 100, 1] * 6, workers=4))
    assert max(len(held) for held in seen) >= 2
    for held in seen:
        assert sum(held) <= 100 or held == [500]


def test_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """(workers, runs at a time, threads of each)."""
    monkeypatch.setattr("unet_runtime.core.cores.default_threads", lambda: 4)
    assert plan(1, None) == (1, 1, None)
    assert plan(1, 3) == (1, 1, 3)
    assert plan(0, None) == (1, 1, None)
    assert plan(1000, None) == (5, 4, 1)
    assert plan(1000, 1) == (2, 1, 1)
    assert plan(2, 4) == (2, 2, 2)
    assert plan(1000, 32) == (9, 8, 4)
