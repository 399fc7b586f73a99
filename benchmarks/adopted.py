"""Adopt every model of ``benchmarks/torch_models.py`` and prove it: a line for each, as in docs/results.md.

python benchmarks/adopted.py exported
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from unet_export.adopt.adopt import Evidence, adopt
from unet_export.adopt.describe import Choices
from unet_export.foreign.load import parse_classes
from unet_export.formats.onnx_model import load_onnx
from unet_runtime.core.errors import UnetRuntimeError

IMAGENET = {"channels": "rgb", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def choices(name: str) -> Choices:
    """What a user would type."""
    classes = parse_classes("background,a" if name.endswith("mask") else "background,a,b,c")
    if name.endswith("grey"):
        return Choices(classes=classes, range=(0.0, 1.0))
    return Choices(classes=classes, range=(0.0, 1.0), **IMAGENET)  # type: ignore[arg-type]


def line(path: Path, folder: Path) -> str:
    """A row of the table."""
    try:
        made = adopt(path, choices(path.stem), folder, Evidence(reference=path.with_suffix(".npz")))
        model, spec = load_onnx(made.path)
        picture = np.random.default_rng(0).integers(0, 256, (1, spec.input.height, spec.input.width, 3), np.uint8)
        import onnxruntime

        session = onnxruntime.InferenceSession(model.graph.SerializeToString(), providers=["CPUExecutionProvider"])
        again = np.abs(session.run(["probabilities"], {"image": picture})[0] - model.predict(picture)).max()
    except UnetRuntimeError as error:
        return f"| {path.stem} | refused: {error} | | | |"
    engines = {proof.result.backend: f"{proof.raw:.1e}" for proof in made.proofs}
    output = made.spec.output
    kind = f"{output.kind}, {'logits' if output.logits else output.activation}"
    return f"| {path.stem} | {kind} | {engines.get('onnx', '')} | {engines.get('openvino', '')} | {again:.1e} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    print("| model | output | ONNX Runtime | OpenVINO | rewritten |\n|---|---|---|---|---|")
    for path in sorted(options.folder.glob("*.onnx")):
        with tempfile.TemporaryDirectory() as folder:
            print(line(path, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
