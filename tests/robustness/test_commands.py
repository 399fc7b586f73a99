"""Unfriendly commands end with a clear error: no traceback, no hang, nothing that controls the terminal.

With SLOW_TESTS=1 every input is tried with every option: some 1,000 commands, and 900 of trainings, exports, services.
COMMANDS=3/10 makes it the third tenth of them, so that they can be done in parts.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.paths import REPOSITORY
from tests.robustness import cases, framework_cases

SLOW = pytest.mark.skipif(not os.environ.get("SLOW_TESTS"), reason="many minutes: set SLOW_TESTS=1")
PART, PARTS = map(int, os.environ.get("COMMANDS", "1/1").split("/"))
SECONDS = 10
CODES = {0, 1, 2, 3, 4}
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f]")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def outcomes(lines: str, folder: Path, photo: Path, *modules: str) -> list[dict[str, Any]]:
    folder /= "work"  # the results go beside it: the next command must not find them
    folder.mkdir()
    cases.make_folder(folder, photo)
    if modules:
        framework_cases.make_folder(folder)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for name in ("UNET_EDGE_TRACEBACK", "PETS_DIR"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "tests.robustness.commands", str(folder), *modules]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, cwd=REPOSITORY, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return list(map(json.loads, done.stdout.splitlines()))


def faults(outcome: dict[str, Any]) -> list[str]:
    """What is wrong with how a command ended; empty if all is well."""
    errors = outcome["stderr"]
    found = []
    if outcome["code"] not in CODES:
        found.append(f"exit code {outcome['code']}")
    for word in ("Traceback", "internal error", "Exception ignored"):
        if word in errors:
            found.append(word)
    if outcome["code"] != 0 and not errors.strip():
        found.append("fails without a word")
    if outcome["processor"] > SECONDS or outcome["clock"] > 20 * SECONDS:
        found.append(f"took {outcome['processor']:.0f} s, {outcome['clock']:.0f} s of the clock")
    printed = outcome["stderr"] + ("" if "-" in outcome["words"][1:] else outcome["stdout"])
    if CONTROLS.search(printed):
        found.append("control characters")
    if max(map(len, errors.splitlines()), default=0) > 20_000:
        found.append("a line without end")
    return found


def part(every: Iterator[cases.Case]) -> str:
    return cases.to_lines(islice(every, PART - 1, None, PARTS))


def check(lines: str, folder: Path, photo: Path, *modules: str) -> list[dict[str, Any]]:
    ended = outcomes(lines, folder, photo, *modules)
    assert len(ended) == lines.count("\n")
    problems = []
    for outcome in ended:
        if wrong := faults(outcome):
            problems.append(f"{outcome['words']!r}: {', '.join(wrong)}\n{outcome['stderr'][-600:]}")
    assert not problems, f"{len(problems)} of {len(ended)}:\n" + "\n".join(problems)
    return ended


def test_every_input_and_every_option_once(tmp_path: Path, sample_photo: Path) -> None:
    ended = check(cases.to_lines(cases.sample()), tmp_path, sample_photo)
    assert len(ended) > 150
    done = {outcome["words"][-1] for outcome in ended if outcome["code"] == 0}
    assert {f"names/{name}" for name in cases.ODD_NAMES} <= done
    assert {"names", "names/My photos [2024]/*.jpg", "names/**/*.jpg", "links/**/*.jpg", "case"} <= done


@SLOW
def test_every_input_with_every_option(tmp_path: Path, sample_photo: Path) -> None:
    check(part(cases.all_cases()), tmp_path, sample_photo)


def test_some_commands_that_load_a_framework(tmp_path: Path, sample_photo: Path) -> None:
    pytest.importorskip("tensorflow")
    ended = check(cases.to_lines(framework_cases.sample()), tmp_path, sample_photo, "keras")
    assert len(ended) > 20
    served = [outcome for outcome in ended if "stop" in outcome]
    assert [outcome["code"] for outcome in served] == [0] * len(served)


@SLOW
def test_every_command_that_loads_a_framework(tmp_path: Path, sample_photo: Path) -> None:
    pytest.importorskip("tensorflow")
    ended = check(part(framework_cases.all_cases()), tmp_path, sample_photo, "keras")
    assert len(ended) > 500 / PARTS
    assert not (tmp_path / "work" / "gotcha").exists()
