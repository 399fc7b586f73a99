"""The bundled model made hard on purpose: plainly exported, and with ``--repair auto``.

    python -m benchmarks.repair --data $PETS_DIR [--output artifacts/hard] [--decades 5] [--parity-count 128]

The hard model computes the same in float32, through channels whose ranges differ by up to 10^DECADES: what int8 cannot
hold side by side. Writes it to OUTPUT/hard.keras; prints the gate's table of both exports.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import bundled

from tests.helpers.hard_model import DECADES, hard_model
from unet_export.foreign.load import load_model
from unet_export.gate.gate import ParityError
from unet_export.photos import PhotoSource
from unet_export.pipeline import ExportOptions, export_model
from unet_export.report.report import table
from unet_runtime.cli.shared import setup_logging
from unet_runtime.core.artifact import write_keras


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("PETS_DIR"), help="default: PETS_DIR")
    parser.add_argument("--model", type=Path, default=bundled.KERAS)
    parser.add_argument("--output", type=Path, default=Path("artifacts/hard"))
    parser.add_argument("--decades", type=float, default=DECADES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--parity-count", type=int, default=128)
    options = parser.parse_args()
    setup_logging(None)
    if options.data is None:
        parser.error("--data or PETS_DIR: Oxford-IIIT Pet's folder")
    model, spec = load_model(options.model)
    options.output.mkdir(parents=True, exist_ok=True)
    hard = options.output / "hard.keras"
    write_keras(hard_model(model, options.seed, decades=options.decades).save, hard, spec)
    source = PhotoSource(options.data, parity_count=options.parity_count)
    for name, repair in (("plain", False), ("repaired", True)):
        print(f"\n{name}", flush=True)
        settings = ExportOptions(("onnx-int8", "tflite-int8"), repair=repair)
        try:
            results = export_model(hard, source, options.output / name, settings)
        except ParityError as error:
            results = error.results
        print(table(results), flush=True)


if __name__ == "__main__":
    main()
