"""An aarch64 machine in a folder: Debian's arm64 Python under qemu's user-mode emulation, and a list of ARM processors.

Nothing is installed here: packages are downloaded with apt and unpacked. Without the processor list both engines abort
on import: they read /proc/cpuinfo, and would find x86's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CPU = "cortex-a76"
"""A Raspberry Pi 5's."""

PACKAGES = ("python3", "libc-bin", "dash", "coreutils", "libstdc++6", "libgcc-s1")

_PROCESSOR = """processor\t: {}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""

_SOURCE = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian {} main\n"


def unpack(folder: Path, architecture: str, packages: tuple[str, ...], suite: str = "bookworm") -> Path:
    """Debian packages with all that they need, unpacked into a folder that apt knows nothing else of.

    Skips the test where there is no apt-get or no archive to ask.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("no apt-get and dpkg-deb here")
    for name in ("lists/partial", "cache/archives/partial", "root"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(_SOURCE.format(suite))
    settings = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": folder / "lists",
        "Dir::State::Status": folder / "status",
        "Dir::Cache": folder / "cache",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Install-Recommends": "false",
        "Debug::NoLocking": "1",
    }
    command = ["apt-get", "--quiet", *(f"--option={name}={value}" for name, value in settings.items())]
    for words in (["update"], ["install", "--yes", "--download-only", *packages]):
        done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            pytest.skip(f"apt-get cannot download: {done.stderr.strip()[-200:]}")
    root = folder / "root"
    for package in (folder / "cache" / "archives").glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", package, root], check=True, timeout=300)
    return root


def make_machine(folder: Path) -> Path:
    """Path of a ``python3.11`` that is an aarch64 one to whatever it runs, also to the environments it makes."""
    emulator = shutil.which("qemu-aarch64-static")
    if emulator is None:
        emulator = str(unpack(folder / "qemu", "amd64", ("qemu-user-static",)) / "usr/bin/qemu-aarch64-static")
    root = unpack(folder / "debian", "arm64", PACKAGES)
    (root / "proc").mkdir(exist_ok=True)
    processors = [_PROCESSOR.format(number) for number in range(os.cpu_count() or 1)]
    (root / "proc" / "cpuinfo").write_text("".join(processors))
    python = folder / "bin" / "python3.11"
    python.parent.mkdir()
    # A script: the kernel starts no foreign program. Its own name is passed on, by which Python finds its environment.
    python.write_text(f'#!/bin/sh\nexec "{emulator}" -cpu {CPU} -L "{root}" -0 "$0" "{root}/usr/bin/python3.11" "$@"\n')
    python.chmod(0o755)
    return python
