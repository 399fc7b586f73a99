"""What the commands share: groups of options in the help, lists of names, verbosity, suggestions."""

from __future__ import annotations

import logging

import click
import pytest
from click.testing import CliRunner

from unet_runtime.cli.shared import CommandGroup, GroupedCommand, NameList, option_group, setup_logging, verbosity


@click.command(cls=GroupedCommand)
@option_group(
    "Results",
    click.option("--save", type=NameList(("mask", "overlay"), all_word="all"), help="What to write."),
    click.option("--output-dir", help="Folder of the results."),
)
@verbosity
def command(save: tuple[str, ...] | None, output_dir: str | None, verbosity: int | None) -> None:
    """Write things."""
    setup_logging(verbosity)
    logger = logging.getLogger("unet_runtime.tests")
    logger.debug("details")
    logger.info("progress")
    logger.warning("look out")
    click.echo(f"result {save}")


@click.group(cls=CommandGroup)
def group() -> None:
    """Several commands."""


group.add_command(command, "write")


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(command, arguments)
    return result.exit_code, result.stdout, result.stderr


def test_help_lists_options_under_their_group_and_in_order() -> None:
    lines = run("-h")[1].splitlines()
    results, other = lines.index("Results:"), lines.index("Other options:")
    assert results < other
    assert "--save" in lines[results + 1]
    assert "--output-dir" in lines[results + 2]
    assert any("--quiet" in line for line in lines[other:])


def test_a_list_has_known_names_once_each() -> None:
    assert run("--save", "overlay, mask,overlay")[1] == "result ('overlay', 'mask')\n"
    assert run("--save", "all")[1] == "result ('mask', 'overlay')\n"
    code, _, errors = run("--save", "mask,outline")
    assert code == 2
    assert "'outline', expected some of mask,overlay" in errors


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ([], "progress\nwarning: look out\n"),
        (["-q"], "warning: look out\n"),
        (["-v"], "details\nprogress\nwarning: look out\n"),
    ],
)
def test_verbosity_decides_what_standard_error_gets(flag: list[str], expected: str) -> None:
    code, output, errors = run(*flag)
    assert (code, output, errors) == (0, "result None\n", expected)


def test_a_misspelt_command_gets_a_suggestion() -> None:
    result = CliRunner().invoke(group, ["wirte"])
    assert result.exit_code == 2
    assert "Did you mean 'write'?" in result.stderr
