"""What a training shows while it runs: speed, time left, a line for each epoch."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import sys
import threading
import unittest.mock
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tqdm import std

from tests.helpers.trained import TINY, unet_train
from unet_runtime.core.artifact import read_artifact
from unet_training.cli import command
from unet_training.fit import progress
from unet_training.fit.progress import Progress

COLUMNS = 80


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "perf_counter", made)
    monkeypatch.setattr(std, "time", made)  # tqdm's
    return made


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _epoch(shown: Progress, clock: Clock, epoch: int, steps: int, seconds: float, compiling: float = 0.0) -> None:
    """Training steps that take ``seconds`` each, as Keras reports them, and one step of a validation, a third of it."""
    shown.on_epoch_begin(epoch)
    clock.now += compiling
    for step in range(steps):
        clock.now += seconds
        shown.on_train_batch_end(step, {"loss": 0.5, "mean_iou": 0.25})
    clock.now += seconds / 3
    shown.on_test_batch_end(0, {"loss": 0.5, "mean_iou": 0.25})


METRICS = {"loss": 1.5, "cross_entropy": 1.25, "mean_iou": 0.5, "val_loss": 1.0, "val_mean_iou": 0.625}


class Best:
    """A checkpoint of a training whose third epoch is the best so far."""

    epoch = 3

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs


def _shown(terminal: Terminal | None, photos: int = 802, done: int = 0) -> Progress:
    """The progress of four epochs, of which some are done."""
    return Progress((32,) * 4, photos, 8, 8, Best(done), terminal)  # type: ignore[arg-type]


def test_a_log_gets_a_line_every_half_minute_and_one_for_each_epoch(clock: Clock, logged: list[str]) -> None:
    shown = _shown(None, done=2)
    shown.write_header()
    _epoch(shown, clock, 2, steps=100, seconds=0.8)  # 10 photos per second
    shown.on_epoch_end(2, METRICS)
    header, within, last = logged[:2], logged[2:-1], logged[-1]
    assert [line.split() for line in header] == [
        ["training", "cross-", "mean", "validation", "mean", "photos"],
        ["loss", "entropy", "IoU", "loss", "IoU", "seconds", "/s"],
    ]
    assert within == [
        # 62 steps, the last epoch's 100, and two validations of a third of a step: of 0.8 s.
        "epoch 3/4, step 38/100, 02:10 left, 10 photos/s, loss 0.500, mean IoU 0.250",
        "epoch 3/4, step 76/100, 01:39 left, 10 photos/s, loss 0.500, mean IoU 0.250",
    ]
    assert last.split() == ["epoch", "3/4", "1.5000", "1.2500", "0.5000", "1.0000", "0.6250", "80.3", "10", "best"]
    assert len(last) == len(header[0]) + len("  best")


def test_compiling_is_no_part_of_the_speed(clock: Clock) -> None:
    shown = _shown(None)
    assert shown.photos_per_second == 0
    _epoch(shown, clock, 0, steps=100, seconds=0.8, compiling=20)
    assert shown.photos_per_second == pytest.approx(10)


def test_a_single_step_is_all_there_is_to_go_by(clock: Clock) -> None:
    shown = _shown(None, photos=8)
    _epoch(shown, clock, 0, steps=1, seconds=0.8, compiling=3.2)
    assert shown.photos_per_second == pytest.approx(2)


def test_larger_photos_of_later_epochs_are_counted_by_their_pixels(clock: Clock, logged: list[str]) -> None:
    shown = Progress((32, 64), 800, 8, 8, Best(0), None)  # type: ignore[arg-type]
    _epoch(shown, clock, 0, steps=100, seconds=1.0)
    assert "step 60/100, 07:2" in logged[1]  # 40 s, and 400 s, and two validations


def test_a_terminal_is_redrawn_five_times_a_second_at_most(clock: Clock, logged: list[str]) -> None:
    terminal = Terminal()
    shown = _shown(terminal)
    _epoch(shown, clock, 0, steps=100, seconds=0.02)
    assert 8 <= terminal.getvalue().count("\r") <= 12  # in 2 s
    assert "50/100" in terminal.getvalue() or "51/100" in terminal.getvalue()
    assert "left, 400 photos/s" in terminal.getvalue()
    shown.on_epoch_end(0, METRICS)
    shown.close()
    assert len(logged) == 1
    assert "best" not in logged[0]


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


@pytest.mark.usefixtures("small_network", "eager", "no_report")
def test_on_a_terminal_one_line_is_redrawn_and_each_epoch_leaves_one(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_TERMINAL_INTERVAL", 0.0)
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


@pytest.mark.usefixtures("small_network", "eager")
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


@pytest.mark.usefixtures("small_network", "eager", "no_report")
def test_elsewhere_nothing_is_redrawn(pictures: Path, tmp_path: Path) -> None:
    arguments = ("--data", pictures, "--output", tmp_path, "--epochs", 2, *TINY)
    ended = unet_train(*arguments, "--sizes", "16,32")
    assert ended.code == 0, ended.err
    assert "\r" not in ended.err
    rows = [line.split() for line in ended.err.splitlines() if line.startswith("epoch ") and ":" not in line]
    assert [row[:7] for row in rows] == _rows(tmp_path, 2)
    assert "epochs 2 to 2: photos of 32x32" in ended.err
