"""Work on the machines of a Ray cluster: outcomes in the order of the items, each once, whoever dies meanwhile.

    items ──> feed (an actor beside the driver) ──> reading task ──> actors that work ──> outcomes, in order

A row of Ray Data's dataset is a group of items, so that nothing else regroups them. The feed holds a few groups for
each actor: more are not taken from the items before the first of these is done. It and the reading task ask for no
CPU: with actors on all of them, Ray would wait for ever for one to read with, without a word.

Ray starts a killed actor again, and gives it its groups. Where a machine is lost, and the others have no room for its
actors, Ray would wait for another machine: all groups without an outcome are then worked on by as many actors as fit.
"""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from typing import Any, Generic, NamedTuple, TypeVar

from unet_runtime.core import cores
from unet_runtime.core.errors import BackendError
from unet_runtime.core.install import missing
from unet_runtime.core.text import one_line
from unet_runtime.io.jobs import Outcome, give_back_large_blocks, map_in_order
from unet_runtime.io.kind import Checkpoint

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")
P = TypeVar("P")

Work = Callable[[P, Checkpoint], R]

GROUP, LARGEST_GROUP = 16, 64
"""Items of a group, at first and at most: what an actor that is killed begins anew, for each group it has. Ray
needs as long to pass on a group as an actor needs for several small photos."""

_ANSWER_BYTES = 4 << 20
"""Bytes that the results of a group should not exceed: large ones keep to small groups."""

_GROUPS_AHEAD = 4  # for each actor
_WATCH_SECONDS = 2.0
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
_EMBEDDED = {"include_dashboard": False}


class Share(NamedTuple):
    """What each actor has."""

    threads: int = 1
    """CPUs, and threads of its engine."""
    gpu: float = 0.0
    """Share of a GPU; 0: none."""


class Machine(NamedTuple):
    """What a machine of a cluster has."""

    cpus: float
    gpus: float


def fitting(machines: Iterable[Machine], share: Share) -> int:
    """How many actors the machines have room for."""
    total = 0
    for machine in machines:
        count = machine.cpus // share.threads
        if share.gpu:
            of_one = round(1 / share.gpu, 6) // 1 if share.gpu < 1 else 1 / share.gpu
            count = min(count, machine.gpus * of_one)
        total += int(count)
    return total


def plan_actors(machines: Sequence[Machine], free: Machine, actors: int | None, share: Share) -> int:
    """How many actors to start.

    Args:
        machines: of the cluster.
        free: what of them all together nobody else uses.
        actors: how many are asked for; None: as many as there is room for.
        share: what each has.

    Raises:
        BackendError: there is no room for them: Ray would wait for it, without a word.
    """
    room = min(fitting(machines, share), fitting([free], share))
    if room >= (actors or 1):
        return actors or room
    wanted = f"{share.threads} CPU" + (f" and {share.gpu:g} GPU" if share.gpu else "")
    largest = max(machines, default=Machine(0, 0))
    raise BackendError(
        f"--engine ray: {actors or 1} actors of {wanted} each, and the cluster has room for {room} ({len(machines)} "
        f"machines, the largest of {largest.cpus:g} CPU and {largest.gpus:g} GPU; {free.cpus:g} CPU and {free.gpus:g} "
        "GPU are free): give fewer --actors, fewer --threads or a smaller --gpu-share, or start more machines"
    )


class Cluster:
    """A connection to a Ray cluster.

    Args:
        address: of its head, ``HOST`` or ``HOST:PORT``; ``auto``: the cluster that this machine belongs to; None: one
            that is started on this machine, and ends with the connection.
        actors: see ``plan_actors``.
        share: what each actor has.

    Raises:
        MissingDependencyError: Ray is not installed.
        BackendError: no cluster is there, or it has no room.
    """

    def __init__(self, address: str | None, actors: int | None, share: Share) -> None:
        self._ray = _import_ray()
        self._actors = actors
        self._share = share
        self._connect(address)
        try:
            self.actors = self._plan()
            """How many work."""
        except BackendError:
            self._ray.shutdown()
            raise

    def _connect(self, address: str | None) -> None:
        known = signal.getsignal(signal.SIGTERM)
        options: dict[str, Any] = {"logging_level": "CRITICAL", "log_to_driver": False}
        if address is None:
            os.environ.setdefault("RAY_worker_niceness", "0")  # as this process; Ray's own is 15
            options |= _EMBEDDED | {"address": "local", "num_cpus": cores.usable_cores()}
        else:
            options["address"] = address if address == "auto" or ":" in address else f"{address}:6379"
        try:
            self._ray.init(**options)
        except Exception as error:  # ConnectionError, RuntimeError, ValueError, plain Exception
            where = "on this machine" if address is None else f"at {address}"
            raise BackendError(
                f"--engine ray: no Ray cluster {where} ({one_line(error)}): see ray status, and --address"
            ) from error
        finally:
            with suppress(ValueError):  # not the main thread, where Ray changes nothing
                signal.signal(signal.SIGTERM, known)

    def _plan(self) -> int:
        free = self._ray.available_resources()
        machines = list(_alive(self._ray).values())
        return plan_actors(machines, Machine(free.get("CPU", 0), free.get("GPU", 0)), self._actors, self._share)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def map_in_order(
        self, make_work: Callable[[], Work[P, R]], items: Iterable[T], order: Callable[[T], P]
    ) -> Generator[Outcome[T, R], None, None]:
        """``work(order(item), checkpoint)`` for each item, in actors; outcomes in the items' order, as in ``jobs``.

        Args:
            make_work: makes the work of an actor, in its process.
            items: taken no faster than needed.
            order: what is sent to the actors for an item; it, the results and ``make_work`` are pickled.

        Raises:
            BackendError: the cluster has no room left, or what ``make_work`` or the work raise.
        """
        groups = _Groups(items)
        begun: deque[list[T]] = deque()
        while True:
            run = _Run(self._ray, make_work, order, self.actors, self._share)
            try:
                with closing(run.outcomes(groups, begun)) as outcomes:
                    yield from outcomes
                return
            except _LostError:
                logger.warning("a machine of the cluster was lost: its photos are done again by the others")
                room = fitting(_alive(self._ray).values(), self._share)
                if not room:
                    raise BackendError(
                        "--engine ray: the cluster lost its last machine with room for an actor: start it again, and "
                        "give --resume"
                    ) from None
                self.actors = min(self.actors, room)


def _alive(ray: Any) -> dict[str, Machine]:
    """The machines of the cluster that are there, by their ids."""
    found = {}
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            found[node["NodeID"]] = Machine(has.get("CPU", 0), has.get("GPU", 0))
    return found


class _Groups(Generic[T]):
    """Items in groups, larger ones where the results turn out to be small."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = iter(items)
        self._size = GROUP

    def __iter__(self) -> Iterator[list[T]]:
        return self

    def __next__(self) -> list[T]:
        group = list(itertools.islice(self._items, self._size))
        if not group:
            raise StopIteration
        return group

    def resize(self, count: int, size: int) -> None:
        """Fit the next groups to the size in bytes of the results of ``count`` items."""
        self._size = min(max(GROUP, _ANSWER_BYTES * count // size), LARGEST_GROUP)


class _LostError(Exception):
    """A machine is lost, and its actors fit on no other."""


class _Run(Generic[T, P, R]):
    """One execution of Ray Data, from the first group without an outcome on."""

    def __init__(
        self,
        ray: Any,
        make_work: Callable[[], Work[P, R]],
        order: Callable[[T], P],
        actors: int,
        share: Share,
    ) -> None:
        self._ray = ray
        self._order = order
        self._actors = actors
        self._share = share
        self._machines = _alive(ray)
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        self._feed = ray.remote(num_cpus=0, scheduling_strategy=here)(_Feed).remote()
        self._dataset = _dataset(ray, self._feed, make_work, actors, share)
        self._sent = self._answered = 0  # groups
        self._is_lost = False
        self._ended = threading.Event()

    def outcomes(self, groups: _Groups[T], begun: deque[list[T]]) -> Generator[Outcome[T, R], None, None]:
        """The outcomes of ``begun``, and of the groups after it.

        Args:
            groups: further ones.
            begun: groups without an outcome; kept up to date.

        Raises:
            _LostError: start another run.
        """
        for group in begun:
            self._send(group)
        self._fill(groups, begun)
        if not begun:
            return
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            for answers, size in self._answers():
                groups.resize(len(answers), size)
                for item, (result, error) in zip(begun[0], answers, strict=True):
                    yield Outcome(item, result, error)
                begun.popleft()
                self._answered += 1
                self._fill(groups, begun)
                if not begun:
                    return
        except Exception as error:
            if self._is_lost:
                raise _LostError from error
            raise
        finally:
            self._ended.set()
            self._feed.end.remote()

    def _fill(self, groups: _Groups[T], begun: deque[list[T]]) -> None:
        missing_groups = _GROUPS_AHEAD * self._actors - len(begun)
        for group in itertools.islice(groups, max(0, missing_groups)):
            begun.append(group)
            self._send(group)

    def _send(self, group: list[T]) -> None:
        self._feed.put.remote(self._sent, pickle.dumps(list(map(self._order, group))), self._answered)
        self._sent += 1

    def _answers(self) -> Iterator[tuple[Any, int]]:
        """The answers of each group, and how many bytes they were."""
        try:
            for batch in self._dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for content in batch.column(0):
                    answer = content.as_py()
                    answers = pickle.loads(answer)
                    if isinstance(answers, Exception):
                        raise answers
                    yield answers, len(answer)
        except self._ray.exceptions.RayError as error:
            raise BackendError(f"--engine ray: {one_line(error)}") from error

    def _watch(self) -> None:
        """Abort where machines are lost, and those that are left have no room for all actors."""
        while not self._ended.wait(_WATCH_SECONDS):
            with suppress(Exception):  # Ray's, when it is shut down meanwhile
                alive = _alive(self._ray)
                lost = self._machines.keys() - alive.keys()
                if lost and fitting(alive.values(), self._share) < self._actors:
                    self._is_lost = True
                    self._feed.abort.remote()
                    return


class _Feed:
    """Groups on their way to the reading task: a Ray actor."""

    def __init__(self) -> None:
        import asyncio  # of the actor alone

        self._changed = asyncio.Condition()
        self._groups: dict[int, bytes] = {}
        self._first = 0
        self._has_ended = self._is_aborted = False

    async def put(self, number: int, group: bytes, done: int) -> None:
        """Add a group; those before ``done`` have been answered."""
        async with self._changed:
            self._groups[number] = group
            for old in range(self._first, done):
                self._groups.pop(old, None)
            self._first = max(self._first, done)
            self._changed.notify_all()

    async def get(self, number: int) -> bytes | None:
        """Wait for a group; None: there is none. One that has been answered is empty: the reading task began anew."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: number in self._groups or number < self._first or self._has_ended or self._is_aborted
            )
        if self._is_aborted:
            raise RuntimeError("the run is aborted")
        if number < self._first:
            return pickle.dumps([])
        return self._groups.get(number)

    async def end(self) -> None:
        """Let the reading task end."""
        async with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    async def abort(self) -> None:
        """Let the reading task fail, and the whole run with it."""
        async with self._changed:
            self._is_aborted = True
            self._changed.notify_all()


class _Actor(Generic[P, R]):
    """Works on groups: what Ray Data's ``map_batches`` makes an actor of."""

    def __init__(self, make_work: Callable[[], Work[P, R]], workers: int) -> None:
        self._make_work = make_work
        self._workers = workers
        self._work: Work[P, R] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        return {"group": [self._answer(group) for group in batch["group"]]}

    def _answer(self, group: bytes) -> bytes:
        try:
            if self._work is None:
                give_back_large_blocks()
                self._work = self._make_work()
            answers = []
            for outcome in map_in_order(self._work, pickle.loads(group), workers=self._workers):
                answers.append((outcome.result, outcome.error))
            return pickle.dumps(answers)
        except Exception as error:  # ends the run; raised here, Ray would wrap it in its own
            return pickle.dumps(error)


def _dataset(ray: Any, feed: Any, make_work: Callable[[], Any], actors: int, share: Share) -> Any:
    import pyarrow as arrow
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    def read() -> Iterator[Any]:
        for number in itertools.count():
            group = ray.get(feed.get.remote(number))
            if group is None:
                return
            yield arrow.table({"group": [group]})

    class Groups(Datasource):
        """One reading task, which waits for the feed."""

        def estimate_inmemory_data_size(self) -> None:
            """Say that it is unknown."""

        def get_read_tasks(self, *_: Any, **__: Any) -> list[Any]:
            """The one."""
            unknown = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None)
            return [ReadTask(read, unknown)]

    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # byte: each row, which is a group, is a block of its own
    return ray.data.read_datasource(
        Groups(),  # type: ignore[no-untyped-call]
        num_cpus=0,
        override_num_blocks=1,
    ).map_batches(
        _Actor,
        fn_constructor_args=(make_work, share.threads + 1),
        batch_size=1,
        num_cpus=share.threads,
        num_gpus=share.gpu or None,
        compute=ray.data.ActorPoolStrategy(size=actors),
    )


def _import_ray() -> Any:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise missing("--engine ray", "Ray", "ray") from error
    for name in ("ray", "ray.data"):  # what ends a run comes as an exception, too
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Else what a lost machine has logged comes out of standard output, between the results' lines.
    ray._private.worker._worker_logs_enabled = False
    return ray
