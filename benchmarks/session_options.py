"""What each of ONNX Runtime's session options brings: the table of docs/devices.md.

    python benchmarks/session_options.py [--rounds 9] [--runs 40]

Each row is a process of its own, rounds in turn; medians. "load" opens the session, "first" is its first run, "run"
the median of the following ones back to back, "CPU" the processor time of one run that follows a pause of 15 ms (what
a camera's loop pays), "peak" the process' memory after all of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from operator import itemgetter
from pathlib import Path
from typing import Any

from unet_runtime.engines.base import FLOAT_ONNX

PAUSE = 0.015

ROWS = (
    "as unet-run",
    "engine's defaults",
    "spinning goes on",
    "no spinning",
    "no memory pattern",
    "no memory arena",
    "optimisation: extended",
    "optimisation: basic",
    "opened by path",
    "optimised file, cached",
    "optimised file, cached, .ort",
)


def options_of(row: str) -> Any:
    import onnxruntime as ort

    from unet_runtime.engines.onnxruntime_cpu import session_options

    options = ort.SessionOptions() if row == "engine's defaults" else session_options(None)
    levels = ort.GraphOptimizationLevel
    if row == "spinning goes on":
        options.add_session_config_entry("session.force_spinning_stop", "0")
    elif row == "no spinning":
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    elif row == "no memory pattern":
        options.enable_mem_pattern = False
    elif row == "no memory arena":
        options.enable_cpu_mem_arena = False
    elif row.startswith("optimisation"):
        options.graph_optimization_level = levels.ORT_ENABLE_BASIC if "basic" in row else levels.ORT_ENABLE_EXTENDED
    elif row.startswith("optimised"):
        options.graph_optimization_level = levels.ORT_DISABLE_ALL
    return options


def optimise(folder: Path) -> None:
    """Write the optimised model that two rows open."""
    import onnxruntime as ort

    for suffix in (".onnx", ".ort"):
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(folder / f"optimised{suffix}")
        if suffix == ".ort":
            options.add_session_config_entry("session.save_model_format", "ORT")
        ort.InferenceSession(str(FLOAT_ONNX), options, providers=["CPUExecutionProvider"])


def measure(row: str, folder: Path, runs: int) -> dict[str, float]:
    import resource

    import numpy as np
    import onnxruntime as ort

    options = options_of(row)
    file = (
        folder / f"optimised{'.ort' if row.endswith('.ort') else '.onnx'}"
        if row.startswith("optimised")
        else FLOAT_ONNX
    )
    start = time.perf_counter()
    source = str(file) if row == "opened by path" else file.read_bytes()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    if row != "engine's defaults":  # as open_session does
        session._model_bytes = None
        del source
    loaded = time.perf_counter()
    feed = {"image": np.random.default_rng(0).integers(0, 256, (1, 160, 160, 3), np.uint8)}
    session.run(None, feed)
    first = time.perf_counter()
    taken = []
    for _ in range(runs):
        begin = time.perf_counter()
        session.run(None, feed)
        taken.append(time.perf_counter() - begin)
    time.sleep(0.2)
    used = time.process_time()
    for _ in range(runs):
        session.run(None, feed)
        time.sleep(PAUSE)
    used = time.process_time() - used
    return {
        "load": (loaded - start) * 1e3,
        "first": (first - loaded) * 1e3,
        "run": statistics.median(taken) * 1e3,
        "CPU": used / runs * 1e3,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--row", nargs=2, metavar=("NAME", "FOLDER"), help="measure one row in this process")
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measure(options.row[0], Path(options.row[1]), options.runs)))
        return
    found: dict[str, list[dict[str, float]]] = {row: [] for row in ROWS}
    with tempfile.TemporaryDirectory() as folder:
        optimise(Path(folder))
        for _ in range(options.rounds):
            for row, values in found.items():
                command = [sys.executable, __file__, "--row", row, folder, "--runs", str(options.runs)]
                values.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    print("| option | load ms | first ms | run ms | CPU ms a run, paused | peak MB |\n|---|---:|---:|---:|---:|---:|")
    for row, values in found.items():
        line = f"| {row} |"
        for key in ("load", "first", "run", "CPU", "peak"):
            line += f" {statistics.median(map(itemgetter(key), values)):.1f} |"
        print(line)


if __name__ == "__main__":
    main()
