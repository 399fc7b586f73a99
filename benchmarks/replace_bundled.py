"""Replace the bundled model by another training's: check the exported files, copy them, write down their names.

    unet-export MODEL.keras --data $PETS_DIR --formats onnx-float16-weights,onnx-int8,tflite-int8 --output FOLDER
    python benchmarks/replace_bundled.py MODEL.keras FOLDER

A network whose float32 file stays below 12 MB may have the format onnx in place of onnx-float16-weights. The pages that
name the files are printed, with what they say of the model they have to be read anew.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from unet_runtime.core.artifact import read_artifact

REPOSITORY = Path(__file__).parents[1]
LARGEST = 12e6
"""Bytes of a file that every wheel carries, at most."""

FLOATS = ("float32", "float16-weights")
"""Precisions that the float file may have: both compute in float32."""


class Places(NamedTuple):
    """Where the bundled model is in a copy of the repository."""

    models: Path
    weights: Path
    names: Path
    """The module that names the files."""
    page: Path
    """The page whose lines, which a test types, name the model."""


def places(repository: Path) -> Places:
    runtime = repository / "runtime/unet_runtime"
    weights = repository / "training/unet_training/weights"
    return Places(runtime / "models", weights, runtime / "engines/base.py", repository / "docs/serving.md")


def chosen(keras: Path, folder: Path) -> dict[str, Path]:
    """The three files of an export by what they are: ``float``, ``int8.onnx``, ``int8.tflite``.

    Raises SystemExit, saying what is wrong with them.
    """
    digest = read_artifact(keras).spec.provenance.weights_sha256
    found: dict[str, Path] = {}
    for path in sorted([*folder.glob("*.onnx"), *folder.glob("*.tflite")]):
        spec = read_artifact(path).spec
        is_float = spec.precision in FLOATS and path.suffix == ".onnx"
        kind = "float" if is_float else f"{spec.precision}{path.suffix}"
        if kind not in ("float", "int8.onnx", "int8.tflite") or ".int8-finer." in path.name:
            continue
        if path.stat().st_size >= LARGEST:
            print(f"left out: {path.name} has {path.stat().st_size:,} bytes, fewer than {LARGEST:,.0f} are bundled")
            continue
        if spec.provenance.weights_sha256 != digest:
            sys.exit(f"{path}: made of other weights than {keras}: export it again")
        if kind not in found or spec.precision == FLOATS[0]:
            found[kind] = path
    missing = {"float", "int8.onnx", "int8.tflite"} - found.keys()
    if missing:
        sys.exit(f"{folder}: no {', '.join(sorted(missing))} that may be bundled, see --help for the formats")
    return found


def replace(keras: Path, files: dict[str, Path], target: Places) -> None:
    """Put the files in place of those that are bundled, and name them in the runtime."""
    text = target.names.read_text(encoding="utf-8")
    spec = read_artifact(files["float"]).spec
    stem = files["float"].name.removesuffix(f".{spec.precision}.onnx")
    found = re.search(r'^_NAME = "(.*)-\w+"$', text, flags=re.MULTILINE)  # the rest is the size
    assert found is not None, f"{target.names}: no line _NAME"
    before = found[1]
    for name, value in (("_NAME", stem), ("_FLOAT", spec.precision)):
        text, count = re.subn(rf'^{name} = ".*"$', f'{name} = "{value}"', text, flags=re.MULTILINE)
        assert count == 1, f"{target.names}: {count} lines {name} = ..., expected one"
    page = target.page.read_text(encoding="utf-8")
    page = re.sub(rf"\b{re.escape(before)}\b", spec.name, page)
    for old in (*target.models.glob("*.onnx"), *target.models.glob("*.tflite"), target.weights / f"{before}.keras"):
        old.unlink()
    for path in files.values():
        shutil.copyfile(path, target.models / path.name)
    shutil.copyfile(keras, target.weights / f"{spec.name}.keras")
    target.names.write_text(text, encoding="utf-8")
    target.page.write_text(page, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL.keras", help="the trained model")
    parser.add_argument("folder", type=Path, help="what unet-export made of it, every gate passed")
    parser.add_argument("--repository", type=Path, default=REPOSITORY, help="a copy of this repository")
    options = parser.parse_args()
    target = places(options.repository)
    before = [path.name for path in (*target.models.glob("*.onnx"), *target.weights.glob("*.keras"))]
    replace(options.model, chosen(options.model, options.folder), target)
    for path in (*sorted(target.models.iterdir()), *sorted(target.weights.iterdir())):
        print(f"{path.stat().st_size:12,}  {path.relative_to(options.repository)}")
    stale = "|".join(sorted({re.escape(name.partition(".")[0]) for name in before}))
    print("\nStill named, of the model before:", flush=True)
    pages = ["--", "*.md", "*.py", ":!CHANGELOG.md"]
    subprocess.run(["git", "-C", str(options.repository), "grep", "-nE", stale, *pages], check=False)


if __name__ == "__main__":
    main()
