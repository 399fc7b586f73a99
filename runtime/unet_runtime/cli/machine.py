"""What this machine can run, found out by running it: each engine in a process of its own.

A process of its own, because an engine that is broken may take its process with it: a wheel built for another
processor dies of an illegal instruction, and no Python code can catch that.

    python -m unet_runtime.cli.machine ENGINE    what the process does: one line of JSON a device
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, replace

from unet_runtime import engines
from unet_runtime.bench.machine import processor
from unet_runtime.core import cores

_SECONDS = 120
"""After that an engine counts as hanging: the slowest one opens a model in seconds on a Raspberry Pi."""

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
    """What there is of an engine."""

    name: str
    """``onnx``, ``tflite`` or ``openvino``."""
    reads: tuple[str, ...]
    """Suffixes of the model files it takes."""
    installed: bool
    install: str
    """The pip command that installs it."""
    threads: int
    """How many it uses if --threads does not say."""
    devices: tuple[DeviceState, ...] = ()


@dataclass(frozen=True)
class ExtraState:
    """A library that one feature needs."""

    name: str
    purpose: str
    installed: bool
    install: str


def engine_states() -> list[EngineState]:
    """Every engine that unet-edge knows; those that are installed are tried (about a second each)."""
    states = []
    for name, engine in engines.ENGINES.items():
        there = engines.installed(name)
        state = EngineState(name, engine.suffixes, there, engines.install_hint(name), engine.default_threads())
        states.append(replace(state, devices=tuple(_try_apart(name))) if there else state)
    return states


def extras() -> list[ExtraState]:
    """The libraries that single features need; none is imported."""
    return [
        ExtraState(name, purpose, _there(module), f'pip install "unet-edge-runtime[{name}]"')
        for name, (module, purpose) in EXTRAS.items()
    ]


def description() -> dict[str, str | int]:
    """The machine in words, as bug reports want it."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "python": platform.python_version(),
        "logical_cores": os.cpu_count() or 1,
        "usable_cores": cores.usable_cores(),
    }


def _there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _try_apart(name: str) -> list[DeviceState]:
    """Try an engine's devices in another process; one that dies names the device it died of."""
    command = [sys.executable, "-m", "unet_runtime.cli.machine", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False)
        output, end = done.stdout, _end(done.returncode, done.stderr)
    except subprocess.TimeoutExpired as error:
        output, end = _text(error.stdout), f"it hangs: no answer in {_SECONDS} s"
    states = [DeviceState(**json.loads(line)) for line in output.splitlines() if line.startswith('{"device"')]
    tried = {state.device for state in states}
    return states + [DeviceState(device, False, end) for device in engines.ENGINES[name].devices if device not in tried]


def _end(code: int, errors: str) -> str:
    if code < 0:
        cause = signal.strsignal(-code) or f"signal {-code}"
        return f"it crashes ({cause}): is its wheel made for this processor?"
    last = errors.strip().splitlines()[-1:] or [f"exit code {code}"]
    return f"its process ended early ({last[0]})"


def _text(output: str | bytes | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


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
        segmenter.backend.run(np.zeros((1, size.height, size.width, 3), np.uint8))
        return DeviceState(device, True, segmenter.backend.note, segmenter.backend.engine)
    except UnetRuntimeError as error:
        return DeviceState(device, False, str(error).removeprefix(f"device {device}: "))


def main(name: str) -> None:
    for device in engines.ENGINES[name].devices:
        print(json.dumps(asdict(_try(name, device))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
