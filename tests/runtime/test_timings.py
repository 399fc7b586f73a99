"""Percentiles of stages, measured from several threads."""

from __future__ import annotations

import math
import threading
import time

import pytest

from unet_runtime.core.timings import Timings


def test_percentiles_are_milliseconds_by_stage() -> None:
    timings = Timings()
    for seconds in (0.001, 0.002, 0.003, 0.004, 0.1):
        timings.add("inference", seconds)
    timings.add("decode", 0.5)
    assert timings.stages == ("inference", "decode")
    assert timings.percentiles("inference", 50, 100) == pytest.approx((3, 100))
    assert timings.percentiles("decode", 95) == pytest.approx((500,))


def test_a_block_is_timed_and_a_block_that_fails_is_not() -> None:
    timings = Timings()
    with timings.measure("wait"):
        time.sleep(0.02)
    with pytest.raises(KeyError), timings.measure("wait"):
        raise KeyError
    assert timings.count("wait") == 1
    assert timings.percentiles("wait", 50)[0] >= 20


def test_a_stage_that_never_ran_has_no_time() -> None:
    assert all(math.isnan(value) for value in Timings().percentiles("encode", 50, 95))


def test_only_the_newest_are_kept_whatever_the_number_of_threads() -> None:
    timings = Timings(kept=100)
    threads = [threading.Thread(target=lambda: [timings.add("a", 1) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(100):
        timings.add("a", 2)
    assert timings.count("a") == 100
    assert timings.percentiles("a", 0) == pytest.approx((2000,))
