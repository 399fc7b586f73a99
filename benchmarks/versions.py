"""unet-run of another checkout of this repository against today's: a cold start with each engine, and a folder.

    git worktree add ../before COMMIT
    python benchmarks/versions.py ../before [--runs 41] [--photos 300] [--rounds 5] [--onnx FILE] [--tflite FILE]

Whole processes in turn, in this Python environment, each with the sources of its checkout; ratios turn by turn.
Each runs its bundled model, or both the file that is named, which tells the code's share from the model's.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

from cold_start import PHOTO, REPOSITORY, environment, run
from folder import chosen
from turns import median_ratio, take_turns

CHECKOUTS = ("before", "today")
ENGINES = ("onnx", "tflite")


def unet_run(arguments: list[str], output: Path, variables: dict[str, str]) -> None:
    """One run into a folder that was not there before."""
    shutil.rmtree(output, ignore_errors=True)
    script = str(Path(sys.executable).with_name("unet-run"))
    run([script, *arguments, "--output-dir", str(output), "--save", "overlay,mask"], variables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="folder of the other checkout")
    parser.add_argument("--runs", type=int, default=41, help="of each cold start")
    parser.add_argument("--photos", type=int, default=300, help="in the folder, of PETS_DIR; 0: no folder")
    parser.add_argument("--rounds", type=int, default=5, help="of the folder")
    for engine in ENGINES:
        parser.add_argument(f"--{engine}", type=Path, help="model of both checkouts, instead of each one's own")
    options = parser.parse_args()
    sources = {"before": options.before / "runtime", "today": REPOSITORY / "runtime"}
    for source in sources.values():
        if not (source / "unet_runtime").is_dir():
            parser.error(f"{source}: has no unet_runtime, expected a checkout of this repository")
    with tempfile.TemporaryDirectory() as place:
        variables = environment(place)
        rows: dict[str, tuple[list[str], int]] = {}
        models = {}
        for engine in ENGINES:
            model = getattr(options, engine)
            models[engine] = ["--backend", engine] if model is None else ["--backend", engine, "--model", str(model)]
            rows[f"{engine}, one photo"] = ([str(PHOTO), *models[engine]], options.runs)
        if options.photos:
            photos = Path(place, "photos")
            photos.mkdir()
            for path in chosen(Path(os.environ["PETS_DIR"], "images"), options.photos):
                shutil.copy(path, photos)
            rows[f"onnx, {options.photos} photos"] = ([str(photos), *models["onnx"]], options.rounds)
        for name, (arguments, runs) in rows.items():
            calls = {}
            for checkout in CHECKOUTS:
                own = {**variables, "PYTHONPATH": str(sources[checkout].resolve())}
                calls[checkout] = partial(unet_run, arguments, Path(place, "out"), own)
            seconds = take_turns(calls, runs)
            medians = [f"{checkout} {statistics.median(seconds[checkout]):7.3f} s" for checkout in CHECKOUTS]
            ratio = median_ratio(seconds["today"], seconds["before"])
            print(f"{name:20} {'   '.join(medians)}   {ratio:.2f} x before", flush=True)


if __name__ == "__main__":
    main()
