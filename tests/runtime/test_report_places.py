"""Reports of unet-info and unet-bench replace their own, and nothing of others."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from tests.helpers.colours import colour_model_bytes, colour_spec
from tests.helpers.convolution import convolution_spec, write_convolution
from unet_runtime.bench import plot
from unet_runtime.cli import bench, info, machine, run
from unet_runtime.cli.exits import INPUTS_FAILED, OK
from unet_runtime.core.artifact import write_saved_model_spec
from unet_runtime.core.errors import OutputError
from unet_runtime.io.stamps import is_ours, page_mark

FOREIGN = {
    "notes.txt": b"my notes on unet-edge-runtime 0.1.0",
    "data.json": b'{"version": "0.1.0"}\n',
    "label.json": b'{"shapes": [], "unet-edge": "unet-info"}\n',
    "photo.jpg": b"\xff\xd8\xff\xe0 photo",
    "bench.png": b"\x89PNG\r\n\x1a\n drawn by hand",
}


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines are not tried: that takes seconds."""
    monkeypatch.setattr(machine, "engine_states", list)


def _info(*words: object) -> Result:
    return CliRunner().invoke(info.command, list(map(str, words)), standalone_mode=False)


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_report_is_written_again(tmp_path: Path, words: tuple[str, ...]) -> None:
    path = tmp_path / "machine.txt"
    for _ in range(2):
        result = _info("-o", path, *words)
        assert (result.exception, result.return_value) == (None, OK)
    assert is_ours(path)


@pytest.mark.parametrize("name", FOREIGN)
def test_what_others_made_stays(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(FOREIGN[name])
    for result in (
        _info("-o", path),
        CliRunner().invoke(bench.command, ["-o", str(tmp_path / "out"), "--json", str(path)], standalone_mode=False),
    ):
        assert isinstance(result.exception, OutputError)
        assert result.exception.exit_code == INPUTS_FAILED
        assert "exists, and was not made by unet-" in str(result.exception)
        assert "--overwrite" in str(result.exception)
    assert path.read_bytes() == FOREIGN[name]
    assert _info("-o", path, "--overwrite").return_value == OK
    assert is_ours(path)


def test_a_plot_of_others_stays(tmp_path: Path) -> None:
    (tmp_path / "bench.png").write_bytes(FOREIGN["bench.png"])
    result = CliRunner().invoke(bench.command, ["-o", str(tmp_path)], standalone_mode=False)
    assert "bench.png: exists, and was not made by unet-bench" in str(result.exception)


@pytest.mark.parametrize("maker", ["0123456789abcdef", "unet-train", "unet-bench"])
def test_what_another_command_made_stays(tmp_path: Path, maker: str) -> None:
    path = tmp_path / "data.json"
    for content in (f'{{"unet-edge":"{maker}","images":[]}}\n', json.dumps({"unet-edge": maker, "a": 1}, indent=1)):
        path.write_text(content)
        assert is_ours(path)
        assert "exists, and was not made by unet-info" in str(_info("-o", path).exception)


def test_pages_and_folders_show_who_made_them(tmp_path: Path) -> None:
    page, folder = tmp_path / "page.html", tmp_path / "saved_model"
    page.write_text(page_mark("unet-train") + "<!DOCTYPE html>")
    assert (is_ours(page), is_ours(page, "unet-train"), is_ours(page, "unet-export")) == (True, True, False)
    folder.mkdir()
    assert not is_ours(folder)
    write_saved_model_spec(folder, convolution_spec(1))
    assert (is_ours(folder, "unet-export"), is_ours(folder, "unet-run")) == (True, False)


def test_models_show_it_by_their_spec(tmp_path: Path) -> None:
    path = write_convolution(tmp_path / "model.onnx", convolution_spec(1))
    assert is_ours(path, "unet-export")
    path.write_bytes(colour_model_bytes(colour_spec()))
    assert not is_ours(path)


@pytest.mark.skipif(not plot.available(), reason="needs matplotlib")
def test_the_plots_mark_is_found(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    Figure().savefig(tmp_path / "bench.png", format="png", metadata=plot.MARK)
    assert is_ours(tmp_path / "bench.png")


def test_an_indented_report_is_ours(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"unet-edge": "unet-train", "overall": {}}, indent=1))
    assert is_ours(path)


OUTPUT_FILES = {
    "unet_runtime.cli.info": ("-o",),
    "unet_runtime.cli.bench": ("--json",),
    "unet_runtime.cli.run": ("--coco", "--record"),
    "unet_runtime.cli.manifest:merge": ("-o",),
    "unet_training.cli.command:check": ("--html", "--json"),
    "unet_training.cli.command:evaluate": ("--json",),
    "unet_export.cli.command:bundle": ("-o",),
}
"""Options that name a file, by command."""


@pytest.mark.parametrize("end", ["/", "/.", "//"])
@pytest.mark.parametrize("place", OUTPUT_FILES)
def test_a_name_that_ends_in_a_separator_is_no_file(place: str, end: str, tmp_path: Path) -> None:
    module, _, name = place.partition(":")
    commands = pytest.importorskip(module)
    group = getattr(commands, "command", None)
    command = group.commands[name] if name and hasattr(group, "commands") else getattr(commands, name or "command")
    target = tmp_path / "result.zip"
    required = ["--platform", "linux-aarch64"] if name == "bundle" else []
    for option in OUTPUT_FILES[place]:
        words = [str(tmp_path / "absent"), *required, option, f"{target}{end}"]
        result = CliRunner().invoke(command, words, standalone_mode=False)
        assert isinstance(result.exception, click.UsageError)
        assert str(target) in result.exception.message
    assert not target.exists()


@pytest.mark.parametrize("end", ["/", "/."])
def test_a_folder_may_have_any_name(end: str, tmp_path: Path, colour_model: Path, sample_photo: Path) -> None:
    words = [str(sample_photo), "--model", str(colour_model), "--save", "mask", "-o"]
    for name in ("new.png", "film.mp4", "-"):
        result = CliRunner().invoke(run.command, [*words, f"{tmp_path / name}{end}"], standalone_mode=False)
        assert result.return_value == OK
        assert [path.name for path in (tmp_path / name).iterdir()] == ["chelsea.mask.png"]
    (tmp_path / "old.png").write_bytes(b"old")
    result = CliRunner().invoke(run.command, [*words, f"{tmp_path / 'old.png'}{end}"], standalone_mode=False)
    assert isinstance(result.exception, click.UsageError)
    assert (tmp_path / "old.png").read_bytes() == b"old"
