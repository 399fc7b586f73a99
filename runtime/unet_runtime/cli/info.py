"""unet-info: what a model file says of itself, what this machine can run, what is missing."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from unet_runtime import __version__
from unet_runtime.cli import exits, machine
from unet_runtime.core.artifact import read_artifact, read_saved_model_spec
from unet_runtime.core.errors import ModelFileError
from unet_runtime.core.spec import ModelSpec
from unet_runtime.engines import MODELS, install_hint

_FITS = {
    "stretch": "a photo of any size is stretched to it",
    "letterbox": "a photo of any size is fitted into it, its aspect ratio kept, the rest black",
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("models", nargs=-1, type=click.Path(path_type=Path), metavar="[MODEL]...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
@click.version_option(__version__)
def command(models: tuple[Path, ...], as_json: bool) -> int:
    """Say what MODELs are (default: the bundled ones), and what this machine can run.

    Each engine that is installed is tried: what is said to run has just run.
    """
    paths = models or tuple(sorted(MODELS.glob("*.*")))
    about = [_read(path) for path in paths]
    engines = machine.engine_states()
    if as_json:
        click.echo(json.dumps(_report(about, engines), ensure_ascii=False))
    else:
        click.echo("\n".join(_text(about, engines)))
    failed = [entry["error"] for entry in about if "error" in entry]
    for message in failed:
        click.echo(f"error: {message}", err=True)
    return exits.MODEL if failed else exits.OK


def _read(path: Path) -> dict[str, Any]:
    """Path, spec, size and digest of a model; or path and error."""
    try:
        if path.is_dir():
            files = [file for file in path.rglob("*") if file.is_file()]
            return {
                "path": str(path),
                "bytes": sum(file.stat().st_size for file in files),
                "sha256": None,
                "undamaged": True,
                "spec": read_saved_model_spec(path),
            }
        artifact = read_artifact(path)
    except ModelFileError as error:
        return {"path": str(path), "error": str(error)}
    return {
        "path": str(path),
        "bytes": len(artifact.content),
        "sha256": artifact.digest,
        "undamaged": True,
        "spec": artifact.spec,
    }


def _report(about: list[dict[str, Any]], engines: list[machine.EngineState]) -> dict[str, Any]:
    """What --json prints."""
    name = _automatic(engines)
    return {
        "version": __version__,
        "machine": machine.description(),
        "models": [{**entry, "spec": asdict(entry["spec"])} if "spec" in entry else entry for entry in about],
        "engines": [asdict(engine) for engine in engines],
        "extras": [asdict(extra) for extra in machine.extras()],
        "default_engine": name,
    }


def _text(about: list[dict[str, Any]], engines: list[machine.EngineState]) -> list[str]:
    here = machine.description()
    lines = [
        f"unet-edge-runtime {__version__}, Python {here['python']}, {here['system']}",
        f"{here['processor']}, {here['usable_cores']} cores to use",
    ]
    for entry in about:
        lines += ["", *(_model_lines(entry, engines) if "spec" in entry else [f"{entry['path']}", "  unusable"])]
    lines += ["", "What runs here"]
    for engine in engines:
        lines += _engine_lines(engine)
    lines += ["", *_summary(engines), "", "For single features"]
    for extra in machine.extras():
        lines.append(f"  {extra.name:9} {'installed' if extra.installed else extra.install} ({extra.purpose})")
    return lines


def _model_lines(entry: dict[str, Any], engines: list[machine.EngineState]) -> list[str]:
    spec: ModelSpec = entry["spec"]
    digest = f" (SHA-256 {entry['sha256'][:12]}...)" if entry["sha256"] else ""
    rows = {
        "model": f"{spec.name}, architecture {spec.architecture}, {spec.precision}",
        "file": f"{entry['bytes'] / 1e6:.1f} MB, undamaged{digest}",
        "input": f"{spec.input.width}x{spec.input.height} pixels, RGB: {_FITS[spec.input.fit]}",
        "output": f"{spec.output.width}x{spec.output.height} pixels, {spec.output.activation}",
        "classes": ", ".join(f"{entry.name} ({entry.role})" for entry in spec.classes),
        "trained on": spec.provenance.data or "not recorded",
        "measured": _metrics(spec) or "not recorded",
        "integers": _quantization(spec),
        "licence": spec.license,
        "runs on": _engines_for(Path(entry["path"]), engines),
    }
    return [entry["path"], *(f"  {name:11}{text}" for name, text in rows.items() if text)]


def _metrics(spec: ModelSpec) -> str:
    """``mean IoU 0.7613 (pet 0.8365, ...) on 2922 test photos, in float32``."""
    metrics = spec.provenance.metrics
    if "mean_iou" not in metrics:
        return ""
    each = ", ".join(f"{name} {value:.4f}" for name, value in metrics.get("iou", {}).items())
    photos = f" on {metrics['photos']} {metrics.get('split', '')} photos" if "photos" in metrics else ""
    return f"mean IoU {metrics['mean_iou']:.4f}{f' ({each})' if each else ''}{photos}, in float32"


def _quantization(spec: ModelSpec) -> str:
    """``method minmax, photos 200, ...``: what the file's integers were chosen by; empty for a float file."""
    return ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in spec.provenance.quantization.items() if value
    )


def _engines_for(path: Path, engines: list[machine.EngineState]) -> str:
    able = [engine for engine in engines if path.suffix in engine.reads]
    if not able:
        return "no engine of this package: unet-export makes .onnx and .tflite files"
    running = [
        f"{engine.name} ({', '.join(state.device for state in engine.devices if state.runs)})"
        for engine in able
        if any(state.runs for state in engine.devices)
    ]
    return ", ".join(running) or f"nothing yet: {able[0].install}"


def _engine_lines(engine: machine.EngineState) -> list[str]:
    if not engine.installed:
        return [f"  {engine.name:9} not installed: {engine.install}"]
    title = next((state.engine for state in engine.devices if state.engine), "installed, but broken")
    lines = [f"  {engine.name:9} {title}, reads {', '.join(engine.reads)}, {engine.threads} threads"]
    for state in engine.devices:
        answer = {True: "runs", False: "does not run", None: "not tried"}[state.runs]
        lines.append(f"    {state.device:9}{answer}{f': {state.reason}' if state.reason else ''}")
    return lines


def _automatic(engines: list[machine.EngineState]) -> str | None:
    """The engine that unet-run takes if no option says otherwise."""
    return next((engine.name for engine in engines if engine.installed), None)


def _summary(engines: list[machine.EngineState]) -> list[str]:
    name = _automatic(engines)
    if name is None:
        return [
            f"No engine is installed, so nothing runs yet. The smallest, for a Raspberry Pi: {install_hint('tflite')}"
        ]
    chosen = next(engine for engine in engines if engine.name == name)
    running = [state.device for state in chosen.devices if state.runs]
    if not running:
        return [f"unet-run takes {name}, which does not run: see above, or name another one with --backend"]
    return [f"unet-run takes {name} on {'cuda' if 'cuda' in running else 'cpu'} if no option says otherwise"]


def main() -> None:
    exits.run(command)
