"""unet-info: what a model file says about itself, what this machine can run, what is missing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from unet_runtime import __version__
from unet_runtime.cli import exits, machine
from unet_runtime.cli.shared import (
    PATH,
    GroupedCommand,
    PathName,
    echo,
    option_group,
    overwrite_option,
    refuse_model,
    setup_logging,
    verbosity,
    verify_key_option,
)
from unet_runtime.core.artifact import read_artifact, read_saved_model_spec
from unet_runtime.core.errors import MODEL, OK, ModelFileError
from unet_runtime.core.files import is_stream, write_text
from unet_runtime.core.install import pip_command
from unet_runtime.core.spec import InputSpec, ModelSpec, OutputSpec
from unet_runtime.core.text import to_json
from unet_runtime.engines import ENGINES, MODELS, Choice, choose, readers
from unet_runtime.io.kind import STAMP_KEY
from unet_runtime.io.places import Places

logger = logging.getLogger(__name__)

_COLOURS = {"rgb": "RGB", "bgr": "BGR", "grey": "grey"}
_FITS = {
    "stretch": "a photo of any size is stretched to it",
    "letterbox": "a photo of any size is fitted into it, its aspect ratio kept, the rest black",
    "crop": "a photo of any size is covered with tiles of it, at its own scale",
}

_EXAMPLES = """\b
Examples:
  unet-info                          this machine, and the bundled models
  unet-info model.onnx               one model file, and which engine here runs it
  unet-info --json -o machine.json   the same for programs, in a file"""


@click.command(cls=GroupedCommand, epilog=_EXAMPLES)
@click.argument("models", nargs=-1, type=PATH, metavar="[MODEL]...")
@option_group(
    "Results",
    click.option("-o", "--output", type=PathName(dir_okay=False), help="Write to this file instead."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text."),
    overwrite_option,
)
@option_group("Trust", verify_key_option)
@verbosity
@click.version_option(__version__)
def command(
    models: tuple[Path, ...],
    output: Path | None,
    as_json: bool,
    overwrite: bool,
    verify_key: Path | None,
    verbosity: int | None,
) -> int:
    """Describe MODELs (default: the bundled ones), and what this machine can run.

    Each engine that is installed is tried: where the text says that it runs, it has just run.
    """
    setup_logging(verbosity)
    if output is not None:
        refuse_model("--output", output, models)
        if not is_stream(output):
            Places(models, overwrite=overwrite, command="unet-info").check(output)
    if verify_key is not None and not models:
        raise click.UsageError("--verify-key without MODEL: the bundled ones are part of the package, and unsigned.")
    described = [_describe(path, verify_key) for path in models or sorted(MODELS.glob("*.*"))]
    engines = machine.engine_states()
    report = _report(described, engines) if as_json else None
    text = "\n".join(_lines(described, engines)) if report is None else to_json(report, default=asdict)
    if output is None:
        echo(text)
    else:
        write_text(output, text + "\n")
    code = OK
    for entry in described:
        if "error" in entry:
            logger.error("%s", entry["error"])
            code = MODEL
    return code


def _describe(path: Path, verify_key: Path | None) -> dict[str, Any]:
    """Path, spec, size and digest of a model, and whose key signed it; or path and error."""
    signed_by = None
    try:
        if path.is_dir() and verify_key is not None:
            raise ModelFileError(f"{path}: is a folder, --verify-key checks a model file: model_signing checks folders")
        if path.is_dir():
            spec, digest = read_saved_model_spec(path), None
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        else:
            artifact = read_artifact(path)
            spec, digest = artifact.spec, artifact.digest
            size = len(artifact.content)
            if verify_key is not None:
                from unet_runtime.core.signature import check_signature  # few ask for it

                key = check_signature(artifact, verify_key)
                signed_by = key and key.fingerprint
    except ModelFileError as error:
        return {"path": str(path), "error": str(error)}
    return {"path": str(path), "bytes": size, "sha256": digest, "undamaged": True, "signed_by": signed_by, "spec": spec}


def _report(described: list[dict[str, Any]], engines: list[machine.EngineState]) -> dict[str, Any]:
    """What --json prints; its dataclasses become objects."""
    choice = _default(engines)
    return {
        STAMP_KEY: "unet-info",
        "version": __version__,
        "machine": machine.description(),
        "models": described,
        "engines": engines,
        "extras": machine.extras(),
        "default_engine": choice.engine if choice else None,
        "default_model": str(choice.model) if choice else None,
        "default_reason": choice.why if choice else None,
    }


def _lines(described: list[dict[str, Any]], engines: list[machine.EngineState]) -> Iterator[str]:
    yield from (f"unet-edge-runtime {__version__}: {_summary(engines)}", "")
    here = machine.description()
    yield f"{here['processor']}, {here['usable_cores']} cores to use, {here['system']}, Python {here['python']}"
    for entry in described:
        yield from ("", entry["path"])
        if "spec" in entry:
            yield from _model_lines(entry, engines)
        else:
            yield "  unusable"
    yield from ("", "What runs here")
    for engine in engines:
        yield from _engine_lines(engine)
    yield from ("", "For single features")
    for extra in machine.extras():
        yield f"  {extra.name:9} {'installed' if extra.installed else extra.install} ({extra.purpose})"


def _model_lines(entry: dict[str, Any], engines: list[machine.EngineState]) -> Iterator[str]:
    spec: ModelSpec = entry["spec"]
    digest = f" (SHA-256 {entry['sha256'][:12]}...)" if entry["sha256"] else ""
    rows = {
        "runs on": _engines_for(Path(entry["path"]), engines),
        "model": f"{spec.name}, architecture {spec.architecture}, {spec.precision}",
        "file": f"{entry['bytes'] / 1e6:.1f} MB, undamaged{digest}",
        "signed by": f"the key {entry['signed_by']}" if entry["signed_by"] else "",
        "input": f"{_size(spec.input)}, {_COLOURS[spec.input.channels]}: {_FITS[spec.input.fit]}",
        "output": f"{_size(spec.output)}, {spec.output.activation}",
        "classes": ", ".join(f"{known.name} ({known.role})" for known in spec.classes),
        "trained on": spec.provenance.data or "not recorded",
        "measured": _metrics(spec) or "not recorded",
        "integers": _quantization(spec),
        "without": _optimizers(spec),
        "licence": spec.license,
    }
    for title, text in rows.items():
        if text:
            yield f"  {title:11}{text}"


def _size(grid: InputSpec | OutputSpec) -> str:
    return f"{grid.width}x{grid.height} pixels"


def _optimizers(spec: ModelSpec) -> str:
    names = ", ".join(spec.disabled_optimizers)
    return f"{names}: graph optimizers of ONNX Runtime that get this file wrong" if names else ""


def _metrics(spec: ModelSpec) -> str:
    """``mean IoU 0.7613 (pet 0.8365, ...) on 2922 test photos, in float32``; empty if there are none."""
    metrics = spec.provenance.metrics
    if "mean_iou" not in metrics:
        return ""
    text = f"mean IoU {metrics['mean_iou']:.4f}"
    if "iou" in metrics:
        text += f" ({', '.join(f'{name} {value:.4f}' for name, value in metrics['iou'].items())})"
    if "photos" in metrics:
        text += f" on {metrics['photos']} {metrics.get('split', '')} photos"
    return f"{text}, in float32"


def _quantization(spec: ModelSpec) -> str:
    """``method minmax, photos 200, ...``: how the file's integers were chosen; empty for a float file."""
    settings = spec.provenance.quantization
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items() if value)


def _engines_for(path: Path, engines: list[machine.EngineState]) -> str:
    able = readers(path.suffix)
    if not able:
        return "no engine of this package: unet-export makes .onnx and .tflite files"
    running = []
    for engine in engines:
        if engine.name in able and engine.running:
            running.append(f"{engine.name} ({', '.join(engine.running)})")
    return ", ".join(running) or f"nothing yet: {pip_command(ENGINES[able[0]].extra)}"


def _engine_lines(engine: machine.EngineState) -> Iterator[str]:
    if not engine.installed:
        yield f"  {engine.name:9} not installed: {engine.install}"
        return
    title = "installed, but broken"
    for state in engine.devices:
        title = state.engine or title
    yield f"  {engine.name:9} {title}, reads {', '.join(engine.reads)}, {engine.threads} threads"
    for state in engine.devices:
        verdict = {True: "runs", False: "does not run", None: "not tried"}[state.runs]
        yield f"    {state.device:9}{verdict}{f': {state.reason}' if state.reason else ''}"


def _default(engines: list[machine.EngineState]) -> Choice | None:
    """What unet-run takes if no option says otherwise; None where no engine is installed."""
    names = [engine.name for engine in engines if engine.installed]
    return choose(names) if names else None


def _summary(engines: list[machine.EngineState]) -> str:
    choice = _default(engines)
    if choice is None:
        smallest = pip_command("tflite")
        return f"No engine is installed, so nothing runs yet. The smallest, for a Raspberry Pi: {smallest}"
    (state,) = (engine for engine in engines if engine.name == choice.engine)
    if not state.running:
        return f"unet-run takes {choice.engine}, which does not run: see below, or name another one with --backend"
    device = "cuda" if "cuda" in state.running else "cpu"
    return (
        f"unet-run takes {choice.engine} on {device} with {choice.model.name} if no option says otherwise: {choice.why}"
    )


def main() -> None:
    exits.stop_once()
    exits.run(command)
