"""The processes of a training on several machines: which one this is, and its share of a batch.

JAX's own distributed runtime through Keras: arrays are global, each process holds the part of them on its devices, and
every process runs the same steps. TensorFlow's way does not work with Keras 3
(https://github.com/keras-team/keras/issues/20585).
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from typing import Any

from unet_runtime.core.text import one_line
from unet_training.errors import TrainingError

logger = logging.getLogger(__name__)

AUTO = "auto"
"""``--hosts``: JAX finds the others by what Slurm, Open MPI or Kubernetes say."""

_ADVICE = (
    "start the same command on each, the first one's address with a free port that the others reach, and each with its "
    "own --host-number"
)
_ADVICE_AUTO = (
    "JAX looks for what srun (Slurm), mpirun (Open MPI) or Kubernetes (with the package kubernetes) tell each process: "
    "start it by one of them, or name the machines, --hosts HOST:PORT,HOST... and --host-number"
)

_is_among_others = False


def require_jax() -> None:
    """
    Raises:
        TrainingError: Keras would run on another backend.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "jax":
        raise TrainingError(
            f"--hosts: Keras runs on {backend}, expected jax: set KERAS_BACKEND=jax. TensorFlow's training on several "
            "machines does not work with Keras 3 (https://github.com/keras-team/keras/issues/20585), and Keras "
            "distributes nothing under torch"
        )


def connect(hosts: str, number: int | None) -> None:
    """Meet the other processes, before anything is computed; returns when all are there.

    Args:
        hosts: their addresses, with commas, of which the first has a port that the others reach; or ``AUTO``.
        number: which of ``hosts`` this process is, from 1.

    Raises:
        TrainingError: they do not meet.
    """
    import jax
    import keras

    keras.utils.set_random_seed(0)  # else Keras draws one, with a collective that few machines need
    try:
        if hosts == AUTO:
            jax.distributed.initialize()
        else:
            assert number is not None
            addresses = hosts.split(",")
            jax.distributed.initialize(addresses[0], len(addresses), number - 1)
    except Exception as error:  # RuntimeError, ValueError, JaxRuntimeError
        advice = _ADVICE_AUTO if hosts == AUTO else _ADVICE
        raise TrainingError(f"--hosts {hosts}: the processes do not meet ({one_line(error)}): {advice}") from error
    global _is_among_others
    _is_among_others = True
    logger.info("process %d of %d", index() + 1, count())


def leave() -> None:
    """Part from the others when all have trained: what is left to do, each does alone, and may take its time.

    JAX would have them wait for each other when they end, and after 300 seconds end all of them with SIGABRT: the first
    one within its report.
    """
    global _is_among_others
    if _is_among_others:
        import jax

        jax.distributed.shutdown()  # type: ignore[no-untyped-call]
        _is_among_others = False


def is_among_others() -> bool:
    """Whether others wait for this process. One that fails has to end at once: then their exchange with it fails.

    At an orderly end JAX would wait for the others first, and they for this one.
    """
    return _is_among_others


def count() -> int:
    """How many processes train together."""
    jax = _jax()
    return jax.process_count() if jax else 1


def index() -> int:
    """Which of them this is, from 0."""
    jax = _jax()
    return jax.process_index() if jax else 0


def is_first() -> bool:
    """Whether this process writes what all of them made."""
    return index() == 0


def share(photos: int) -> slice:
    """Which photos of a batch of so many are this process'; ``check_batch`` has seen that all get as many."""
    own = photos // count()
    return slice(index() * own, (index() + 1) * own)


def cpu() -> str:
    """Keras' name of a CPU of this process: ``cpu`` alone is the first process'."""
    jax = _jax()
    return "cpu" if jax is None or jax.process_count() == 1 else f"cpu:{jax.local_devices(backend='cpu')[0].id}"


def agree(what: str, value: str) -> None:
    """Make sure that all processes have the same of something: where one goes another way, the others wait for it.

    Raises:
        TrainingError: they have not, or do not answer.
    """
    if count() == 1:
        return
    import numpy as np
    from jax.experimental import multihost_utils

    digest = np.frombuffer(hashlib.sha256(value.encode()).digest()[:4], np.int32)
    try:
        every = np.asarray(multihost_utils.process_allgather(digest)).reshape(-1)
    except (ValueError, RuntimeError) as error:  # JaxRuntimeError among them
        raise TrainingError(
            f"--hosts: the others do not answer, one may have ended ({one_line(error)}): see what each has said, and "
            "start all of them again"
        ) from error
    others = [number for number, other in enumerate(every.tolist(), 1) if other != digest[0]]
    if others:
        raise TrainingError(
            f"--hosts: process {index() + 1} has {what} {value[:100]}, process {others[0]} another: give all the same "
            "command, the same photos, and one --output that all machines share"
        )


def _jax() -> Any:
    """JAX, where Keras runs on it."""
    keras = sys.modules.get("keras")
    return sys.modules["jax"] if keras is not None and keras.backend.backend() == "jax" else None
