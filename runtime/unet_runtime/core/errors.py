"""Every error the runtime raises on purpose, and the exit code that a command ends with.

    UnetRuntimeError
    ├── ModelFileError          missing, damaged, without a spec, unknown schema
    ├── BackendError            an engine fails, or does not run on the device that was asked for
    ├── MissingDependencyError  a package is not installed; the message has the pip command
    ├── ImageError              not an image, truncated, too many pixels
    ├── SourceError             a folder, camera or stream that gives no photo
    └── OutputError             a result that cannot be written

A message says what was received, what was expected and what to do.
"""

from __future__ import annotations

from typing import ClassVar

OK = 0
INPUTS_FAILED = 1
"""Some inputs failed; the results of the others are written."""
USAGE = 2
MODEL = 3
"""Model, engine or missing dependency."""
GATE = 4
"""The parity or accuracy gate failed."""
INTERNAL = 70
"""An error that nobody expected (``EX_SOFTWARE`` of sysexits.h)."""
INTERRUPTED = 130
TERMINATED = 143


class UnetRuntimeError(Exception):
    """Base of every error of the three packages; catch it to catch them all."""

    exit_code: ClassVar[int] = INPUTS_FAILED
    """Exit code of a command that ends with this error."""

    hint: str = ""
    """A command that helps, as a line of its own below the message."""


class ModelFileError(UnetRuntimeError):
    """A model file is missing, damaged, carries no spec, or one of an unknown schema."""

    exit_code = MODEL


class BackendError(UnetRuntimeError):
    """An engine fails, or does not run on the device that was asked for."""

    exit_code = MODEL


class MissingDependencyError(UnetRuntimeError):
    """A package that a feature needs is not installed; the message has the pip command that installs it."""

    exit_code = MODEL


class ImageError(UnetRuntimeError):
    """A photo cannot be read: no image, truncated, or too many pixels."""


class SourceError(UnetRuntimeError):
    """A named input does not exist or holds no photo."""


class OutputError(UnetRuntimeError):
    """A result cannot be written."""
