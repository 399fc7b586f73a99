"""What this machine can run, found out by running it: each engine in a process of its own.

The process is needed because a broken engine may end it: a wheel built for another processor raises an illegal
instruction, which no Python code can catch.
"""

from __future__ import annotations

import importlib.util
import os
import platform
from dataclasses import dataclass

from unet_runtime.bench.children import run_worker
from unet_runtime.bench.machine import processor
from unet_runtime.bench.photos import SAMPLE
from unet_runtime.bench.plan import Combination, read_model
from unet_runtime.core.cores import usable_cores
from unet_runtime.core.errors import UnetRuntimeError
from unet_runtime.core.install import pip_command
from unet_runtime.engines import ENGINES, Device, Engine, import_engine, installed

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
    """``cpu``, ``cuda``, ``tensorrt``, ``gpu`` or ``npu``."""
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
    """Every engine that unet-edge knows; those that are installed are tried (about a second per device)."""
    states = []
    for name, engine in ENGINES.items():
        there = installed(name)
        devices = tuple(_try_devices(engine)) if there else ()
        install = pip_command(engine.extra)
        states.append(EngineState(name, engine.suffixes, there, install, engine.default_threads(), devices))
    return states


def extras() -> list[ExtraState]:
    """The libraries that single features need; none is imported."""
    states = []
    for name, (module, purpose) in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        states.append(ExtraState(name, purpose, there, pip_command(name)))
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


def _try_devices(engine: Engine) -> list[DeviceState]:
    states: list[DeviceState] = []
    for device in engine.devices:
        if states and not states[0].runs:  # not even on the CPU
            states.append(DeviceState(device, False, states[0].reason))
        elif problem := _missing(engine, device):
            states.append(DeviceState(device, False, problem))
        elif device in engine.slow_start:
            states.append(DeviceState(device, None, _NOT_TRIED))
        else:
            states.append(_try(engine, device))
    return states


def _try(engine: Engine, device: Device) -> DeviceState:
    """Run the bundled model on the bundled photo, in a process of its own."""
    try:
        combination = Combination(read_model(engine.default_model), engine.name, device, engine.default_threads())
        result = run_worker(combination, [SAMPLE], limit=_SECONDS)
    except UnetRuntimeError as error:
        return DeviceState(device, False, str(error).removeprefix(f"device {device}: "))
    return DeviceState(device, True, result["note"], result["engine"])


def _missing(engine: Engine, device: Device) -> str:
    """What a device lacks, where that is seen without a process: the engine itself is known to work. Else empty."""
    if device not in engine.missing:
        return ""
    try:
        import_engine(engine.name)
        return engine.missing[device]()
    except UnetRuntimeError as error:
        return str(error)
