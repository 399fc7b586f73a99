"""unet-run --manifest: the photos of a list, or one process' share of them; unet-run merge and status."""

from __future__ import annotations

import itertools
import logging
import os
import posixpath
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click

from unet_runtime.cli import options
from unet_runtime.cli.quiet import engines_quiet
from unet_runtime.cli.report import Done, Report
from unet_runtime.cli.shared import PATH, GroupedCommand, PathName, echo, overwrite_option, setup_logging, verbosity
from unet_runtime.cli.work import Settings
from unet_runtime.core.errors import INPUTS_FAILED, OK, OutputError, SourceError
from unet_runtime.core.text import table, to_json
from unet_runtime.io.examine import engine_pool
from unet_runtime.io.jobs import Outcome, PixelBudget, Plan, Pool, give_back_large_blocks, map_in_order, plan
from unet_runtime.io.kind import Checkpoint
from unet_runtime.io.manifest import Manifest, Row, Shard
from unet_runtime.io.rows import Answer, PhotoRow, RowSettings, RowWork
from unet_runtime.io.shards import Part, Progress, ShardFolder, merged, parts, progress, shard_notes
from unet_runtime.io.sources import FOLDER_RESULTS
from unet_runtime.io.stamps import stamp
from unet_runtime.io.storage import Storage, is_address, storage
from unet_runtime.io.tables import TABLES, Entry, require
from unet_runtime.segmenter import Segmenter

logger = logging.getLogger(__name__)

_PATH_OF_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/(?!/)", re.IGNORECASE)  # has lost one of two slashes
_VERBOSE = 1  # of ``verbosity``
_MANY = 1_000_000  # photos, for the plan of threads: more than there are workers


class _Item(NamedTuple):
    """One row in work."""

    part: Part
    row: Row
    source: str
    """Path or address of the photo."""
    known: Entry | None
    """What an earlier run made of it."""


def run_manifest(given: dict[str, Any], load: Callable[[int | None], Segmenter]) -> int:
    """Segment the photos of ``--manifest`` that belong to ``--shard``.

    Args:
        given: the command's parameters.
        load: makes a segmenter of so many threads.

    Returns:
        The exit code.
    """
    form, shard = given["results"] or "files", given["shard"] or Shard()
    require(form)
    manifest = Manifest(_name(given["manifest"]), shard)
    kinds = given["kinds"] or (options.DEFAULT_RESULTS if form == "files" else ("mask",))
    output = storage(_output_name(given, manifest))
    on_ray = given["engine"] == "ray"
    shares = Plan(2, 1, given["threads"] or 1) if on_ray else plan(_MANY, given["threads"])
    segmenter = load(shares.threads)
    settings = Settings.of(given | {"kinds": kinds}, [], segmenter)
    folder = ShardFolder(output, shard, form)
    made_of = stamp(settings.metadata.stamp, kinds=kinds, form=form)
    folder.begin(manifest.count, made_of, kinds)
    row_settings = RowSettings(
        kinds,
        settings.choices,
        settings.metadata,
        "" if TABLES[form].holds_results else output.name,
        settings.places,
    )
    report = Report(manifest.count, segmenter, as_json=given["as_json"], progress=given["verbosity"] != -1)
    report.begin()
    items = _items(manifest, parts(manifest.rows(), made_of), folder, report, resume=given["resume"])
    try:
        with ExitStack() as stack:
            if on_ray:
                outcomes = _on_ray(given, items, row_settings, segmenter, stack)
            else:
                give_back_large_blocks()
                engines = engine_pool(segmenter, shares, partial(load, shares.threads))
                work = RowWork(row_settings, segmenter, engines, PixelBudget())
                outcomes = map_in_order(
                    lambda item, checkpoint: _carry_out(work, _order(item), checkpoint), items, workers=shares.workers
                )
            stack.enter_context(closing(outcomes))
            _write_parts(outcomes, folder, report, stops=given["on_error"] == "stop")
    except KeyboardInterrupt:
        report.interrupted()
        raise
    except _StoppedError:
        pass
    return report.end()


def _order(item: _Item) -> PhotoRow | SourceError | None:
    """What is to be done for a row; None: nothing, it is known."""
    if item.known is not None:
        return None
    if item.row.problem:
        return SourceError(item.row.problem)
    return PhotoRow(item.row.number, item.row.photo, item.source)


def _carry_out(work: RowWork, order: PhotoRow | SourceError | None, checkpoint: Checkpoint) -> Answer | None:
    """What came of a row; None: what is known of it.

    Raises:
        ImageError, SourceError, OutputError: this row's problem.
        BackendError: the engine failed.
        StoppedError: the run has ended.
    """
    if isinstance(order, SourceError):
        raise order
    return None if order is None else work(order, checkpoint)


def _on_ray(
    given: dict[str, Any], items: Iterable[_Item], settings: RowSettings, segmenter: Segmenter, stack: ExitStack
) -> Generator[Outcome[_Item, Answer | None], None, None]:
    """The outcomes of rows that the actors of a cluster work on; the cluster is left with ``stack``."""
    from unet_runtime.io.cluster import Cluster, Share

    share = Share(given["threads"] or 1, given["gpu_share"] or 0.0)
    with engines_quiet(given["verbosity"] != _VERBOSE):
        cluster = stack.enter_context(Cluster(given["address"], given["actors"], share))
    logger.info("%d actors of %d CPU each", cluster.actors, share.threads)
    return cluster.map_in_order(partial(_actor_work, settings, segmenter), items, _order)


def _actor_work(
    settings: RowSettings, segmenter: Segmenter
) -> Callable[[PhotoRow | SourceError | None, Checkpoint], Answer | None]:
    """The work of an actor, in its process, where the segmenter that was sent there has loaded its model again."""
    metadata = settings.metadata._replace(engine=segmenter.backend.engine)
    work = RowWork(settings._replace(metadata=metadata), segmenter, Pool([segmenter]), PixelBudget())
    return partial(_carry_out, work)


def _items(
    manifest: Manifest, found: Iterable[Part], folder: ShardFolder, report: Report, *, resume: bool
) -> Iterator[_Item]:
    """The rows to do; of a part that is done but for some rows, the others with what is known of them."""
    for part in found:
        failed = folder.failed(part) if resume else None
        if failed == 0:
            report.skip_rows(len(part.rows))
            continue
        known = {} if failed is None else folder.entries(part)
        for row in part.rows:
            yield _Item(part, row, manifest.source(row), known.get(row.number))


def _write_parts(
    outcomes: Iterable[Outcome[_Item, Answer | None]],
    folder: ShardFolder,
    report: Report,
    *,
    stops: bool,
) -> None:
    for part, rows in itertools.groupby(outcomes, key=lambda outcome: outcome.item.part):
        with folder.writing(part) as add:
            for outcome in rows:
                item, row = outcome.item, outcome.item.row
                if stops and outcome.error is not None:
                    report.add(row.photo, None, outcome.error)
                    raise _StoppedError  # the rest of the part is not there: it is not kept
                entry = outcome.result.entry if outcome.result else item.known
                add(entry or Entry(row.number, row.photo, str(outcome.error)))
                report.add(row.photo, None if outcome.error else _done(item, outcome.result, folder), outcome.error)


def _done(item: _Item, answer: Answer | None, folder: ShardFolder) -> Done:
    """What there is to report of a row that has its results."""
    if answer is None:
        return Done([], was_done=True)
    facts = answer.entry.facts or {}
    places = folder.places(item.part, answer.entry)
    return Done([], facts, answer.summary, is_empty=not facts["found"], places=places)


def _output_name(given: dict[str, Any], manifest: Manifest) -> str:
    """Folder of the results: without ``--output`` beside the manifest, named as for a folder of photos."""
    if given["output_dir"] is not None:
        return _name(given["output_dir"])
    return posixpath.splitext(manifest.path)[0] + FOLDER_RESULTS


def _name(path: Path) -> str:
    """A path, or the address that was given for one."""
    return _PATH_OF_ADDRESS.sub(r"\1://", str(path), count=1)


class _StoppedError(Exception):
    """A row has failed, and ``--on-error stop`` was given."""


class _State(NamedTuple):
    """The shards of a folder."""

    notes: list[dict[str, Any]]
    progress: list[Progress]
    absent: list[int]
    """Shards that have not begun."""

    @property
    def total(self) -> Progress:
        """All shards that have begun, together."""
        total = Progress()
        for shard in self.progress:
            total = total.plus(shard)
        return total

    @property
    def unfinished(self) -> list[int]:
        """Shards that have begun, and are not done."""
        numbers = []
        for note, shard in zip(self.notes, self.progress, strict=True):
            if shard.done < shard.rows:
                numbers.append(note["shard"])
        return numbers

    @property
    def is_complete(self) -> bool:
        """Whether every row of every shard is done, failed ones included."""
        return not self.absent and not self.unfinished


def _state(folder: Storage) -> _State:
    notes = sorted(shard_notes(folder), key=lambda note: int(note["shard"]))
    if not notes:
        raise SourceError(f"{folder.name}: holds no shards, expected the --output of unet-run --manifest")
    begun = {note["shard"] for note in notes}
    absent = [number for number in range(1, notes[0]["total"] + 1) if number not in begun]
    return _State(notes, [progress(folder, note) for note in notes], absent)


_folder_argument = click.argument("folder", type=PATH)


@click.command(cls=GroupedCommand)
@_folder_argument
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@verbosity
def status(folder: Path, as_json: bool, verbosity: int | None) -> int:
    """Report the progress of the shards in FOLDER, the --output of unet-run --manifest.

    Exit codes: 0 all rows are done, 1 some are missing or have failed.
    """
    setup_logging(verbosity)
    state = _state(storage(_name(folder)))
    total = state.total
    if as_json:
        shards = []
        for note, shard in zip(state.notes, state.progress, strict=True):
            shards.append({"shard": note["shard"], **shard._asdict()})
        counts = {"complete": state.is_complete, "total": state.notes[0]["total"], **total._asdict()}
        click.echo(to_json(counts | {"not_begun": state.absent, "shards": shards}))
    else:
        lines = [["shard", "rows", "done", "failed"]]
        for note, shard in zip(state.notes, state.progress, strict=True):
            lines.append([f"{note['shard']}/{note['total']}", *map(str, shard)])
        echo(table([*lines, ["all", *map(str, total)]]))
        if state.absent:
            echo(f"not begun: {_ranges(state.absent)}")
    return OK if state.is_complete and not total.failed else INPUTS_FAILED


@click.command(cls=GroupedCommand)
@_folder_argument
@click.option("-o", "--output", type=PathName(dir_okay=False), required=True, help="The one table to write.")
@overwrite_option
@verbosity
def merge(folder: Path, output: Path, overwrite: bool, verbosity: int | None) -> int:
    """Make one table of the shards in FOLDER, the --output of unet-run --manifest, in the order of the manifest.

    The table is the same whatever the number of shards: lines of JSON (files), Parquet, or a tar archive (webdataset).

    Exit codes: 0 done, 1 some rows are missing, or the table cannot be written.
    """
    setup_logging(verbosity)
    place = storage(_name(folder))
    state = _state(place)
    if not state.is_complete:
        missing = _ranges(sorted(state.absent + state.unfinished))
        total = state.notes[0]["total"]
        raise SourceError(f"{place.name}: shards {missing} of {total} are not done: run them with --resume")
    first = state.notes[0]
    form = TABLES[first["results"]]
    target = _name(output)
    if not target.endswith(form.suffix):
        raise click.UsageError(f"--output {target}: name a file that ends as {form.suffix}, as the shards do.")
    parent, name = posixpath.split(target)
    if not overwrite and not is_address(target) and os.path.lexists(target):
        raise OutputError(f"{target}: exists: name another file, or insist with --overwrite")
    with (
        storage(parent or ".").writing(name) as file,
        form.writing(file, tuple(first["kinds"]), first["stamp"]) as add,
    ):
        for entry in merged(place, state.notes):
            add(entry)
    logger.info("%s: %d rows, %d of them failed", target, state.total.rows, state.total.failed)
    return OK


def _ranges(numbers: list[int]) -> str:
    """``1-3, 7``."""
    found = []
    for _, group in itertools.groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in group]
        found.append(str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}")
    return ", ".join(found)
