"""What an installation weighs: unet-edge-runtime with one engine, against rembg and ultralytics.

    python benchmarks/install_size.py [REQUIREMENT...]

All sizes are counted in the same way: ``pip download`` fetches the wheels that pip would install here (this Python,
this platform, what the package index offers today) into a temporary folder, and nothing is installed or run. The
download is the sum of the wheels' sizes, the installed size the sum of the sizes that their files have once unpacked
(pip adds the compiled .pyc of each .py), the number of distributions includes the package itself. Our own wheel is
built from this repository. From PyPI, ultralytics on x86-64 Linux brings torch with CUDA: some 3 GB are downloaded and
thrown away, so TMPDIR should have room.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

RUNTIME = Path(__file__).parents[1] / "runtime"
OURS = "unet-edge-runtime"
REQUIREMENTS = [f"{OURS}[onnx]", f"{OURS}[tflite]", f"{OURS}[openvino]", "rembg[cpu,cli]", "ultralytics"]


class Size(NamedTuple):
    own: int
    """Bytes of the package's own wheel."""
    download: int
    """Bytes of all wheels."""
    installed: int
    """Bytes of their files."""
    distributions: int


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "-qq", *arguments], check=True)


def measure(requirement: str, own_wheel: Path) -> Size:
    name = requirement.split("[")[0]
    source = requirement.replace(OURS, str(own_wheel)) if name == OURS else requirement
    with tempfile.TemporaryDirectory() as folder:
        pip("download", "--only-binary", ":all:", "--dest", folder, source)
        wheels = sorted(Path(folder).glob("*.whl"))
        prefix = name.replace("-", "_") + "-"
        own = next(wheel for wheel in wheels if wheel.name.lower().startswith(prefix))
        return Size(
            own.stat().st_size, sum(wheel.stat().st_size for wheel in wheels), sum(map(unpacked, wheels)), len(wheels)
        )


def unpacked(wheel: Path) -> int:
    with zipfile.ZipFile(wheel) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("requirements", nargs="*", default=REQUIREMENTS, metavar="REQUIREMENT")
    requirements = parser.parse_args().requirements
    print(f"{'pip install':30} {'own wheel':>10} {'download':>10} {'installed':>10} {'distributions':>14}")
    with tempfile.TemporaryDirectory() as folder:
        pip("wheel", "--no-deps", "--wheel-dir", folder, str(RUNTIME))
        own_wheel = next(Path(folder).glob("*.whl"))
        for requirement in requirements:
            size = measure(requirement, own_wheel)
            own, download, installed = (f"{value / 1e6:.1f} MB" for value in size[:3])
            print(f"{requirement:30} {own:>10} {download:>10} {installed:>10} {size.distributions:>14}", flush=True)


if __name__ == "__main__":
    main()
