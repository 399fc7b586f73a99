"""What is known of the CPU: from other machines' /proc/cpuinfo, and of this one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.rows import MACHINE
from unet_runtime.bench import machine as machines
from unet_runtime.bench.machine import _cpuinfo, this_machine

XEON = {"model name": "Intel(R) Xeon(R)", "flags": "fpu avx2 fma avx512f avx512_vnni"}
RASPBERRY = {"processor": "0", "Features": "fp asimd crc32 asimddp"}


@pytest.mark.parametrize(
    ("fields", "features", "int8"),
    [
        (XEON, ("avx2", "avx512_vnni", "avx512f", "fma"), True),
        (RASPBERRY, ("dotprod", "neon"), True),
        ({"model name": "old", "flags": "fpu avx"}, ("avx",), False),
        ({"model name": "older", "flags": "fpu"}, (), False),
        ({}, None, None),
    ],
)
def test_instructions_that_matter_are_found(
    fields: dict[str, str], features: tuple[str, ...] | None, int8: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "_cpuinfo", lambda: fields)
    found = this_machine()
    assert found.features == features
    assert found.multiplies_int8 is int8


def test_this_machine_has_what_the_system_reports() -> None:
    found = this_machine()
    assert 1 <= found.cores <= len(os.sched_getaffinity(0))  # fewer under a container's quota
    assert found.memory == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    text = Path("/proc/cpuinfo").read_text()
    assert all(name in text for name in _cpuinfo())
    assert found.cpu


def test_a_machine_is_busy_above_half_a_process_a_core() -> None:
    assert not replace(MACHINE, cores=2, load=1.0).busy
    assert replace(MACHINE, cores=2, load=1.1).busy
    assert not replace(MACHINE, load=None).busy
