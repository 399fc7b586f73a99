"""The documentation points at what is there: links, tests that decisions name, and no private paths."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from tests.helpers.paths import REPOSITORY
from unet_export.cli.command import command as exporting
from unet_runtime.cli import bench, info, manifest, run, serve
from unet_training.cli.command import command as training

COMMANDS = {
    "unet-run": run.command,
    "unet-run merge": manifest.merge,
    "unet-run status": manifest.status,
    "unet-info": info.command,
    "unet-bench": bench.command,
    "unet-serve": serve.command,
    "unet-train": training,
    **{f"unet-train {name}": command for name, command in training.commands.items()},
    **{f"unet-export {name}": command for name, command in exporting.commands.items()},
}
ELSEWHERE = ("unet-run status", "unet-serve", "unet-train download", "unet-export sign")
"""Commands whose results have one place: beside what they are given, or none."""

PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])


def page_name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_options_that_all_share(name: str) -> None:
    command: click.Command = COMMANDS[name]
    options = {word for parameter in command.params for word in parameter.opts}
    assert {"-v", "--verbose", "-q", "--quiet"} <= options
    assert ({"-o", "--output"} <= options) is (name not in ELSEWHERE)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_anchors_are_headings() -> None:
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
            if "://" in target:
                continue
            text = (page.parent / target if target else page).read_text(encoding="utf-8")
            headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page}: {target}#{anchor}"


@pytest.mark.parametrize("record", sorted((REPOSITORY / "docs/decisions").glob("0*.md")), ids=page_name)
def test_decisions_name_tests_that_exist(record: Path) -> None:
    text = record.read_text(encoding="utf-8")
    assert [*re.findall(r"^## (.+)$", text, re.MULTILINE)] == ["Context", "Decision", "Evidence"]
    linked = [record.parent / target for target in re.findall(r"\]\(([^)#]+\.py)\)", text)]
    sources = "".join(path.read_text(encoding="utf-8") for path in linked)
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in sources, f"{record}: {name}"


def test_every_page_says_paths_that_exist() -> None:
    for page in PAGES:
        for path in re.findall(
            r"`((?:runtime|export|training|tests|benchmarks|docs)/[\w/.-]+\.\w+)`", page.read_text(encoding="utf-8")
        ):
            assert (REPOSITORY / path).exists(), f"{page}: {path}"
