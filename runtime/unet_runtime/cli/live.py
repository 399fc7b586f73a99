"""The parts of unet-run for a camera and for videos."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unet_runtime.cli.shared import echo
from unet_runtime.core.errors import OK
from unet_runtime.core.files import replacing
from unet_runtime.core.segmentation import MIN_SCORE, Segmentation
from unet_runtime.core.text import printable, table
from unet_runtime.io.places import Places
from unet_runtime.io.sinks import save
from unet_runtime.segmenter import Segmenter

if TYPE_CHECKING:
    from unet_runtime.live.loop import Session
    from unet_runtime.live.view import View

_STAGES = ("capture", "preprocess", "inference", "compose", "display", "age")


@dataclass(frozen=True)
class LiveOptions:
    """The options of ``--webcam``."""

    source: str
    """A camera's number, a device, a video file or an address."""
    view: str = "auto"
    """``auto``, ``window``, ``web`` or ``none``."""
    record: Path | None = None
    """Video file of what is shown."""
    max_seconds: float | None = None
    smooth: float = 0.0
    """Share of the past in each frame: 0 (off) .. below 1."""
    background: str = "overlay"
    """``overlay``, ``cutout`` or ``blur``: what is shown first."""
    output_dir: Path | None = None
    """Folder that key s saves to; None: the working directory."""
    host: str = "127.0.0.1"
    """Address of the web page."""
    port: int = 8080
    """Port of the web page."""
    min_score: float = MIN_SCORE
    """Smallest score of a class that counts as found, see ``Segmentation.found``."""
    min_share: float = 0.0
    """Smallest share of the picture of such a class."""
    places: Places = field(default_factory=Places)
    """Which files the recording may replace."""


def run_webcam(segmenter: Segmenter, options: LiveOptions) -> int:
    """Show a camera live until key q, Ctrl-C, SIGTERM or ``options.max_seconds`` end it; print a summary.

    Returns:
        0, also after Ctrl-C and SIGTERM: without a window they are the usual way to end it.

    Raises:
        SourceError: no camera, or no picture.
        MissingDependencyError: OpenCV is not installed.
        OutputError: the recording cannot be written, or no web page served.
        BackendError: no window, or the engine failed.
    """
    from unet_runtime.core.timings import Timings
    from unet_runtime.io.video.smooth import Smoother
    from unet_runtime.live.camera import Camera
    from unet_runtime.live.loop import Live
    from unet_runtime.live.record import Recorder
    from unet_runtime.live.view import About
    from unet_runtime.live.views import open_view

    def is_found(result: Segmentation) -> bool:
        return bool(result.found(options.min_score, options.min_share))

    timings = Timings()
    camera = Camera(options.source, timings=timings)
    smoother = Smoother(options.smooth, segmenter.spec) if options.smooth else None
    if options.record is not None:
        options.places.check(options.record)
    with _stop_event() as stop, ExitStack() as opened:
        recorder = Recorder(options.record) if options.record else None  # before the camera: it may refuse the path
        opened.callback(camera.close)
        if recorder is not None:
            opened.callback(lambda: recorder.close(time.perf_counter()))
        camera.start(stop)
        about = About(
            camera.source.name,
            f"{segmenter.spec.name}, {segmenter.spec.precision}",
            f"{segmenter.backend.engine}, {segmenter.backend.device}",
            tuple((entry.name, entry.color) for entry in segmenter.spec.classes if entry.role != "background"),
        )
        view = open_view(options.view, host=options.host, port=options.port, about=about)
        opened.callback(view.close)
        _print_start(camera.source.name, view, options)
        live = Live(
            segmenter,
            camera,
            view,
            timings,
            smoother=smoother,
            recorder=recorder,
            background=options.background,
            is_found=is_found if segmenter.spec.role_names("foreground") else None,
            save=lambda result: _save_frame(result, options.output_dir or Path()),
        )
        session = live.run(stop, options.max_seconds)
    _print_summary(session)
    if recorder is not None and recorder.frames:
        echo(f"recorded {recorder.frames} frames ({recorder.seconds:.1f} s) -> {recorder.path}")
    return OK


@contextmanager
def _stop_event() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second Ctrl-C interrupts, as it does everywhere."""
    stop = threading.Event()

    def set_stop(number: int, frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in kept.items():
        if handler is not signal.SIG_IGN:  # as under nohup: stays so
            signal.signal(number, set_stop)
    try:
        yield stop
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _print_start(camera: str, view: View, options: LiveOptions) -> None:
    echo(f"{camera} -> {view.name}" + (f" ({view.note})" if view.note else ""))
    keys = "" if view.name == "none" else "q quits, s saves, b switches the background; "
    echo(f"{keys}Ctrl-C ends it" + (f"; recording to {options.record}" if options.record else ""))


def _print_summary(session: Session) -> None:
    rows = [("stage", "p50 ms", "p95 ms")]
    for stage in _STAGES:
        if session.timings.count(stage):
            p50, p95 = session.timings.percentiles(stage, 50, 95)
            rows.append((stage, f"{p50:.1f}", f"{p95:.1f}"))
    echo(table(rows))
    rate = session.shown / session.seconds if session.seconds else 0.0
    echo(
        f"{session.shown} frames shown in {session.seconds:.1f} s ({rate:.1f} a second), {session.dropped} dropped, "
        f"{session.reconnects} reconnects"
    )
    for path in session.saved:
        echo(f"saved {path}")


def _save_frame(result: Segmentation, folder: Path) -> list[Path]:
    """Photo, mask, overlay and cut-out of one frame, named after the time."""
    now = time.time()
    stem = time.strftime("live-%Y%m%d-%H%M%S", time.localtime(now)) + f"-{int(now % 1 * 1000):03d}"
    photo = folder / f"{stem}.png"
    with replacing(photo) as file:
        result.photo.save(file, "PNG", compress_level=1)
    return [photo, *save(result, ("mask", "overlay", "cutout"), folder, stem)]


def run_video(
    segmenter: Segmenter,
    path: Path,
    targets: Mapping[str, Path],
    stamp: str = "",
    *,
    refine: bool = False,
    smooth: float = 0.0,
) -> None:
    """Segment a video into others, with a progress bar where standard error is a terminal.

    Args:
        segmenter: the model.
        path: the video.
        targets: kind -> the video to write; see ``segment_video``.
        stamp: what the videos record of model and options.
        refine: see ``Segmentation.refined``.
        smooth: share of the last frames in each.

    Raises:
        UnetRuntimeError: as ``segment_video``.
    """
    from unet_runtime.io.video.segment import segment_video

    with _bar(path) as bar:

        def progress(done: int, promised: int) -> None:
            if bar is not None:
                bar.length = max(promised, done)
                bar.update(done - bar.pos)

        segment_video(segmenter, path, targets, progress, stamp, refine=refine, smooth=smooth)


def _bar(path: Path) -> Any:
    if not sys.stderr.isatty():
        return nullcontext()
    return click.progressbar(length=1, label=printable(path.name), file=sys.stderr, show_pos=True)
