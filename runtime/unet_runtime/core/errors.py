"""Every error the runtime raises on purpose.

    UnetRuntimeError
    ├── ModelFileError   missing, damaged, without a spec, of an unknown schema
    ├── BackendError     engine not installed, provider not available
    ├── ImageError       not an image, truncated, too many pixels
    ├── SourceError      a folder, camera or stream that gives no photo
    └── OutputError      a result that cannot be written

A message says what was received, what was expected and what to do.
"""

from __future__ import annotations


class UnetRuntimeError(Exception):
    """Base of every error of this package; catch it to catch them all."""


class ModelFileError(UnetRuntimeError):
    """A model file is missing, damaged, carries no spec, or one of an unknown schema."""


class BackendError(UnetRuntimeError):
    """An engine is not installed, or does not run where it was asked to."""


class ImageError(UnetRuntimeError):
    """A photo cannot be read: no image, truncated, or too many pixels."""


class SourceError(UnetRuntimeError):
    """A named input does not exist or holds no photo."""


class OutputError(UnetRuntimeError):
    """A result cannot be written."""
