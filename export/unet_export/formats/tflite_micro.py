"""Keras model -> a folder for microcontrollers: the int8 TFLite file as C, and estimates of what it asks of a device.

model.tflite        as tflite-int8's, spec and digest inside
model.cc model.h    the same network as a C array, without the spec
report.json report.md   operators, tensor arena, Ethos-U: estimates, made here and not on a device
SHA256SUMS          of every other file
"""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import subprocess
import sys
import zipfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_export.errors import ExportError
from unet_export.formats import tflite
from unet_export.formats.base import Builder, Format
from unet_export.formats.triton import sums
from unet_export.formats.web import SUMS_NAME
from unet_export.quantization import Quantization
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.install import pip_command
from unet_runtime.engines import load

logger = logging.getLogger(__name__)

_INT8 = next(form for form in tflite.FORMATS if form.name == "tflite-int8")

_PHOTOS = 2
"""Photos on which TensorFlow Lite Micro is compared with LiteRT: its reference kernels take a second each."""

_ARENA = 2**28
"""Bytes that the interpreter is given; it says how many of them it took."""

_SECONDS = 600

_ACCELERATORS = (
    ("ethos-u55-128", "Ethos_U55_High_End_Embedded", "Shared_Sram"),
    ("ethos-u55-256", "Ethos_U55_High_End_Embedded", "Shared_Sram"),
    ("ethos-u65-256", "Ethos_U65_High_End", "Dedicated_Sram"),
    ("ethos-u85-512", "Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB"),
)
"""Vela's names: accelerator, system and memory mode, each of its own configuration file."""

_LINE = 16
"""Bytes in a line of the C array."""

# In a process of its own: an operator that it does not know may end it.
_PROBE = """
import sys
import numpy as np
from tflite_micro import runtime
model, photos, outputs, arena = sys.argv[1:]
with open(model, "rb") as file:
    interpreter = runtime.Interpreter.from_bytes(file.read(), arena_size=int(arena))
results = []
for photo in np.load(photos):
    interpreter.set_input(photo[np.newaxis], 0)
    interpreter.invoke()
    results.append(interpreter.get_output(0)[0])
np.save(outputs, np.stack(results))
interpreter.print_allocations()
"""


def _write(builder: Builder, path: Path, quantization: Quantization) -> None:
    path.mkdir(parents=True)
    model = path / "model.tflite"
    builder.write(_INT8, model, _INT8.quantization)
    network = without_spec(read_artifact(model).content)
    name = "g_" + re.sub(r"\W", "_", builder.spec.name, flags=re.ASCII)
    (path / "model.cc").write_text(c_array(network, name), encoding="ascii", newline="\n")
    header = f"#pragma once\n\nextern const unsigned char {name}[];\nextern const unsigned int {name}_size;\n"
    (path / "model.h").write_text(header, encoding="ascii", newline="\n")
    work = builder.folder("tflite-micro")
    report = describe(network, model, builder.images(_PHOTOS)[:_PHOTOS], work)
    (path / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8", newline="\n")
    (path / "report.md").write_text(as_text(report), encoding="utf-8", newline="\n")
    (path / SUMS_NAME).write_text(sums(path), encoding="utf-8", newline="\n")


def without_spec(content: bytes) -> bytes:
    """The flatbuffer of a ``.tflite`` alone: a device has no use for the spec behind it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return content[: archive.infolist()[0].header_offset]


def c_array(network: bytes, name: str) -> str:
    """C++ that holds the bytes as ``name``, aligned as the interpreter asks, and their number as ``name_size``."""
    lines = ['#include "model.h"', "", f"alignas(16) const unsigned char {name}[] = {{"]
    for start in range(0, len(network), _LINE):
        lines.append("  " + ",".join(map(hex, network[start : start + _LINE])) + ",")
    return "\n".join([*lines, "};", f"const unsigned int {name}_size = sizeof({name});", ""])


# --- report ----------------------------------------------------------------------------------------


def describe(network: bytes, model: Path, images: npt.NDArray[np.uint8], work: Path) -> dict[str, Any]:
    """What a device needs for the network: operators, arena and accelerators, the last two where their tools are."""
    file = work / "network.tflite"
    file.write_bytes(network)
    return {
        "estimates": "made on the exporting machine, not on a device",
        "flash_bytes": len(network),
        "operators": operators(network),
        "tflite_micro": _interpreted(file, model, images, work),
        "ethos_u": _accelerated(file, work),
    }


def operators(network: bytes) -> dict[str, int]:
    """How often each operator is there, by TensorFlow Lite's name: what a resolver must know."""
    from unet_export.formats.flatbuffer import Flatbuffer

    return dict(sorted(Counter(operator.kind for operator in Flatbuffer(network).operators).items()))


def _interpreted(file: Path, model: Path, images: npt.NDArray[np.uint8], work: Path) -> dict[str, Any]:
    """The network in TensorFlow Lite Micro's interpreter on this machine: its arena, and its masks beside LiteRT's."""
    if find_spec("tflite_micro") is None:
        return {"not_done": _hint("tflite-micro")}
    photos, outputs = work / "photos.npy", work / "outputs.npy"
    np.save(photos, images)
    code, said = _run("-c", _PROBE, file, photos, outputs, str(_ARENA))
    sizes = {name: int(size) for name, size in re.findall(r"Arena allocation (total|head|tail) (\d+) bytes", said)}
    if code or not sizes:
        return {"not_done": f"the interpreter does not run it: {_last(said)}"}
    expected = load("tflite", read_artifact(model)).run(images).argmax(-1)
    agreement = float((np.load(outputs).argmax(-1) == expected).mean())
    return {
        "arena_bytes": sizes["total"],
        "activations_bytes": sizes["head"],
        "persistent_bytes": sizes["tail"],
        "photos": len(images),
        "same_class_as_litert": agreement,
    }


def _accelerated(file: Path, work: Path) -> list[dict[str, Any]] | dict[str, Any]:
    """Vela's estimate for each of ``_ACCELERATORS``."""
    if find_spec("ethosu") is None:
        return {"not_done": _hint("ethos-u-vela")}
    return [_compiled(file, work / accelerator, accelerator, *more) for accelerator, *more in _ACCELERATORS]


def _compiled(file: Path, folder: Path, accelerator: str, system: str, memory: str) -> dict[str, Any]:
    options = [f"--accelerator-config={accelerator}", f"--output-dir={folder}", "--config=Arm/vela.ini"]
    options += [f"--system-config={system}", f"--memory-mode={memory}"]
    row: dict[str, Any] = {"accelerator": accelerator, "system": system, "memory": memory}
    code, said = _run("-m", "ethosu.vela", file, *options)
    summaries = sorted(folder.glob("*_summary_*.csv"))
    if code or not summaries:
        return row | {"not_done": f"Vela does not compile it: {_last(said)}"}
    with summaries[0].open(encoding="utf-8", newline="") as table:
        (summary,) = csv.DictReader(table)
    counts = dict(re.findall(r"(CPU|NPU) operators = (\d+)", said))
    return row | {
        "milliseconds": float(summary["inference_time"]) * 1e3,
        "sram_bytes": round(float(summary["sram_memory_used"]) * 1024),
        "dram_bytes": round(float(summary["dram_memory_used"]) * 1024),
        "flash_bytes": round(float(summary["off_chip_flash_memory_used"]) * 1024),
        "operators_on_npu": int(counts.get("NPU", 0)),
        "operators_on_cpu": int(counts.get("CPU", 0)),
    }


def _run(*words: str | Path) -> tuple[int, str]:
    """Exit code of a Python program, and all that it said."""
    command = [sys.executable, *map(str, words)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return 1, f"it took more than {_SECONDS} s"
    return done.returncode, done.stdout + done.stderr


def _last(said: str) -> str:
    lines = said.strip().splitlines() or ["it ended without a word"]
    return lines[-1][:300]


def _hint(package: str) -> str:
    return f"{package} is not installed: {pip_command('micro', 'unet-edge-export')}"


def as_text(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = ["# What this network asks of a microcontroller", ""]
    lines += ["**Estimates, made on the machine that exported it: nothing here ran on a device.**", ""]
    lines += [f"Flash for the network: {report['flash_bytes']:,} bytes (`model.cc`).", "", "## Operators", ""]
    names = [f"resolver.{_method(kind)}();  // {count}" for kind, count in report["operators"].items()]
    lines += ["```cpp", f"tflite::MicroMutableOpResolver<{len(names)}> resolver;", *names, "```", ""]
    lines += ["## Tensor arena", "", *_arena_lines(report["tflite_micro"]), "", "## Arm Ethos-U, by Vela", ""]
    return "\n".join([*lines, *_accelerator_lines(report["ethos_u"]), ""])


def _method(kind: str) -> str:
    """``DEPTHWISE_CONV_2D`` -> ``AddDepthwiseConv2D``."""
    return "Add" + "".join(word if word[0].isdigit() else word.capitalize() for word in kind.split("_"))


def _arena_lines(found: dict[str, Any]) -> list[str]:
    if "not_done" in found:
        return [f"Not estimated: {found['not_done']}"]
    return [
        f"{found['arena_bytes']:,} bytes in TensorFlow Lite Micro's own interpreter on this machine: "
        f"{found['activations_bytes']:,} for activations and scratch, {found['persistent_bytes']:,} that stay. "
        "A device's pointers are shorter and its kernels (CMSIS-NN) take scratch of their own: begin with this, then "
        "shrink it.",
        "",
        f"On {found['photos']} photos it gave LiteRT's class at {found['same_class_as_litert']:.3%} of the pixels.",
    ]


def _accelerator_lines(found: list[dict[str, Any]] | dict[str, Any]) -> list[str]:
    if isinstance(found, dict):
        return [f"Not estimated: {found['not_done']}"]
    lines = ["| accelerator | system, memory mode | ms a photo | SRAM | DRAM | flash | operators on NPU, CPU |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in found:
        first = f"| {row['accelerator']} | {row['system']}, {row['memory']} |"
        if "not_done" in row:
            lines.append(f"{first} {row['not_done']} | | | | |")
            continue
        bytes_ = " | ".join(f"{row[f'{kind}_bytes']:,}" for kind in ("sram", "dram", "flash"))
        counts = f"{row['operators_on_npu']}, {row['operators_on_cpu']}"
        lines.append(f"{first} {row['milliseconds']:.1f} | {bytes_} | {counts} |")
    return lines


def _check(path: Path) -> None:
    _INT8.check(path / "model.tflite")
    if (path / SUMS_NAME).read_text(encoding="utf-8") != sums(path):
        raise ExportError(f"{path}: its files are not those of {SUMS_NAME}: export again")


TFLITE_MICRO = Format("tflite-micro", "int8", ".tflite-micro", ("tflite",), _write, _check)
