"""Several processes that train together: how they meet, and how one that is lost ends the others.

JAX's own collectives in place of the training, which is in tests/stages/execution/test_together.py.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.command import StageError
from stages.execution.distributed import VARIABLES, Launch, launch
from stages.parameters import Execution

pytest.importorskip("jax")
ROOT = Path(__file__).parents[3]
# Does what stages/train.py does, with sums of small arrays for the training.
PROGRAM = """
import json, os, sys
from stages.execution import distributed
from stages.command import StageError
launch, agreed, does, distributed.JOIN_SECONDS, distributed.HEARTBEAT_SECONDS = json.loads(sys.argv[1])
try:
    with distributed.joined(distributed.Launch(*launch), agreed) as (index, count):
        from jax.experimental.multihost_utils import process_allgather
        print("training", index, count, flush=True)
        if does == "stop":
            raise StageError("models: no space left")
        if does == "fail":
            raise RuntimeError("no such weights")
        while does == "stay":
            process_allgather(0.0)
        print("trained")
except StageError as error:
    sys.exit(f"train: {error}")
"""
STAY, TRAIN, STOP, FAIL = "stay", "train", "stop", "fail"


@pytest.fixture
def address():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def start(address):
    """Starts one of the processes; all are ended after the test."""
    started = []

    def one(index, does=STAY, count=2, agreed="here", join=120, heartbeat=30, by_hand=True, **environment):
        where = (address, count, index) if by_hand else (None, None, None)
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps([where, {"folder": agreed}, does, join, heartbeat])],
            env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield one
    for process in started:
        process.kill()
        process.communicate()


def until_training(process):
    for line in process.stdout:
        if line.startswith("training"):
            return
    pytest.fail(process.stderr.read())


def ended(process, seconds=60):
    output, error = process.communicate(timeout=seconds)
    return process.returncode, output, error


def test_they_train_to_the_end_and_a_stranger_is_sent_away(start, address):
    first = start(0, TRAIN)
    host, port = address.split(":")
    while True:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            break
        time.sleep(0.05)
    for index, process in enumerate((first, start(1, TRAIN))):
        status, output, error = ended(process)
        assert (status, error) == (0, "")
        assert output.endswith(f"training {index} 2\ntrained\n")


def test_slurm_tells_them_where_to_meet(start, address):
    """Its variables, as `srun` sets them."""
    host, port = address.split(":")
    job = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": host, "SLURM_NTASKS": "2", "JAX_COORDINATOR_PORT": port}
    processes = [
        start(None, TRAIN, by_hand=False, SLURM_PROCID=str(index), SLURM_LOCALID=str(index), **job)
        for index in range(2)
    ]
    for index, process in enumerate(processes):
        status, output, error = ended(process)
        assert (status, error) == (0, "")
        assert output.endswith(f"training {index} 2\ntrained\n")


def test_without_a_cluster_to_ask_the_setting_is_named(start):
    status, _, error = ended(start(None, by_hand=False))
    assert status == 1
    assert error == (
        "train: execution.coordinator: auto (Slurm, Open MPI 4 or Kubernetes): JAX cannot connect the processes: "
        "coordinator_address should be defined.\n"
    )


@pytest.mark.parametrize(
    ("lost", "count", "how"), [(0, 2, signal.SIGKILL), (0, 2, signal.SIGSTOP), (2, 3, signal.SIGSTOP)]
)
def test_a_lost_process_ends_all_others(start, lost, count, how):
    processes = [start(index, count=count, heartbeat=5) for index in range(count)]
    for process in processes:
        until_training(process)
    processes[lost].send_signal(how)
    started = time.monotonic()
    for index in {*range(count)} - {lost}:
        assert ended(processes[index])[0] != 0
    assert time.monotonic() - started < 20


def test_sigterm_ends_a_process(start):
    process = start(0, count=1)
    until_training(process)
    process.terminate()
    assert ended(process)[0] == -signal.SIGTERM


@pytest.mark.parametrize(("index", "does"), [(0, STOP), (1, FAIL)])
def test_an_error_in_one_ends_all_before_any_heartbeat_is_missed(start, index, does):
    stays, fails = start(1 - index, heartbeat=60), start(index, does, heartbeat=60)
    until_training(fails)
    started = time.monotonic()
    status, _, error = ended(fails)
    assert status == 1
    if does == STOP:
        assert error == "train: models: no space left\n"
    else:
        assert "RuntimeError: no such weights\n" in error
        assert error.endswith("start all again: they continue after the last finished epoch.\n")
    assert ended(stays)[0] != 0
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"agreed": "there"}, r"process 1 of 2 \(.+\) has another folder than process 0: there, not here; all must .*"),
        ({"count": 4}, r"process 1 of 2 \(.+\) has another execution\.processes than process 0: 4, not 2; all must .*"),
        (
            {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
            "all processes must have equally many devices; there are 1 in process 0, 2 in process 1",
        ),
    ],
)
def test_processes_that_differ_say_so_and_do_not_train(start, other, message):
    for process in (start(0, XLA_FLAGS=""), start(1, **{"XLA_FLAGS": ""} | other)):
        status, output, error = ended(process)
        assert status == 1
        assert "training" not in output
        assert re.fullmatch(f"train: {message}\n", error)


def test_one_that_does_not_come_and_two_with_one_index_end_the_wait(start):
    for process in [start(index, count=3, join=1) for index in (0, 1, 1)]:
        status, output, error = ended(process)
        assert status == -signal.SIGABRT
        assert re.fullmatch(r"execution\.coordinator: .+: waiting for all processes, 1 s at most\n", output)
        assert "Terminating process because the JAX distributed service detected fatal errors" in error


def test_an_address_that_is_taken_is_named(start, address):
    host, port = address.split(":")
    with socket.create_server((host, int(port))):
        status, _, error = ended(start(0))
    assert status == 1
    assert re.fullmatch(rf"train: execution\.coordinator: {address}: process 0 cannot listen there: .+\n", error)


ALONE = Execution(dask_scheduler=None, coordinator=None, processes=None, index=None)


@pytest.fixture
def no_variables(monkeypatch):
    for variable in VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.usefixtures("no_variables")
def test_settings_and_environment(monkeypatch):
    assert launch(ALONE) is None
    assert launch(ALONE.model_copy(update={"coordinator": "auto"})) == Launch(None, None, None)
    together = ALONE.model_copy(update={"coordinator": "[::1]:8476", "processes": 3, "index": 1})
    assert launch(together) == Launch("[::1]:8476", 3, 1)
    assert launch(together.model_copy(update={"processes": 1})) is None
    monkeypatch.setenv("JAX_PROCESS_ID", "2")
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "gpu-0:80")
    assert launch(together) == Launch("gpu-0:80", 3, 2)
    monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
    assert launch(ALONE.model_copy(update={"coordinator": "auto"})) == Launch("gpu-0:80", 4, 2)


@pytest.mark.usefixtures("no_variables")
@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"JAX_PROCESS_ID": "0"}, r"execution\.coordinator \(or JAX_COORDINATOR_ADDRESS\) is missing.*index: 0$"),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2"},
            r"execution\.index \(or JAX_PROCESS_ID\) is mis",
        ),
        ({"JAX_COORDINATOR_ADDRESS": "a", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, "'a' is not host:port"),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"},
            "index: 2 is none of the 2",
        ),
        ({"JAX_NUM_PROCESSES": "two"}, r"JAX_NUM_PROCESSES: 'two' is no whole number"),
        ({"JAX_COORDINATOR_ADDRESS": "auto"}, r"execution\.processes \(or JAX_NUM_PROCESSES\) is missing"),
    ],
)
def test_what_is_missing_or_does_not_fit_is_named(monkeypatch, environment, message):
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(StageError, match=message):
        launch(ALONE)
