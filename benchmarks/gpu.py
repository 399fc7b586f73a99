"""What nobody has run yet: CUDA, TensorRT and the article's training on an NVIDIA GPU, in under 12 minutes.

    python benchmarks/gpu.py                          here, with what this environment holds
    python benchmarks/gpu.py --pack parcel            for a machine without a network: parts of 60 MB, and this file
    python parcel/gpu.py                              there: puts the parts together, installs them, runs
    python benchmarks/gpu.py --rehearse               all of that here, on the CPU, with tiny budgets

**It was rehearsed on CPUs and never ran on a GPU.** ``gpu_steps.py`` has what is measured. Each step is a process with
a budget of seconds, and writes ``results/gpu.json`` and ``results/gpu.md`` whenever it knows more, so that a machine
that is taken away leaves what it found. Ends with 0 if all was proven, with 4 if not.

This file needs Python's standard library alone: there, nothing is installed when it starts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
STEPS = ("providers", "training")
SECONDS = {"providers": 300, "training": 390}
"""Budgets: under 12 minutes with 30 s to unpack and install."""

SUMS = "SHA256SUMS"
MEGABYTES = 60
CHUNK = 2**20
GATE_FAILED = 4
GRACE = 15
"""Seconds after its deadline that a step has to end by itself."""


# --- parts -----------------------------------------------------------------------------------------


class Parts:
    """A file to write to, which goes on in a new part, ``part-001``, when one is full."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._left = 0
        self._file: Any = None
        self.names: list[str] = []

    def write(self, content: bytes) -> int:
        for start in range(0, len(content), CHUNK):
            self._write(memoryview(content)[start : start + CHUNK])
        return len(content)

    def _write(self, content: memoryview) -> None:
        while content:
            if not self._left:
                self._next()
            written = self._file.write(content[: self._left])
            self._left -= written
            content = content[written:]

    def _next(self) -> None:
        self.close()
        self.names.append(f"part-{len(self.names) + 1:03}")
        self._file = (self._folder / self.names[-1]).open("wb")
        self._left = self._limit

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Joined:
    """The parts as one file to read, each compared with its digest when it ends.

    Raises:
        SystemExit: one is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._blocks = self._read(folder)
        self._rest = b""

    def _read(self, folder: Path) -> Iterator[bytes]:
        for line in (folder / SUMS).read_text(encoding="ascii").splitlines():
            wanted, _, name = line.partition("  ")
            digest = hashlib.sha256()
            if not (folder / name).is_file():
                sys.exit(f"{folder / name}: not there, expected every part of {SUMS}: copy it, too")
            with (folder / name).open("rb") as file:
                while block := file.read(CHUNK):
                    digest.update(block)
                    yield block
            if digest.hexdigest() != wanted:
                sys.exit(f"{folder / name}: damaged on the way: copy it again")

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (block := next(self._blocks, b"")):
            self._rest += block
        result, self._rest = self._rest[:size], self._rest[size:]
        return result


def write_parts(content: Path, parcel: Path, limit: int) -> list[str]:
    """Put a folder into parts of at most ``limit`` bytes, with their digests; returns the parts' names.

    Not compressed: photos, wheels and weights are already.
    """
    parcel.mkdir(parents=True, exist_ok=True)
    for old in parcel.glob("part-*"):
        old.unlink()
    parts = Parts(parcel, limit)
    with tarfile.open(fileobj=parts, mode="w|", dereference=True) as archive:  # type: ignore[arg-type]
        archive.add(content, ".")
    parts.close()
    lines = [f"{hashlib.sha256((parcel / name).read_bytes()).hexdigest()}  {name}\n" for name in parts.names]
    (parcel / SUMS).write_text("".join(lines), encoding="ascii")
    (parcel / "gpu.py").write_bytes(Path(__file__).read_bytes())
    return parts.names


def read_parts(parcel: Path, content: Path) -> None:
    """Unpack what ``write_parts`` made."""
    joined = Joined(parcel)
    with tarfile.open(fileobj=joined, mode="r|") as archive:  # type: ignore[call-overload]
        archive.extractall(content, filter="data")
    while joined.read(CHUNK):  # to the end, where the last digest is compared
        pass


# --- steps -----------------------------------------------------------------------------------------


def install(content: Path, site: Path) -> dict[str, str]:
    """Install the wheels into a folder of their own; returns the environment in which they are found."""
    wheels = sorted(map(str, (content / "wheels").glob("*.whl")))
    environment = dict(os.environ)
    if wheels:
        options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check"]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", site, *wheels], check=True)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(site), environment.get("PYTHONPATH", ""))))
    # NVIDIA's libraries may lie in another folder of packages than the engine, which looks beside itself.
    places = [str(site), *sys.path]
    libraries: list[str] = []
    for place in filter(None, places):
        libraries += map(str, Path(place).glob("nvidia/*/lib"))
        libraries += map(str, Path(place).glob("tensorrt_libs"))
    environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, (*libraries, environment.get("LD_LIBRARY_PATH"))))
    return environment


def run_steps(content: Path, results: Path, environment: dict[str, str], options: argparse.Namespace) -> int:
    """Run each step in a process of its own, within its budget; 0 if all proved what they should."""
    results.mkdir(parents=True, exist_ok=True)
    worst = 0
    for step in options.steps:
        seconds = options.seconds or SECONDS[step]
        command = [sys.executable, str(content / "gpu_steps.py"), step, str(content), str(results)]
        command += ["--deadline", str(time.time() + seconds), *(["--rehearse"] if options.rehearse else [])]
        print(f"--- {step}: {seconds:.0f} s at most", flush=True)
        process = subprocess.Popen(command, env=environment)
        try:
            code = process.wait(seconds + GRACE)  # it ends by itself; a driver that hangs does not
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = GATE_FAILED
            print(f"{step}: killed after {seconds + GRACE:.0f} s; {results} has what it found until then", flush=True)
        worst = worst or code
    return worst


# --- what is packed --------------------------------------------------------------------------------


def prepare(content: Path, options: argparse.Namespace) -> None:
    """Models, photos and the steps themselves, as both steps read them."""
    sys.path.insert(0, str(HERE))
    import gpu_pack

    content.mkdir(parents=True, exist_ok=True)
    gpu_pack.write_models(options.model or gpu_pack.default_model(), options.data, content / "models", options.sizes)
    gpu_pack.write_data(options.data, content / "data")
    (content / "gpu_steps.py").write_bytes((HERE / "gpu_steps.py").read_bytes())
    about = {"made": time.strftime("%Y-%m-%d"), "python": options.python, "model": str(options.model or "bundled")}
    (content / "about.json").write_text(json.dumps(about))


def pack(parcel: Path, options: argparse.Namespace) -> list[str]:
    """Everything for a machine without a network, in parts."""
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        content = Path(folder)
        prepare(content, options)
        import gpu_pack

        gpu_pack.write_wheels(
            content / "wheels", options.python, options.installed, options.wheels, own_only=options.rehearse
        )
        names = write_parts(content, parcel, int(options.megabytes * 1e6))
    size = sum((parcel / name).stat().st_size for name in names)
    print(f"{parcel}: {len(names)} parts, {size / 1e6:.0f} MB. There: python {parcel.name}/gpu.py", flush=True)
    return names


def run_parcel(parcel: Path, results: Path, options: argparse.Namespace) -> int:
    """Unpack, install, run."""
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        content, site = Path(folder, "content"), Path(folder, "site")
        read_parts(parcel, content)
        return run_steps(content, results, install(content, site), options)


def rehearse(options: argparse.Namespace) -> int:
    """Generated pictures, a tiny network and the CPU, but every step of the way: packed, unpacked, installed, run."""
    sys.path.insert(0, str(HERE))
    import gpu_pack

    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        options.data = Path(folder, "pictures")
        gpu_pack.draw_pictures(options.data)
        options.model = REPOSITORY / "tests/data/tiny.keras"
        options.sizes, options.megabytes = [48, 96], 4
        options.seconds = options.seconds or 240
        options.python = f"{sys.version_info.major}.{sys.version_info.minor}"
        pack(Path(folder, "parcel"), options)
        return run_parcel(Path(folder, "parcel"), options.output, options)


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, metavar="FOLDER", help="write the parcel and run nothing")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with tiny budgets")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the results")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--seconds", type=float, help="budget of each step, in place of its own")
    parser.add_argument("--data", type=Path, default=os.environ.get("PETS_DIR"), help="default: PETS_DIR")
    parser.add_argument("--model", type=Path, help="a .keras file of unet-train's; default: that of the bundled files")
    parser.add_argument("--sizes", type=int, nargs="+", default=[160, 512], help="input sizes, pixels")
    parser.add_argument("--python", default="3.12", help="version of Python there")
    parser.add_argument("--installed", type=Path, help="pip freeze of there: what it has is not packed")
    parser.add_argument("--wheels", type=Path, help="folder of more wheels to take along, as TensorRT's of NVIDIA")
    parser.add_argument("--megabytes", type=float, default=MEGABYTES, help="of a part, at most")
    parser.add_argument("--work", type=Path, help="folder for what is unpacked; default: the system's")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    options = parsed(words)
    if options.rehearse:
        return rehearse(options)
    if options.pack is None and (HERE / SUMS).is_file():
        return run_parcel(HERE, options.output, options)
    if options.data is None:
        sys.exit("--data or PETS_DIR: Oxford-IIIT Pet's folder")
    if options.pack is not None:
        pack(options.pack, options)
        return 0
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        content = Path(folder)
        prepare(content, options)
        return run_steps(content, options.output, install(content, content / "site"), options)


if __name__ == "__main__":
    sys.exit(main())
