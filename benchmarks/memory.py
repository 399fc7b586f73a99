"""Peak memory of a whole process on one photo: unet-run against the least that does the same.

    python benchmarks/memory.py [--runs 5] [--openvino]

The kernel's own count (the largest resident set of the process, in MB of 2**20 bytes), the median of the runs. The
same commands as cold_start.py; this process stays small, because a child starts with its parent's count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

from cold_start import commands, environment

GOALS = {"onnx": 120, "tflite": 90}
"""MB, for ``unet-run PHOTO``."""

_UNIT = 1024**2 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux


def peak(command: list[str], variables: dict[str, str]) -> float:
    """MB; exits if the command fails."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=variables)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"exit code {process.returncode}: {' '.join(command)}")
    return usage.ru_maxrss / _UNIT


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--openvino", action="store_true", help="unet-run with OpenVINO, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        variables = environment(folder)
        compared = commands(folder)
        if options.openvino:
            named = compared["onnx"]["unet-run (overlay and mask)"]
            compared["openvino"] = {"unet-run (overlay and mask)": [*named[:-1], "openvino"]}
        for engine, each in compared.items():
            for name, command in each.items():
                peak(command, variables)  # compiles
                values = [peak(command, variables) for _ in range(options.runs)]
                goal = f"   goal: {GOALS[engine]} or less" if engine in GOALS and "overlay" in name else ""
                print(f"{engine:9}{name:30}{statistics.median(values):6.1f} MB   most {max(values):.1f}{goal}")


if __name__ == "__main__":
    main()
