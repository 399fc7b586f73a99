"""Photos of a list on a Ray cluster: the rows and bytes of one process, whoever is killed meanwhile.

A cluster takes half a minute to start on a busy machine: SLOW_TESTS=1 runs what needs one.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks.ray_folder import descendants
from tests.helpers.commands import content
from tests.helpers.listed import write_list
from tests.helpers.paths import REPOSITORY
from unet_runtime import BackendError, ImageError, MissingDependencyError
from unet_runtime.cli.run import command
from unet_runtime.io.batches import SegmentPhotos
from unet_runtime.io.cluster import GROUP, LARGEST_GROUP, Machine, Share, _Actor, _Feed, _Groups, plan_actors
from unet_runtime.io.kind import Checkpoint

SLOW = pytest.mark.skipif(not os.environ.get("SLOW_TESTS"), reason="minutes: set SLOW_TESTS=1")
PHOTOS = 600
REPETITIONS = 20


# --- without a cluster ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machines", "free", "asked", "share", "expected"),
    [
        ([(2, 0)], (2, 0), None, Share(), 2),
        ([(4, 0), (4, 0)], (8, 0), None, Share(3), 2),  # one on each: 2 CPUs of both together are no actor's
        ([(4, 0), (4, 0)], (5, 0), None, Share(2), 2),  # others use 3
        ([(4, 0)], (4, 0), 3, Share(), 3),
        ([(16, 2)], (16, 2), None, Share(1, 0.25), 8),
        ([(16, 2)], (16, 2), None, Share(1, 0.1), 16),
        ([(16, 2)], (16, 2), None, Share(1, 0.3), 6),
        ([(16, 2)], (16, 2), None, Share(1, 2), 1),
    ],
)
def test_actors_that_fit(
    machines: list[tuple[int, int]], free: tuple[int, int], asked: int | None, share: Share, expected: int
) -> None:
    assert plan_actors([Machine(*machine) for machine in machines], Machine(*free), asked, share) == expected


@pytest.mark.parametrize(
    ("machines", "free", "asked", "share", "message"),
    [
        ([(2, 0)], (2, 0), 3, Share(), "3 actors of 1 CPU each, and the cluster has room for 2"),
        ([(2, 0), (2, 0)], (4, 0), None, Share(4), r"room for 0 \(2 machines, the largest of 2 CPU"),
        ([(2, 0)], (0, 0), None, Share(), "0 CPU and 0 GPU are free"),
        ([(2, 0)], (2, 0), None, Share(1, 0.5), "of 1 CPU and 0.5 GPU each, and the cluster has room for 0"),
        ([], (0, 0), None, Share(), "0 machines"),
    ],
)
def test_a_plan_that_would_wait_for_ever_is_refused(
    machines: list[tuple[int, int]], free: tuple[int, int], asked: int | None, share: Share, message: str
) -> None:
    with pytest.raises(BackendError, match=message):
        plan_actors([Machine(*machine) for machine in machines], Machine(*free), asked, share)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photo.jpg", "--engine", "ray"], "--engine without --manifest"),
        (["--manifest", "m.txt", "--address", "auto"], "--address without --engine ray"),
        (["photo.jpg", "--actors", "2"], "--actors without --engine ray"),
        (["--manifest", "m.txt", "--engine", "local", "--gpu-share", "0.5"], "--gpu-share without --engine ray"),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_the_package_is_named(colour_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "m.txt").write_text("a.jpg\n")
    arguments = ["--manifest", str(tmp_path / "m.txt"), "--engine", "ray", "--model", str(colour_model)]
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert isinstance(result.exception, MissingDependencyError)
    assert "--engine ray needs Ray, which is not installed: pip install" in str(result.exception)


def test_groups_of_small_answers_grow() -> None:
    groups = _Groups(range(200))
    assert next(groups) == list(range(GROUP))
    groups.resize(GROUP, 1000 * GROUP)
    assert len(next(groups)) == LARGEST_GROUP
    groups.resize(LARGEST_GROUP, LARGEST_GROUP << 20)  # a megabyte each
    assert list(map(len, groups)) == [GROUP] * 7 + [200 - LARGEST_GROUP - 8 * GROUP]
    groups.resize(0, 10)  # one that a reading task found answered


def test_the_feed_waits_and_forgets() -> None:
    """A reading task that begins anew gets nothing for the groups that have been answered."""

    async def scene() -> None:
        feed = _Feed()
        first = asyncio.ensure_future(feed.get(0))
        await asyncio.sleep(0)
        assert not first.done()
        await feed.put(0, b"a", 0)
        assert await first == b"a"
        await feed.put(1, b"b", 1)
        assert pickle.loads(await feed.get(0) or b"") == []
        assert await feed.get(1) == b"b"
        assert len(feed._groups) == 1
        waits = asyncio.ensure_future(feed.get(2))
        await asyncio.sleep(0)
        await feed.end()
        assert await waits is None
        await feed.abort()
        with pytest.raises(RuntimeError, match="aborted"):
            await feed.get(3)

    asyncio.run(scene())


def test_an_actor_returns_errors_of_items_and_its_own() -> None:
    def work(number: int, checkpoint: Checkpoint) -> int:
        if number == 1:
            raise ImageError("damaged")
        if number == 9:
            raise BackendError("the engine failed")
        return number

    actor = _Actor(lambda: work, 2)
    groups = [pickle.dumps(group) for group in ([0, 1, 2], [], [9])]
    whole, empty, failed = map(pickle.loads, actor({"group": groups})["group"])
    assert [(result, str(error)) for result, error in whole] == [(0, "None"), (None, "damaged"), (2, "None")]
    assert empty == []
    assert isinstance(failed, BackendError)


def test_a_class_for_batches(colour_model: Path, tmp_path: Path, stripes: np.ndarray) -> None:
    """Columns as Ray Data, Spark and Daft give them; the same results, and an error in the row of the bad photo."""
    path = tmp_path / "a.png"
    Image.fromarray(stripes).save(path)
    photos = [str(path), "absent.jpg", path.read_bytes()]
    segment = pickle.loads(pickle.dumps(SegmentPhotos(colour_model, save=("mask", "json"))))  # as Spark sends it
    batch = segment({"id": np.arange(3), "photo": np.array(photos, object)})
    assert batch["error"] == [None, "absent.jpg: no such file, expected a photo", None]
    assert batch["width"] == [60, None, 60]
    assert batch["mask"][0] == batch["mask"][2]
    assert sum(area["pixels"] for area in batch["classes"][0]) == 60 * 40
    assert json.loads(batch["json"][0])["images"][0]["width"] == 60
    (frame,) = segment.frames([pd.DataFrame({"photo": photos}, index=[7, 8, 9])])
    assert frame["mask"].tolist() == batch["mask"]
    assert list(frame) == ["photo", "error", "width", "height", "found", "classes", "mask", "json"]
    schema = segment.schema("photo string")
    assert schema.startswith("photo string, error string, width int, height int, found boolean, classes array<struct<")
    assert schema.endswith(", mask binary, json binary")
    with pytest.raises(ValueError, match="save: masks, expected some of"):
        SegmentPhotos(save=("masks",))


# --- with one ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quick_imports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH that hides a package of the tests.

    Ray loads jsonschema in each process, which reads a grammar of that package where it is installed: of the 25 seconds
    of processor time that a cluster of three raylets takes to start, 16 are that.
    """
    folder = tmp_path_factory.mktemp("quick")
    (folder / "rfc3987_syntax.py").write_text("raise ImportError\n")
    return folder


@pytest.fixture(scope="module")
def environment(quick_imports: Path) -> dict[str, str]:
    places = [str(quick_imports), *map(str, (REPOSITORY / "runtime", REPOSITORY)), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(places),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }


CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster()
# Without what only looks on: each process that starts takes from the 30 seconds that Ray gives a raylet.
cluster.add_node(num_cpus=0, include_dashboard=False, no_monitor=True, include_log_monitor=False)
nodes = [cluster.add_node(num_cpus=int(cpus)) for cpus in sys.argv[1:]]
print(cluster.address, flush=True)
for line in sys.stdin:  # a number: that machine is lost
    cluster.remove_node(nodes[int(line)], allow_graceful=False)
    print("lost", flush=True)
cluster.shutdown()
"""


class Machines:
    """A cluster of several raylets, in a process of its own, besides the one the driver is on, which has no CPU."""

    def __init__(self, environment: dict[str, str], *cpus: int) -> None:
        self.address = ""
        for _ in range(3):  # Ray gives a raylet 30 seconds to start, whatever else the machine does
            self._process = subprocess.Popen(
                [sys.executable, "-c", CLUSTER, *map(str, cpus)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=environment,
            )
            assert self._process.stdout
            self.address = self._process.stdout.readline().strip()
            if self.address:
                return
            self.close()
        raise AssertionError("no cluster")

    def lose(self, number: int) -> None:
        assert self._process.stdin
        assert self._process.stdout
        print(number, file=self._process.stdin, flush=True)
        assert self._process.stdout.readline() == "lost\n"

    def kill_an_actor(self, draw: random.Random) -> bool:
        """Kill one of the cluster's processes in which actors work; False where there is none."""
        actors = []
        for pid in descendants(self._process.pid):
            with suppress(OSError):
                if b"ray::MapWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    actors.append(pid)
        if actors:
            os.kill(draw.choice(sorted(actors)), signal.SIGKILL)
        return bool(actors)

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_list(tmp_path_factory.mktemp("listed"), PHOTOS)


@pytest.fixture(scope="module")
def expected(photos: Path, colour_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes of them."""
    output = tmp_path_factory.mktemp("expected")
    arguments = ["--manifest", photos / "photos.txt", "--results", "parquet", "--model", colour_model, "-o", output]
    CliRunner().invoke(command, list(map(str, arguments)))
    return content(output)


class Run:
    """unet-run on Ray, in a process of its own; its lines are in a file beside its output."""

    def __init__(self, environment: dict[str, str], photos: Path, model: Path, output: Path, *more: object) -> None:
        arguments = ["--manifest", photos / "photos.txt", "--results", "parquet", "--model", model, "-o", output]
        arguments += ["--engine", "ray", *more]
        self._lines = output.with_name(f"{output.name}.lines")
        with self._lines.open("w") as lines:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from unet_runtime.cli.run import main; main()", *map(str, arguments)],
                stdout=lines,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )

    def wait_for(self, count: int) -> None:
        """Wait for so many lines."""
        while self._process.poll() is None and len(self._lines.read_text().splitlines()) < count:
            time.sleep(0.05)

    def end(self) -> tuple[int, list[str], str]:
        """Wait for the end: exit code, lines, errors."""
        _, errors = self._process.communicate(timeout=600)
        return self._process.returncode, self._lines.read_text().splitlines(), errors


@pytest.fixture
def machines(environment: dict[str, str]) -> Iterator[Machines]:
    """Two of 2 CPUs."""
    cluster = Machines(environment, 2, 2)
    yield cluster
    cluster.close()


@SLOW
def test_on_this_machine_alone(
    photos: Path, colour_model: Path, expected: dict[str, bytes], environment: dict[str, str], tmp_path: Path
) -> None:
    code, lines, errors = Run(environment, photos, colour_model, tmp_path / "out").end()
    assert (code, len(lines)) == (1, PHOTOS), errors
    assert all("->" in line for line in lines)
    assert content(tmp_path / "out") == expected
    ours = ("colours float32 on ", "2 actors of ", "1 actors of ", "error: ", "warning: 1 of 601 photos failed")
    assert [line for line in errors.splitlines() if not line.startswith(ours)] == []  # Ray's


@SLOW
@pytest.mark.parametrize("form", ["files", "webdataset"])
def test_a_machine_is_lost(
    form: str,
    photos: Path,
    colour_model: Path,
    environment: dict[str, str],
    machines: Machines,
    tmp_path: Path,
) -> None:
    """Its actors fit on no other machine: those that are left do its photos again."""
    arguments = ["--manifest", photos / "photos.txt", "--results", form, "--save", "mask", "--model", colour_model]
    CliRunner().invoke(command, list(map(str, [*arguments, "-o", tmp_path / "one"])))
    more = ["--results", form, "--save", "mask", "--address", machines.address]
    run = Run(environment, photos, colour_model, tmp_path / "all", *more)
    run.wait_for(20)
    machines.lose(1)
    code, lines, errors = run.end()
    assert code == 1, errors
    assert "a machine of the cluster was lost" in errors
    assert all("->" in line for line in lines)  # nothing of Ray's
    assert len(set(lines)) == len(lines) == PHOTOS
    assert content(tmp_path / "all") == content(tmp_path / "one")


@SLOW
def test_actors_that_are_killed(
    photos: Path,
    colour_model: Path,
    expected: dict[str, bytes],
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    """Eight of them, of which three are killed, at random moments: the same set and bytes of results."""
    cluster = Machines(environment, 4, 4)
    draw = random.Random(21)
    try:
        for repetition in range(REPETITIONS):
            output = tmp_path / f"{repetition}"
            run = Run(environment, photos, colour_model, output, "--address", cluster.address)
            run.wait_for(1)
            killed = 0
            for _ in range(3):
                time.sleep(draw.uniform(0, 1))
                killed += cluster.kill_an_actor(draw)
            code, lines, errors = run.end()
            assert (code, len(lines)) == (1, PHOTOS), errors
            assert content(output) == expected
            print(repetition, killed, "killed")
    finally:
        cluster.close()


@SLOW
def test_no_cluster_and_no_room(
    photos: Path, colour_model: Path, environment: dict[str, str], machines: Machines, tmp_path: Path
) -> None:
    for more, message in (
        (["--address", machines.address, "--threads", 3], "4 CPU and 0 GPU are free"),
        (["--address", "127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1"),
    ):
        code, _, errors = Run(environment, photos, colour_model, tmp_path / "out", *more).end()
        assert code == 3
        assert message in errors
        assert "Traceback" not in errors
