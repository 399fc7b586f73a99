"""An export is there whole or not at all, however its process ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.colours import colour_spec, write_colour_model
from unet_export.staging import accept, staging_folder
from unet_runtime.core.signature import BUNDLE_TYPE

PROGRAM = """
import json, sys, time
from pathlib import Path
import click
from unet_runtime.cli import exits
from unet_export import staging

@click.command()
def command():
    output = Path(sys.argv[1])
    with staging.staging_folder(output) as folder:
        for name in ("a.onnx", "b.onnx"):
            (folder / name).write_text("new")
        (folder / "parity.json").write_text(json.dumps({"artifacts": [{"file": "a.onnx"}, {"file": "b.onnx"}]}))
        if sys.argv[2] == "accept":
            real, moved = staging.os.replace, []
            def replace(source, target):
                real(source, target)
                moved.append(target)
                if len(moved) == int(sys.argv[3]):
                    print("ready", flush=True)
                    time.sleep(60)
            staging.os.replace = replace
            staging.accept(folder, output, ["parity.json", "a.onnx", "b.onnx"])
        print("ready", flush=True)
        time.sleep(60)

exits.stop_once()
command.main = lambda **_: command.callback()
exits.run(command)
"""


def stopped(number: signal.Signals, output: Path, *words: str) -> int:
    """Exit code of an export that a signal met."""
    arguments = [sys.executable, "-c", PROGRAM, str(output), *(words or ("wait",))]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        return process.wait(60)


def left_behind(output: Path) -> list[str]:
    return [path.name for path in output.parent.iterdir() if path != output]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_nothing_behind(number: signal.Signals, code: int, tmp_path: Path) -> None:
    assert stopped(number, tmp_path / "export") == code
    assert left_behind(tmp_path / "export") == []


def test_the_next_export_clears_what_a_killed_one_left(tmp_path: Path) -> None:
    output = tmp_path / "export"
    assert stopped(signal.SIGKILL, output) == -signal.SIGKILL
    assert len(left_behind(output)) == 1
    with staging_folder(output) as folder:
        assert left_behind(output) == [folder.name]
        with staging_folder(output) as other:  # one that is alive is left alone
            assert folder.is_dir()
            assert other != folder
    assert left_behind(output) == []


@pytest.mark.parametrize("moves", range(1, 7))
def test_an_export_that_is_killed_while_it_is_accepted(moves: int, tmp_path: Path) -> None:
    """At each of its moves: what had passed is accepted by the next export, and nothing is lost."""
    output = tmp_path / "export"
    output.mkdir()
    (output / "a.onnx").write_text("old")
    (output / "mine.onnx").write_text("of another tool")
    write_colour_model(output / "old.onnx", colour_spec())
    (output / "parity.json").write_text(json.dumps({"artifacts": [{"file": "a.onnx"}, {"file": "old.onnx"}]}))
    stopped(signal.SIGKILL, output, "accept", str(moves))
    with staging_folder(output):
        pass
    assert (output / "a.onnx").read_text() == (output / "b.onnx").read_text() == "new"
    assert json.loads((output / "parity.json").read_text())["artifacts"][1] == {"file": "b.onnx"}
    assert sorted(path.name for path in output.iterdir()) == ["a.onnx", "b.onnx", "mine.onnx", "parity.json"]
    assert left_behind(output) == []


def test_a_long_name_of_a_folder(tmp_path: Path) -> None:
    output = tmp_path / ("x" * 250)
    with staging_folder(output) as folder:
        (folder / "a").write_text("a")
        accept(folder, output, ["a"])
    assert (output / "a").read_text() == "a"


def test_signatures_of_what_is_replaced_go(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And nothing else that bears such a name."""
    output = tmp_path / "out"
    output.mkdir()
    signature = json.dumps({"mediaType": BUNDLE_TYPE})
    for name in ("model.sig", "a.onnx.sig", "other.onnx.sig"):
        (output / name).write_text(signature)
    (output / "b.onnx.sig").write_text("a note")
    with staging_folder(output) as folder:
        for name in ("a.onnx", "b.onnx"):
            (folder / name).write_text("new")
        (folder / "parity.json").write_text(json.dumps({"artifacts": [{"file": "a.onnx"}, {"file": "b.onnx"}]}))
        accept(folder, output, ["a.onnx", "b.onnx", "parity.json"])
    left = sorted(path.name for path in output.iterdir())
    assert left == ["a.onnx", "b.onnx", "b.onnx.sig", "other.onnx.sig", "parity.json"]
    assert "model.sig: was the signature of what is replaced, and is gone: sign again" in caplog.text
