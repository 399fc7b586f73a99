"""Errors of the exporter: part of the runtime's tree, so that one ``except`` serves all commands.

    UnetRuntimeError
    ├── ExportError   a model that cannot be exported, or an export with something in it that does not belong
    │   └── PipError  a wheel for a device's bundle that cannot be had (bundle/wheels.py)
    └── ParityError   an artifact that is not equal enough to the trained model

Each carries the exit code of its kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unet_runtime.core.errors import GATE, MODEL, UnetRuntimeError

if TYPE_CHECKING:
    from unet_export.gate.gate import ParityResult


class ExportError(UnetRuntimeError):
    """The model cannot be exported, or what came out breaks the contract."""

    exit_code = MODEL


class ParityError(UnetRuntimeError):
    """The gate failed: nothing was accepted.

    Attributes:
        results: of every artifact, those that passed too.
    """

    exit_code = GATE

    def __init__(self, message: str, results: list[ParityResult]) -> None:
        super().__init__(message)
        self.results = results
