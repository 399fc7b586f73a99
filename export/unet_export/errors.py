"""Errors of the exporter: part of the runtime's tree, so that one ``except`` serves all commands.

    UnetRuntimeError
    ├── ExportError     a model that cannot be exported, or an export with something in it that does not belong
    │   ├── NotIntegerError  an integer file with operators that compute in float (formats/base.py)
    │   ├── PasswordError  an encrypted key without its password (signature.py)
    │   └── WheelError  a wheel for a device's bundle that cannot be fetched (bundle/wheels.py)
    └── ParityError     an artifact that is too different from the trained model (gate/gate.py)

Each carries the exit code of its kind.
"""

from __future__ import annotations

from unet_runtime.core.errors import MODEL, UnetRuntimeError


class ExportError(UnetRuntimeError):
    """The model cannot be exported, or what came out breaks the contract."""

    exit_code = MODEL
