"""Errors of the trainer: part of the runtime's tree, so that one ``except`` serves all commands."""

from __future__ import annotations

from unet_runtime.cli import exits
from unet_runtime.errors import UnetRuntimeError


class DatasetError(UnetRuntimeError):
    """The dataset is missing, damaged, or cannot be downloaded."""


class TrainingError(UnetRuntimeError):
    """Training cannot start or go on."""

    exit_code = exits.MODEL


class TrainingInterruptedError(UnetRuntimeError):
    """Ctrl-C before there was a model; the message says what was kept."""

    exit_code = exits.INTERRUPTED
