"""A list of photos on Ray's actors, against unet-run alone: the same photos, CPUs and table of masks.

    PETS_DIR=... python benchmarks/ray_folder.py [--photos 5000] [--rounds 2] [--model FILE]

Ray runs on this machine alone, started by the command. Both are whole processes, and take turns. Two comparisons of
each, of the whole process, and from its first result to its last, which leaves out what a cluster that is there already
has behind it: starting Ray, its workers, and a model in each. Time, and processor time of all processes together, which
other work on the machine changes little (Linux: it is read from /proc).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from unet_runtime.core.datasets import evenly

POLL_SECONDS = 0.25


class Moment(NamedTuple):
    """When, by the clock and by the processor time of all processes, in seconds."""

    clock: float
    processor: float

    def since(self, start: Moment) -> Moment:
        return Moment(self.clock - start.clock, self.processor - start.processor)


class Times(NamedTuple):
    """Time of one run."""

    whole: Moment
    between: Moment
    """From the first result to the last."""


class Meter(threading.Thread):
    """Sums the processor time of a process and its descendants, those that have ended included."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._seconds: dict[int, float] = {}

    def run(self) -> None:
        while True:
            self.look()
            time.sleep(POLL_SECONDS)

    def look(self) -> Moment:
        for pid in [self._pid, *descendants(self._pid)]:
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                self._seconds[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return Moment(time.perf_counter(), sum(self._seconds.values()))


def descendants(pid: int) -> list[int]:
    children: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (task / "children").read_text().split())
    found = list(children)
    for child in children:
        found += descendants(child)
    return found


def run(manifest: Path, count: int, *more: str) -> Times:
    out = manifest.parent / "out"
    shutil.rmtree(out, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("unet-run")), "--manifest", str(manifest), "--results", "parquet"]
    start = Moment(time.perf_counter(), 0)
    with subprocess.Popen([*command, "-o", str(out), *more], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        meter = Meter(process.pid)
        meter.start()
        first = last = start
        lines = 0
        for _ in process.stdout:
            lines += 1
            if lines in (1, count):
                first, last = (meter.look(), last) if lines == 1 else (first, meter.look())
    if process.returncode or lines != count:
        raise SystemExit(f"{more}: exit code {process.returncode}, {lines} of {count} photos")
    return Times(meter.look().since(start), last.since(first))


def part_of(rounds: list[Times], part: int, kind: int) -> list[float]:
    """One of the measurements of each round."""
    return [times[part][kind] for times in rounds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", type=Path, help="default: the bundled one")
    options = parser.parse_args()
    photos = evenly(sorted((Path(os.environ["PETS_DIR"]) / "images").glob("*.jpg")), options.photos)
    more = ["--model", str(options.model)] if options.model else []
    taken: dict[str, list[Times]] = {"local": [], "ray": []}
    with tempfile.TemporaryDirectory() as place:
        manifest = Path(place) / "photos.txt"
        manifest.write_text("".join(f"{path}\n" for path in photos))
        for _ in range(options.rounds):
            for engine, times in taken.items():
                times.append(run(manifest, len(photos), "--engine", engine, *more))
                print(engine, times[-1], flush=True)
    for part, name in enumerate(("whole process", "first to last result")):
        for kind, unit in enumerate(("seconds", "processor seconds")):
            local, ray = (part_of(rounds, part, kind) for rounds in taken.values())
            ratio = statistics.median(one / other for one, other in zip(local, ray, strict=True))
            medians = [statistics.median(values) for values in (local, ray)]
            print(f"{name}, {unit}: unet-run {medians[0]:.1f}, with Ray {medians[1]:.1f}: {ratio:.0%} of the rate")


if __name__ == "__main__":
    main()
