"""A training of two processes on this machine: what one makes of whole batches; resumed with another number of them.

The processes exchange sums through gloo, as machines do. (Two devices of one process: test_backends.py.)
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.helpers.paths import REPOSITORY
from unet_training import processes
from unet_training.cli.command import command
from unet_training.data import synthetic
from unet_training.errors import TrainingError

SLOW = pytest.mark.skipif(not os.environ.get("SLOW_TESTS"), reason="minutes: set SLOW_TESTS=1")
MAIN = "from unet_training.cli.command import main; main()"


NETWORK = ["--preset", "demo", "--width", "4", "--depth", "1", "--size", "32", "--batch-size", "4", "--ema", "0.8"]
OPTIONS = [*NETWORK, "--augment", "--rotation", "10", "--cut-out", "0.3", "--border-weight", "2"]
OPTIONS += ["--region-loss", "dice"]  # counted over the whole batch: a process' part has another one


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "pictures"
    synthetic.ensure_dataset(folder, train=30, test=10, seed=1)
    return folder


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def train(
    pictures: Path,
    outputs: Sequence[Path],
    epochs: int,
    *more: str,
    killed: bool = False,
    slurm: bool = False,
    last: Sequence[str] = (),
) -> list[tuple[int, str]]:
    """Exit code and standard error of each of the processes that train together, one for each of their outputs.

    ``killed``: all of them, when the first has written a checkpoint. ``slurm``: they are told of each other by what
    Slurm's srun sets, not by addresses. ``last``: further arguments of the last one.
    """
    checkpoint = outputs[0] / "checkpoint.npz"
    before = written(checkpoint)
    arguments = ["--data", str(pictures), "--epochs", str(epochs), "--no-cache"]
    arguments += ["--name", "x", *OPTIONS, *more]
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # of XLA, which takes longer than these trainings
    }
    hosts = ",".join([f"127.0.0.1:{free_port()}", "127.0.0.1"])
    running = []
    for number, output in enumerate(outputs, 1):
        own = ["--output", str(output)]
        told = slurm_variables(len(outputs), number - 1) if slurm else {}
        if slurm:
            own += ["--hosts", "auto"]
        elif len(outputs) > 1:
            own += ["--hosts", hosts, "--host-number", str(number)]
        own += last if number == len(outputs) else []
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", MAIN, *arguments, *own],
                cwd=REPOSITORY,
                env=environment | told,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    while killed and written(checkpoint) == before and running[0].poll() is None:
        time.sleep(0.05)
    ended = []
    try:
        for process in running:
            if killed:
                process.kill()
            _, errors = process.communicate(timeout=900)
            ended.append((process.returncode, errors))
    finally:
        for process in running:
            process.kill()
    return ended


def slurm_variables(count: int, number: int) -> dict[str, str]:
    """What srun tells a process, of those that JAX looks at: it makes its port of the job's number."""
    return {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(count),
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": str(number),
    }


def written(path: Path) -> int | None:
    """When a file was written; None: it is not there."""
    return path.stat().st_mtime_ns if path.exists() else None


def history(output: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = json.loads((output / "history.json").read_text())
    return found


def close(here: dict[str, list[float]], there: dict[str, list[float]]) -> None:
    for name in ("loss", "cross_entropy"):
        assert here[name] == pytest.approx(there[name], rel=1e-3), name
    assert here["pixel_accuracy"] == pytest.approx(there["pixel_accuracy"], abs=5e-3)  # of 5,120 pixels


@SLOW
def test_two_processes_train_what_one_does(pictures: Path, tmp_path: Path) -> None:
    alone, together, changing = (tmp_path / name for name in ("alone", "together", "changing"))
    ((code, errors),) = train(pictures, [alone], 3)
    assert code == 0, errors
    ended = train(pictures, [together] * 2, 3)
    assert [code for code, _ in ended] == [0, 0], ended
    assert "each batch is shared by 2 devices" in ended[0][1]
    assert "epoch 3/3" in ended[0][1]
    assert "epoch 3/3" not in ended[1][1]
    close(history(together), history(alone))

    # Two processes do the first epoch, one the second, two the last: the same curve.
    for outputs in ([changing] * 2, [changing]):
        ended = train(pictures, outputs, 3, "--resume", killed=True)
        assert [code for code, _ in ended] == [-signal.SIGKILL] * len(outputs), ended
    ended = train(pictures, [changing] * 2, 3, "--resume")
    assert [code for code, _ in ended] == [0, 0], ended
    close(history(changing), history(together))


@SLOW
def test_slurm_tells_them_of_each_other(pictures: Path, tmp_path: Path) -> None:
    ended = train(pictures, [tmp_path] * 2, 1, slurm=True)
    assert [code for code, _ in ended] == [0, 0], ended
    assert "each batch is shared by 2 devices" in ended[0][1]
    assert len(history(tmp_path)["loss"]) == 1


@SLOW
def test_one_that_fails_keeps_nobody_waiting(pictures: Path, tmp_path: Path) -> None:
    ended = train(pictures, [tmp_path] * 2, 1, last=["--weights", str(tmp_path / "absent.keras")])
    assert ended[1][0] == 3
    assert "absent.keras" in ended[1][1]
    assert ended[0][0] not in (0, 1)


@SLOW
def test_processes_that_would_go_on_from_different_places(pictures: Path, tmp_path: Path) -> None:
    """One would wait for the other."""
    one, other = tmp_path / "one", tmp_path / "other"
    ((code, errors),) = train(pictures, [one], 1)
    assert code == 0, errors
    ended = train(pictures, [one, other], 2, "--resume")
    assert [code for code, _ in ended] == [3, 3], ended
    assert "one --output that all machines share" in ended[0][1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host-number", "1"], "--host-number without --hosts"),
        (["--hosts", "a:7000,b"], "--host-number None, expected 1 to 2"),
        (["--hosts", "a:7000,b", "--host-number", "3"], "--host-number 3, expected 1 to 2"),
        (["--hosts", "a,b", "--host-number", "1"], "expected HOST:PORT,HOST..."),
        (["--hosts", "a:7000,", "--host-number", "1"], "expected HOST:PORT,HOST..."),
        (["--hosts", "auto", "--host-number", "1"], "leave it out"),
        (["--hosts", "a:7000,b", "--host-number", "1", "--distribute", "none"], "--hosts and --distribute none"),
        (["--hosts", "a:7000,b", "--host-number", "1", "--tensorboard", "logs"], "--hosts and --tensorboard"),
    ],
)
def test_hosts_that_make_no_sense(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("backend", "reason"), [("tensorflow", "keras/issues/20585"), ("torch", "Keras runs on torch")]
)
def test_another_backend_is_refused(backend: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", backend)
    result = CliRunner().invoke(command, ["--hosts", "a:7000,b", "--host-number", "1"], standalone_mode=False)
    assert reason in str(result.exception)


def test_no_cluster_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri", "KUBERNETES_SERVICE_HOST", "JAX_COORDINATOR_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(TrainingError, match=r"--hosts auto: .*: JAX looks for what srun .*, or name the machines"):
        processes.connect("auto", None)
