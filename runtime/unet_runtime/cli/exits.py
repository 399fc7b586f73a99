"""Exit codes, the same for every command of the three packages.

0 all done   1 some inputs failed   2 wrong usage   3 model or backend
4 parity or accuracy gate failed    130 interrupted
"""

from __future__ import annotations

import sys

import click

from unet_runtime.errors import BackendError, ModelFileError, UnetRuntimeError

OK, INPUTS_FAILED, USAGE, MODEL, GATE, INTERRUPTED = 0, 1, 2, 3, 4, 130


def exit_code(error: UnetRuntimeError) -> int:
    """An error's own ``exit_code`` where its class has one, 3 for models and backends, else 1."""
    default = MODEL if isinstance(error, (ModelFileError, BackendError)) else INPUTS_FAILED
    return int(getattr(error, "exit_code", default))


def run(command: click.Command) -> None:
    """Run a command; turn each way it can end into its exit code, and an error into one line."""
    try:
        # Not standalone: click would turn Ctrl-C into exit code 1.
        code = command.main(standalone_mode=False)
    except click.exceptions.Abort:  # click's own wrapping of KeyboardInterrupt
        click.echo("interrupted", err=True)
        code = INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except UnetRuntimeError as error:
        click.echo(f"error: {error}", err=True)
        code = exit_code(error)
    except BrokenPipeError:  # the reader of a pipe is gone, as after "| head"
        code = INPUTS_FAILED
    sys.exit(code if isinstance(code, int) else OK)
