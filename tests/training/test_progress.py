"""What a training shows while it runs: speed, time left, a line for each epoch."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import sys
import threading
import time
import unittest.mock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.training.conftest import TINY, unet_train
from unet_runtime.core.artifact import read_artifact
from unet_training import progress
from unet_training.cli import command
from unet_training.pace import Pace
from unet_training.progress import Progress

COLUMNS = 80


class Moment(NamedTuple):
    epoch: int
    at: float
    left: float | None
    """As estimated."""
    speed: float
    seen_validation: bool


def _simulated(sizes: tuple[int, ...], first_epoch: int = 0) -> tuple[list[Moment], float]:
    """Epochs of 10 steps of 8 photos and 5 validation steps, where a pixel costs what it costs, a new size 5 s, and
    saving 0.5 s; each step's moment, and the end."""
    pace, now, before, moments = Pace(sizes, 80, 40), 100.0, 0, []
    cost, validation_cost = 1e-5, 0.5e-5  # seconds a pixel
    for epoch in range(first_epoch, len(sizes)):
        builds = sizes[epoch] != before
        pace.begin_epoch(epoch, now, builds=builds)
        for step in range(1, 11):
            now += 8 * sizes[epoch] ** 2 * cost + 5 * (step == 1 and builds)
            pace.trained(8 * step, now)
            moments.append(Moment(epoch, now, pace.seconds_left(), pace.photos_per_second, epoch > first_epoch))
        pace.begin_validation(now)
        for step in range(1, 6):
            now += 8 * sizes[-1] ** 2 * validation_cost + 2 * (step == 1 and not before)
            pace.validated(8 * step, now)
            moments.append(Moment(epoch, now, pace.seconds_left(), pace.photos_per_second, step > 1 or before > 0))
        now += 0.5
        pace.end_epoch(now)
        before = sizes[epoch]
    return moments, now


@pytest.mark.parametrize("first_epoch", [0, 3])
@pytest.mark.parametrize("sizes", [(64,) * 6, (32, 32, 48, 48, 64, 64)])
def test_the_time_left_comes_true(sizes: tuple[int, ...], first_epoch: int) -> None:
    moments, end = _simulated(sizes, first_epoch)
    assert moments[0].left is None  # one step, which compiled, says nothing
    for moment in moments[1:]:
        assert moment.left is not None
        truth = end - moment.at
        # A validation that was not seen is guessed at, and so is what follows the first.
        tolerance = 1e-6 if moment.epoch > first_epoch else 0.35 * truth
        assert moment.left == pytest.approx(truth, abs=tolerance), moment


def test_photos_a_second_leave_out_compiling_and_validation() -> None:
    for moment in _simulated((64,) * 3)[0][1:]:
        assert moment.speed == pytest.approx(1 / (64 * 64 * 1e-5))


def test_a_single_step_is_all_there_is_to_go_by() -> None:
    pace = Pace((32, 32), 8, 8)
    pace.begin_epoch(0, 10.0, builds=True)
    assert pace.photos_per_second == 0
    pace.trained(8, 14.0)
    assert (pace.photos_per_second, pace.seconds_left()) == (2.0, None)


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "perf_counter", made)
    return made


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _epoch(shown: Progress, clock: Clock, epoch: int, steps: int, seconds: float) -> None:
    """Of steps that take ``seconds`` each, as Keras tells of them; no validation."""
    shown.on_epoch_begin(epoch)
    for step in range(steps):
        clock.now += seconds
        shown.on_train_batch_end(step, {"loss": 0.5, "mean_iou": 0.25})
    shown.on_test_begin()
    shown.on_test_batch_end(0, {"loss": 0.5, "mean_iou": 0.25})


FIGURES = {"loss": 1.5, "cross_entropy": 1.25, "mean_iou": 0.5, "val_loss": 1.0, "val_mean_iou": 0.625}


class Best:
    epoch = 3


def _shown(say: Callable[[str], None], terminal: Terminal | None, photos: int = 802) -> Progress:
    """Of four epochs."""
    return Progress((32,) * 4, photos, 8, 8, Best(), say, terminal)  # type: ignore[arg-type]


def test_a_log_gets_a_line_every_half_minute_and_one_for_each_epoch(clock: Clock) -> None:
    lines: list[str] = []
    shown = _shown(lines.append, None)
    shown.on_train_begin()
    _epoch(shown, clock, 2, steps=100, seconds=0.8)  # 10 photos a second
    shown.on_epoch_end(2, FIGURES)
    header, within, last = lines[:2], lines[2:-1], lines[-1]
    assert [line.split() for line in header] == [
        ["training", "cross-", "mean", "validation", "mean", "photos"],
        ["loss", "entropy", "IoU", "loss", "IoU", "seconds", "/s"],
    ]
    assert within == [
        # 62 steps and the last epoch's 100 of 0.8 s; a validation photo as a third of a training photo.
        "epoch 3/4, step 38/100, 10 photos/s, 02:10 left, loss 0.500, mean IoU 0.250",
        "epoch 3/4, step 76/100, 10 photos/s, 01:39 left, loss 0.500, mean IoU 0.250",
    ]
    assert last.split() == ["epoch", "3/4", "1.5000", "1.2500", "0.5000", "1.0000", "0.6250", "80.0", "10", "best"]
    assert len(last) == len(header[0]) + len("  best")


def test_a_terminal_is_redrawn_five_times_a_second_at_most(clock: Clock) -> None:
    lines: list[str] = []
    terminal = Terminal()
    with _shown(lines.append, terminal) as shown:
        shown.on_train_begin()
        _epoch(shown, clock, 0, steps=100, seconds=0.02)
        drawn = terminal.getvalue().count("\r")
        assert 8 <= drawn <= 12  # in 2 s
        assert "50/100" in terminal.getvalue() or "51/100" in terminal.getvalue()
        assert "400 photos/s, 00:" in terminal.getvalue()
        shown.on_epoch_end(0, FIGURES)
    assert len(lines) == 3
    assert "best" not in lines[-1]


def test_a_step_costs_next_to_nothing() -> None:
    terminal = Terminal()
    with _shown(lambda line: None, terminal, photos=8 * 20_000) as shown:
        shown.on_train_begin()
        shown.on_epoch_begin(0)
        began = time.process_time()
        for step in range(20_000):
            shown.on_train_batch_end(step, {"loss": 0.5, "mean_iou": 0.25})
        each = (time.process_time() - began) / 20_000
    assert each < 1e-4  # seconds; about 2e-6 on a machine that is not busy


def test_a_new_size_is_told(clock: Clock) -> None:
    lines: list[str] = []
    shown = Progress((32, 32, 48), 8, 8, 8, Best(), lines.append)  # type: ignore[arg-type]
    for epochs in ((0, 1), (2,)):
        shown.on_train_begin()
        for epoch in epochs:
            _epoch(shown, clock, epoch, 1, 1.0)
            shown.on_epoch_end(epoch, FIGURES)
    assert [line for line in lines if "photos of" in line] == [
        "epoch 1/3: photos of 32x32",
        "epoch 3/3: photos of 48x48",
    ]
    assert sum("entropy" in line for line in lines) == 1


def _screen(text: str) -> list[str]:
    """The lines that a terminal shows: a carriage return begins a line again, and what is written covers."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        cells: list[str] = []
        for part in line.split("\r"):
            cells[: len(part)] = part
        lines.append("".join(cells).rstrip())
    return lines


@contextlib.contextmanager
def _pseudo_terminal() -> Iterator[tuple[io.TextIOBase, Callable[[], str]]]:
    """A stream that is a terminal of 80 columns, and what was written to it."""
    import fcntl
    import struct
    import termios

    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    read: list[bytes] = []

    def drain() -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(master, 65536):
                read.append(data)

    thread = threading.Thread(target=drain)
    thread.start()
    stream = open(slave, "w", encoding="utf-8")  # noqa: PTH123, SIM115  a descriptor

    def written() -> str:
        stream.close()
        thread.join()
        return b"".join(read).decode()

    try:
        yield stream, written
    finally:
        stream.close()
        thread.join()
        os.close(master)


def _on_a_terminal(*arguments: object) -> tuple[int, str]:
    """``unet-train``'s exit code and what it wrote, output and errors, on a terminal."""
    with _pseudo_terminal() as (stream, written):
        with (
            contextlib.redirect_stdout(stream),  # type: ignore[type-var]
            contextlib.redirect_stderr(stream),  # type: ignore[type-var]
            unittest.mock.patch.object(sys, "argv", ["unet-train", *map(str, arguments)]),
            pytest.raises(SystemExit) as ended,
        ):
            command.main()
        return int(ended.value.code or 0), written()


def _rows(output: Path, epochs: int) -> list[list[str]]:
    """What the epochs' lines begin with, of the history that was written."""
    history = json.loads((output / "history.json").read_text())
    names = ("loss", "cross_entropy", "mean_iou", "val_loss", "val_mean_iou")
    figures = zip(*(history[name] for name in names), strict=True)
    return [["epoch", f"{i}/{epochs}", *(f"{v:.4f}" for v in row)] for i, row in enumerate(figures, 1)]


@pytest.mark.usefixtures("small_network")
def test_on_a_terminal_one_line_is_redrawn_and_each_epoch_leaves_one(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_REDRAWN_EVERY", 0.0)
    code, text = _on_a_terminal("--data", pictures, "--output", tmp_path, "--epochs", 3, *TINY)
    assert code == 0, text
    assert "\repoch 2/3" in text
    assert "4/4" in text
    assert "photos/s" in text
    assert "validation" in text
    screen = _screen(text)
    rows = [line.split() for line in screen if line.startswith("epoch ")]
    assert [row[:7] for row in rows] == _rows(tmp_path, 3)
    best = read_artifact(tmp_path / "model.keras").spec.provenance.metrics["epoch"]
    assert "best" in rows[best - 1]
    assert all(len(part) <= COLUMNS for line in text.split("\n") for part in line.split("\r") if "epoch " in part)


@pytest.mark.usefixtures("small_network")
def test_an_error_begins_a_line_of_its_own(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = itertools.count()

    def fail(self: Progress, batch: int, logs: object = None) -> None:
        if next(seen) == 2:
            raise MemoryError

    monkeypatch.setattr(Progress, "on_train_batch_begin", fail)
    code, text = _on_a_terminal("--data", pictures, "--output", tmp_path, "--epochs", 3, *TINY)
    assert code == 3
    assert "1/4" in text or "0/4" in text
    *_, last, nothing = _screen(text)
    assert last.startswith("error: no memory left for batches of 4 photos")
    assert nothing == ""


@pytest.mark.usefixtures("small_network")
def test_elsewhere_nothing_is_redrawn(pictures: Path, tmp_path: Path) -> None:
    arguments = ("--data", pictures, "--output", tmp_path, "--epochs", 2, *TINY)
    ended = unet_train(*arguments, "--sizes", "16,32")
    assert ended.code == 0, ended.err
    assert "\r" not in ended.out
    rows = [line.split() for line in ended.out.splitlines() if line.startswith("epoch ") and ":" not in line]
    assert [row[:7] for row in rows] == _rows(tmp_path, 2)
    assert "epoch 2/2: photos of 32x32" in ended.out
