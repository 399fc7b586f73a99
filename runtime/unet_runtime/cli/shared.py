"""What the commands of the three packages share: option groups, lists, verbosity, suggestions.

@click.command(cls=GroupedCommand, epilog=EXAMPLES)
@option_group("Results", click.option("--save"), click.option("--output-dir"))
@verbosity
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from unet_runtime.cli.quiet import visible_stderr
from unet_runtime.core.errors import BackendError
from unet_runtime.core.text import printable, shortened
from unet_runtime.engines import DEVICES, split_device

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])

HELP = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100}
"""For ``context_settings``."""


_SEPARATORS = (os.sep, os.altsep or os.sep)
_FOLDER_ENDS = (*_SEPARATORS, *(f"{separator}." for separator in _SEPARATORS))
_FOLDERS = "unet_edge_folders"
"""Key of a context: names of its parameters whose paths end in a separator."""


class PathName(click.Path):
    """A path, as ``click.Path`` with ``path_type=Path``; the empty one is refused, which Python takes for ".".

    It is what a shell makes of ``"$FOLDER"`` where the variable is not set. A path that ends in a separator names a
    folder: it is refused where a file is expected, and ``means_folder`` knows it, though a ``Path`` does not.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(path_type=Path, **settings)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value) == "" or value == b"":
            self.fail('"" is no path: is a variable of the shell empty? The current folder is "."', param, ctx)
        if "\0" in str(value):
            self.fail(f"{value!r}, expected a path without the character 0", param, ctx)
        if os.fsdecode(value).endswith(_FOLDER_ENDS):
            if not self.dir_okay:
                self.fail(f"{value} names a folder, as it ends in a separator: expected a file", param, ctx)
            if ctx is not None and param is not None:
                ctx.meta.setdefault(_FOLDERS, set()).add(param.name)
        return super().convert(value, param, ctx)


def means_folder(parameter: str) -> bool:
    """Whether the path of a parameter of the current command was written as a folder's, with a separator at its end."""
    return parameter in click.get_current_context().meta.get(_FOLDERS, ())


class Real(click.FloatRange):
    """A finite number in a range: click lets NaN through, which is in none, and infinity where there is no bound."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value}, expected a finite number", param, ctx)
        return number


class DeviceName(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A device, where there are several with its number: ``cuda``, ``cuda:1``."""

    name = "device"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"[{'|'.join(DEVICES)}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            kind, _ = split_device(str(value))
        except BackendError as error:
            self.fail(str(error), param, ctx)
        if kind not in DEVICES:
            self.fail(
                f"{value!r}, expected one of {', '.join(DEVICES)}, or one with a number such as cuda:1", param, ctx
            )
        if kind == "tensorrt":
            # This process is the command's own; NVIDIA's libraries read it when they are first used.
            os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(name) for name in DEVICES if name.startswith(incomplete)]


PATH = PathName()
DEVICE = DeviceName()
MAX_COUNT = 1_000_000_000
COUNT = click.IntRange(1, MAX_COUNT)
MAX_THREADS = max(64, 2 * (os.cpu_count() or 1))
"""Engines start as many as they are told, which then wait for each other at every layer: 256 on two cores took half a
minute for a photo, 100,000 end the process."""
THREADS = click.IntRange(1, MAX_THREADS)

PACKAGES = ("unet_runtime", "unet_export", "unet_training")

_GROUP = "unet_edge_group"
_OTHER = "Other options"


class GroupedCommand(click.Command):
    """A command whose help lists its options under the titles of their groups."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", HELP)
        super().__init__(*args, **kwargs)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_options(self, ctx, formatter)


class CommandGroup(click.Group):
    """A group of commands that proposes the nearest name for one that does not exist; its own options are in groups."""

    command_class = GroupedCommand

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", HELP)
        super().__init__(*args, **kwargs)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib  # a millisecond that only an error needs

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            if not near or "Did you mean" in error.message:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from error


def _write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """A section of the help for each group, in the order of their first options; those of no group come last."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None and not isinstance(parameter, click.Argument):  # those are in the usage line
            sections.setdefault(getattr(parameter, _GROUP, _OTHER), []).append(record)
    others = sections.pop(_OTHER, [])
    for title, records in [*sections.items(), (_OTHER, others)]:
        with formatter.section(title):
            formatter.write_dl(records)


def option_group(title: str, *options: Callable[[F], F]) -> Callable[[F], F]:
    """A decorator that puts options on a command, in this order, under one title of its help."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
            parameters = getattr(function, "__click_params__", None) or getattr(function, "params", [])
            setattr(parameters[-1], _GROUP, title)
        return function

    return decorate


class NameList(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """Names separated by commas, each known: ``mask,overlay`` -> ``("mask", "overlay")``.

    Args:
        known: the names.
        all_word: a word that stands for all of them; empty for none.
    """

    name = "list"

    def __init__(self, known: Sequence[str], all_word: str = "") -> None:
        self.known = tuple(known)
        self.all_word = all_word

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        if self.all_word and value == self.all_word:
            return self.known
        names = tuple(dict.fromkeys(part.strip() for part in str(value).split(",")))
        for name in names:
            if name not in self.known:
                self.fail(f"{name!r}, expected some of {','.join(self.known)}", param, ctx)
        return names


def refuse_model(option: str, path: Path, models: Sequence[Path]) -> None:
    """Refuse a file to write that is a model: who says ``--json model.onnx`` may have meant the model to measure.

    Raises:
        click.UsageError: exit code 2.
    """
    is_model = path.suffix.lower() in (".onnx", ".tflite", ".keras")
    with suppress(OSError):
        for model in models:
            is_model = is_model or (path.exists() and path.samefile(model))
    if is_model:
        raise click.UsageError(f"{option} {path} would replace a model: name models before {option}, or another file")


overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace also a file that this command did not make (its own is always replaced)."
)


verify_key_option = click.option(
    "--verify-key",
    type=PathName(dir_okay=False),
    help="File of public keys (PEM), or a policy (JSON): refuse a model that none of them has signed.",
)


def verbosity(function: F) -> F:
    """``-v`` and ``-q``: how much a command says on standard error; the command's parameter is ``verbosity``."""
    options = option_group(
        _OTHER,
        click.option(
            "-v", "--verbose", "verbosity", flag_value=1, type=int, help="Show details, and what engines say."
        ),
        click.option("-q", "--quiet", "verbosity", flag_value=-1, type=int, help="Show warnings and errors alone."),
    )
    return options(function)


def setup_logging(level: int | None) -> None:
    """Send what the three packages log to standard error, one plain line each.

    Args:
        level: 1 for details, 0 or None for progress, -1 for warnings alone: the parameter of ``verbosity``.
    """
    levels = {1: logging.DEBUG, -1: logging.WARNING}
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.handlers[:] = [_Handler()]
        logger.setLevel(levels.get(level or 0, logging.INFO))
        logger.propagate = False


class _Handler(logging.Handler):
    """Prints through click, which knows a closed or redirected standard error; names are made printable."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        # Names come as arguments, and in errors, whose lines are one; the breaks of a message itself stay.
        record.args = tuple(map(_printable, record.args)) if isinstance(record.args, tuple) else record.args
        text = shortened(printable(prefix + record.getMessage(), lines=True))
        with suppress(OSError, ValueError):  # standard error is closed or full: there is nobody to tell
            click.echo(text, file=visible_stderr(), err=True)


def _printable(value: object) -> object:
    return value if isinstance(value, (int, float)) else printable(str(value))


def echo(text: str, *, err: bool = False) -> None:
    """Print a result; names in it cannot control the terminal, and line breaks stay."""
    click.echo(printable(text, lines=True), err=err)
