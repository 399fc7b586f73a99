"""What each part of the recipe brings: one training per row, all of the same budget, measured on the same test photos.

    python benchmarks/ablation.py --data $PETS_DIR [--output artifacts/ablation] [--seeds 1 2] [--table]

A row is the baseline (plain cross-entropy, nothing else) with one part added; the last has them all. The budget is
the photos seen: ``--epochs`` times ``--photos``. OUTPUT/ablation.json is written after every training, and one that
is in it is not run again, one that was cut off goes on after its last epoch (its minutes are then not known): the
script may be stopped and called again. ``--table`` prints what is there so far.
The default size is the smallest at which the teacher, trained at 160x160, knows more than the students.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import bundled

from unet_runtime.core.files import write_text

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

STEP = 16  # a size is a multiple of it: the network halves four times

EVERYTHING = "all together"

ALONE = (
    "Dice",  # a recipe has one region loss
    "augmentation, zoom from 0.35",
    "augmentation, rotation 15",
    "augmentation, cut-out 0.4",
    "hard pixels 0.25",
)
"""Rows whose part is not in the last one."""

COLUMNS = ("mean IoU, validation", "mean IoU", "border IoU", "loss", "minutes", "CPU minutes")


def parts(size: int) -> dict[str, dict[str, Any]]:
    """Name of each row -> what it changes in the baseline's recipe; ``teacher`` is an argument of ``train``."""
    small = tuple(size * share // (4 * STEP) * STEP for share in (2, 3))
    each: dict[str, dict[str, Any]] = {
        "augmentation": {"augment": True},
        "augmentation, zoom from 0.35": {"augment": True, "zoom": 0.35},
        "augmentation, rotation 15": {"augment": True, "rotation": 15.0},
        "augmentation, cut-out 0.4": {"augment": True, "cut_out": 0.4},
        "hard pixels 0.25": {"hard_pixels": 0.25},
        "Dice": {"region_loss": "dice"},
        "Lovász": {"region_loss": "lovasz"},
        "border weight 2": {"border_weight": 2.0},
        "EMA 0.99": {"ema": 0.99},
        "sizes " + ", ".join(map(str, (*small, size))): {"sizes": (*small, size)},
        "distillation": {"teacher": True},
        "accumulation 2": {"accumulation": 2},
    }
    together: dict[str, Any] = {}
    for name, part in each.items():
        if name not in ALONE:
            together |= part
    return {"baseline": {}} | {f"+ {name}": part for name, part in each.items()} | {EVERYTHING: together}


def subset(data: Path, photos: int, folder: Path) -> Path:
    """The dataset with ``photos`` of its trainval photos, evenly chosen; test photos are all there."""
    if not photos:
        return data
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").symlink_to((data / "images").resolve())
    (folder / "annotations/trimaps").symlink_to((data / "annotations/trimaps").resolve())
    shutil.copy(data / "annotations/test.txt", folder / "annotations")
    lines = [line for line in (data / "annotations/trainval.txt").read_text().splitlines() if line[:1] not in ("", "#")]
    chosen = [lines[index * len(lines) // photos] for index in range(min(photos, len(lines)))]
    (folder / "annotations/trainval.txt").write_text("\n".join(chosen) + "\n")
    return folder


def run(options: argparse.Namespace, data: Path, name: str, seed: int) -> dict[str, Any] | None:
    """One training; None if it was interrupted."""
    import keras

    from unet_training.data.cache import PhotoCache
    from unet_training.fit.checkpoint import CHECKPOINT
    from unet_training.pipeline import train
    from unet_training.recipes import PRESETS

    changes = dict(parts(options.size)[name])
    teacher = options.teacher if changes.pop("teacher", False) else None
    base = {"filters": options.filters, "size": options.size, "epochs": options.epochs, "augment": False}
    recipe = replace(PRESETS["unet-small"], name="ablation", batch_size=options.batch_size, **(base | changes))
    keras.utils.clear_session()
    wall, cpu = time.perf_counter(), time.process_time()
    output = options.output / f"training-{list(parts(options.size)).index(name)}-{seed}"
    resumed = (output / CHECKPOINT).exists()
    result = train(
        recipe,
        data,
        output,
        data_name="Oxford-IIIT Pet",
        seed=seed,
        command="benchmarks/ablation.py",
        teacher=teacher,
        cache=PhotoCache(options.output / "cache"),
        resume=True,
    )
    if result.interrupted:
        return None
    shutil.rmtree(output)
    measured = result.spec.provenance.metrics
    minutes, cpu_minutes = (time.perf_counter() - wall) / 60, (time.process_time() - cpu) / 60
    return {
        "row": name,
        "seed": seed,
        "validation_mean_iou": max(result.history["val_mean_iou"]),
        "mean_iou": measured["mean_iou"],
        "border_iou": measured["iou"]["border"],
        "loss": measured["loss"],
        "minutes": None if resumed else minutes,
        "cpu_minutes": None if resumed else cpu_minutes,
        "best_epoch": measured["epoch"],
        "test_photos": measured["photos"],
        "precision": recipe.precision,
    }


def settings(options: argparse.Namespace) -> dict[str, int]:
    return {name: getattr(options, name) for name in ("size", "filters", "epochs", "photos", "batch_size")}


def read(path: Path, wanted: dict[str, int] | None) -> dict[str, Any]:
    """What was measured so far; ``wanted``: the settings it must be of."""
    if not path.exists():
        return {"settings": wanted, "rows": []}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if wanted is not None and found["settings"] != wanted:
        sys.exit(f"{path} is of {found['settings']}, this call of {wanted}: name another --output")
    return found


def table(found: dict[str, Any]) -> list[str]:
    """Markdown: means over the seeds, the spread of the mean IoU where there are several."""
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    base: list[float] = []
    for name in parts(found["settings"]["size"]):
        rows = [row for row in found["rows"] if row["row"] == name]
        if not rows:
            continue
        values = [row["mean_iou"] for row in rows]
        base = base or values
        mean = f"{statistics.mean(values):.4f}"
        if len(values) > 1:
            mean += f" ({min(values):.4f} to {max(values):.4f})"
        if name != "baseline":
            mean += f", {100 * (statistics.mean(values) - statistics.mean(base)):+.1f}"
        others = []
        for key, form in (("border_iou", ".4f"), ("loss", ".4f"), ("minutes", ".1f"), ("cpu_minutes", ".1f")):
            known = [row[key] for row in rows if row[key] is not None]
            others.append(f"{statistics.mean(known):{form}}" if known else "-")
        validated = f"{statistics.mean(row['validation_mean_iou'] for row in rows):.4f}"
        lines.append("| " + " | ".join([name, validated, mean, *others]) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("PETS_DIR"), help="default: PETS_DIR")
    parser.add_argument("--output", type=Path, default=Path("artifacts/ablation"))
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--filters", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--photos", type=int, default=1600, help="of trainval, 200 of them for validation; 0: all")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--teacher", type=Path, default=bundled.KERAS)
    parser.add_argument("--rows", nargs="+", help="names of rows, default: all")
    parser.add_argument("--table", action="store_true", help="train nothing, print the table of what is there")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="  %(message)s")
    path = options.output / "ablation.json"
    if not options.table:
        if options.data is None:
            parser.error("--data or PETS_DIR: Oxford-IIIT Pet's folder")
        measure(options, path)
    found = read(path, None)
    print(", ".join(f"{name} {value}" for name, value in (found["settings"] or {}).items()))
    print("\n".join(table(found) if found["rows"] else ["nothing measured yet"]))


def measure(options: argparse.Namespace, path: Path) -> None:
    """Every row that is not in ``path``, seed by seed, so that the first table is soon whole."""
    found = read(path, settings(options))
    options.output.mkdir(parents=True, exist_ok=True)
    data = subset(options.data, options.photos, options.output / "photos")
    for seed in options.seeds:
        for name in options.rows or parts(options.size):
            if any((row["row"], row["seed"]) == (name, seed) for row in found["rows"]):
                continue
            print(f"{name}, seed {seed}", flush=True)
            row = run(options, data, name, seed)
            if row is None:
                return
            found["rows"].append(row)
            write_text(path, json.dumps(found, indent=1))
            print(f"  mean IoU {row['mean_iou']:.4f}", flush=True)


if __name__ == "__main__":
    main()
