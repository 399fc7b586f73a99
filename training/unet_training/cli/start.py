"""What a command does before it computes: load Keras, choose where its JSON goes."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

from unet_runtime.cli.quiet import engines_quiet
from unet_runtime.cli.shared import echo
from unet_runtime.core import files
from unet_runtime.core.errors import MissingDependencyError
from unet_runtime.core.install import pip_command
from unet_runtime.io.kind import STAMP_KEY
from unet_training import processes
from unet_training.cli.options import STDOUT
from unet_training.files import COMMAND


def import_keras(hosts: str | None = None, number: int | None = None) -> None:
    """Load Keras and its backend: late, so that ``--help`` is quick, and once, so that a missing one has one message.

    Args:
        hosts, number: the processes that train together, see ``processes.connect``; None: this one alone.

    Raises:
        MissingDependencyError: the backend is not installed.
        TrainingError: the processes do not meet.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Off by default on CPUs without AVX-512, where a training step was quicker with it too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    try:
        with engines_quiet():
            import keras

            if hosts is not None:
                processes.connect(hosts, number)
            keras.ops.ones((1,))  # looks for devices
            keras.utils.set_random_seed(0)  # loads TensorFlow, where it is installed, under any backend
        # Class ids on their way into Keras' confusion matrix, under JAX: they fit into any integer.
        warnings.filterwarnings("ignore", "Explicitly requested dtype int64", UserWarning)
    except ImportError as error:
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
        command = "pip install tensorflow"
        if backend != "tensorflow":
            command = pip_command(backend, "unet-edge-training")
        raise MissingDependencyError(f"Keras' backend {backend} cannot be imported ({error}): {command}") from error


def print_result(text: str, json_text: str, json_file: Path | None) -> None:
    """Print a result as text, or as JSON where ``--json`` asks for it, and write it to the file that ``--json`` names.

    Raises:
        OutputError: the file cannot be written.
    """
    echo(json_text if json_file == STDOUT else text)
    if json_file not in (None, STDOUT):
        content = {STAMP_KEY: COMMAND} | json.loads(json_text)  # by which it is known when the command is repeated
        files.write_text(json_file, json.dumps(content, indent=1) + "\n")
