"""Errors of the trainer: part of the runtime's tree, so that one ``except`` serves all commands."""

from __future__ import annotations

from enum import Enum

from unet_runtime.core.errors import INTERRUPTED, MODEL, USAGE, UnetRuntimeError


class DatasetError(UnetRuntimeError):
    """The dataset is missing, damaged, or cannot be downloaded."""


class Fault(Enum):
    """Why a photo with its trimap cannot be used: a key of ``check.KINDS``."""

    MISSING = "incomplete"
    UNREADABLE = "unreadable"
    SIZES = "sizes"
    VALUES = "trimaps"


class UnusableError(DatasetError):
    """One photo with its trimap cannot be used; the others can."""

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message)
        self.fault = fault


class TrainingError(UnetRuntimeError):
    """Training cannot start or go on."""

    exit_code = MODEL


class RecipeError(TrainingError):
    """A recipe asks of an architecture what it has not."""

    exit_code = USAGE


class TrainingInterruptedError(UnetRuntimeError):
    """Ctrl-C before there was a model; the message says what was kept."""

    exit_code = INTERRUPTED
