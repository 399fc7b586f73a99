"""What this machine can run, found out by running it: each engine in a process of its own.

The process is needed because a broken engine may end it: a wheel built for another processor raises an illegal
instruction, which no Python code can catch.

    python -m unet_runtime.cli.machine ENGINE    what the process does: it prints one line of JSON per device
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass

from unet_runtime import engines
from unet_runtime.bench.children import describe_end
from unet_runtime.bench.machine import processor
from unet_runtime.core.cores import usable_cores
from unet_runtime.core.install import pip_command

_SECONDS = 120
"""After that time an engine counts as hanging: the slowest opens a model in seconds on a Raspberry Pi."""

_NOT_TRIED = (
    "its libraries load, but it is not tried here: it builds its engine for minutes when a model is first used "
    "(unet-run --device tensorrt)"
)

EXTRAS = {
    "video": ("cv2", "cameras and video files; the extra window can show them in a window, too"),
    "coco": ("pycocotools", "compressed RLE in JSON results"),
    "bench": ("matplotlib", "the plot of unet-bench"),
}
"""Extra -> (module it brings, what that is for)."""


@dataclass(frozen=True)
class DeviceState:
    """Whether an engine runs on a device."""

    device: str
    """``cpu``, ``cuda`` or ``tensorrt``."""
    runs: bool | None
    """True: a model was run on it just now. None: not tried."""
    reason: str = ""
    """Why it does not run and what to do, or what of the model it leaves to the CPU."""
    engine: str = ""
    """``ONNX Runtime 1.31.1``, where it runs."""


@dataclass(frozen=True)
class EngineState:
    """Whether an engine is installed, and where it runs."""

    name: str
    """``onnx``, ``tflite`` or ``openvino``."""
    reads: tuple[str, ...]
    """Suffixes of the model files that it reads."""
    installed: bool
    install: str
    """The pip command that installs it."""
    threads: int
    """Threads that it uses if --threads does not say."""
    devices: tuple[DeviceState, ...] = ()

    @property
    def running(self) -> list[str]:
        """Devices that it runs on."""
        return [state.device for state in self.devices if state.runs]


@dataclass(frozen=True)
class ExtraState:
    """Whether a library that one feature needs is installed."""

    name: str
    purpose: str
    installed: bool
    install: str


def engine_states() -> list[EngineState]:
    """Every engine that unet-edge knows; those that are installed are tried (about a second each)."""
    states = []
    for name, engine in engines.ENGINES.items():
        installed = engines.installed(name)
        devices = tuple(_try_apart(name)) if installed else ()
        install = pip_command(engine.extra)
        states.append(EngineState(name, engine.suffixes, installed, install, engine.default_threads(), devices))
    return states


def extras() -> list[ExtraState]:
    """The libraries that single features need; none is imported."""
    states = []
    for name, (module, purpose) in EXTRAS.items():
        installed = importlib.util.find_spec(module) is not None
        states.append(ExtraState(name, purpose, installed, pip_command(name)))
    return states


def description() -> dict[str, str | int]:
    """The machine in words, as bug reports need it."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "python": platform.python_version(),
        "logical_cores": os.cpu_count() or 1,
        "usable_cores": usable_cores(),
    }


def _try_apart(name: str) -> list[DeviceState]:
    """Try an engine's devices in another process; where that ends early, the remaining devices do not run."""
    command = [sys.executable, "-m", "unet_runtime.cli.machine", name]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
        output = done.stdout
        end = f"its process ended early: {describe_end(done.returncode, done.stderr.decode(errors='replace'))}"
        if done.returncode < 0:
            end += ": is its wheel made for this processor?"
    except subprocess.TimeoutExpired as error:
        output, end = error.stdout or b"", f"it hangs: no result in {_SECONDS} s"
    states = {}
    for line in output.decode(errors="replace").splitlines():
        if line.startswith('{"device"'):
            state = DeviceState(**json.loads(line))
            states[state.device] = state
    for device in engines.ENGINES[name].devices:
        states.setdefault(device, DeviceState(device, False, end))
    return list(states.values())


def _try(name: str, device: engines.Device) -> DeviceState:
    """Run the bundled model once."""
    import numpy as np

    from unet_runtime.core.errors import UnetRuntimeError
    from unet_runtime.segmenter import Segmenter

    try:
        slow_start = engines.ENGINES[name].slow_start
        if device in slow_start:
            engines.import_engine(name)
            reason = slow_start[device]()
            return DeviceState(device, False if reason else None, reason or _NOT_TRIED)
        segmenter = Segmenter(backend=name, device=device)
        size = segmenter.spec.input
        segmenter.infer(np.zeros((1, size.height, size.width, 3), np.uint8))
        return DeviceState(device, True, segmenter.backend.note, segmenter.backend.engine)
    except UnetRuntimeError as error:
        return DeviceState(device, False, str(error).removeprefix(f"device {device}: "))


def main(name: str) -> None:
    for device in engines.ENGINES[name].devices:
        print(json.dumps(asdict(_try(name, device))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
