"""Several processes that train together: how they meet, and how one that is lost ends the others.

Most of it with a pause in place of the training; with JAX in tests/stages/execution/test_together.py.
"""

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
from stages.execution.distributed import VARIABLES, Processes, processes
from stages.parameters import Execution

ROOT = Path(__file__).parents[3]
# Does what stages/train.py does, but for the training.
PROGRAM = """
import sys, time, types
from stages.execution import distributed as processes
from stages.command import StageError
port, index, count, folder, does, patience = sys.argv[1:]
sys.modules["melnet.training.devices"] = types.SimpleNamespace(join=lambda *_, **__: None)
processes.JOIN_SECONDS, processes.PING_SECONDS, processes.SILENCE_SECONDS = int(patience), 0.2, 5
try:
    if processes.is_training():
        while does == "load":
            time.sleep(0.1)
        with processes.joined() as (index, count):
            print("training", flush=True)
            if does == "stop":
                raise StageError("models: no space left")
            if does == "fail":
                raise RuntimeError("gloo: no space left")
            while does == "stay":
                time.sleep(0.1)
            print("trained")
    else:
        this = processes.Processes("127.0.0.1", int(port), int(count), int(index))
        processes.watch(this, {"folder": folder}, lambda: "in epoch 3")
except StageError as error:
    sys.exit(f"train: {error}")
"""
HOST = re.escape(socket.gethostname())


@pytest.fixture
def start():
    """Starts one of the processes; all are ended after the test."""
    started = []
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])

    def one(index, does="stay", count=2, folder="here", patience=20):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, port, str(index), str(count), folder, does, str(patience)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield one
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def until_training(process):
    """Read until the training process of a pair says that it trains."""
    for line in process.stdout:
        if line == "training\n":
            return
    pytest.fail(process.stderr.read())


def training_process(process):
    """The process id of the other of a pair."""
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


def ended(process, seconds=60):
    output, error = process.communicate(timeout=seconds)
    return process.returncode, output, error


def test_both_train_to_the_end(start):
    for process in (start(0, "train"), start(1, "train")):
        status, output, error = ended(process)
        assert (status, error) == (0, "")
        assert output.endswith("training\ntrained\n")


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_killed_process_is_named_by_all_others(start, lost):
    all_of_them = [start(index, count=3) for index in range(3)]
    for process in all_of_them:
        until_training(process)
    all_of_them[lost].kill()
    for index in {0, 1, 2} - {lost}:
        status, _, error = ended(all_of_them[index])
        assert status == 1
        assert re.fullmatch(rf"train: process {lost} of 3 \((127\.0\.0\.1|{HOST})\) was lost in epoch 3\n", error)


def test_a_killed_process_takes_its_training_process_with_it(start):
    pair = [start(0), start(1)]
    for process in pair:
        until_training(process)
    pair[1].kill()
    # Its training process held the other end of these pipes.
    assert pair[1].communicate(timeout=30)[0] == ""


def test_a_process_that_is_silent_is_lost(start):
    pair = [start(0), start(1)]
    for process in pair:
        until_training(process)
    pair[1].send_signal(signal.SIGSTOP)
    status, _, error = ended(pair[0])
    assert (status, error) == (1, f"train: process 1 of 2 ({socket.gethostname()}) was lost in epoch 3\n")


def test_what_stops_one_is_said_once_and_stops_all(start):
    first, second = start(0), start(1, "stop")
    assert ended(second)[::2] == (1, "train: models: no space left\n")
    status, _, error = ended(first)
    assert status == 1
    assert error == (
        f"train: process 1 of 2 ({socket.gethostname()}) stopped with an error, which it has printed, in epoch 3\n"
    )


def test_an_unexpected_error_is_shown_where_it_happened(start):
    first, second = start(0), start(1, "fail")
    line = f"train: process 1 of 2 ({socket.gethostname()}) failed in epoch 3\n"
    status, _, error = ended(second)
    assert status == 1
    assert "RuntimeError: gloo: no space left\n" in error
    assert error.endswith(line)
    assert ended(first)[::2] == (1, line)


def test_a_killed_training_process_is_named(start):
    first, second = start(0), start(1)
    for process in (first, second):
        until_training(process)
    os.kill(training_process(second), signal.SIGKILL)
    line = f"train: process 1 of 2 ({socket.gethostname()}) was ended by SIGKILL in epoch 3\n"
    assert ended(second)[::2] == (1, "\n" + line)
    assert ended(first)[::2] == (1, line)


def test_a_training_process_that_hangs_is_named_and_ended(start):
    first, second = start(0), start(1)
    for process in (first, second):
        until_training(process)
    hanging = training_process(second)
    os.kill(hanging, signal.SIGSTOP)
    line = (
        f"train: process 1 of 2 ({socket.gethostname()}) hung: its training process was not heard of for 5 s, "
        "in epoch 3\n"
    )
    assert ended(second)[::2] == (1, "\n" + line)
    assert ended(first)[::2] == (1, line)
    assert not Path(f"/proc/{hanging}").exists()


def test_a_training_process_that_never_gets_to_say_anything_is_named(start):
    first, second = start(0), start(1, "load", patience=8)
    line = (
        f"train: process 1 of 2 ({socket.gethostname()}) hung: its training process was not heard of for 8 s, "
        "in epoch 3\n"
    )
    assert ended(second)[::2] == (1, "\n" + line)
    assert ended(first)[::2] == (1, line)


def test_processes_of_different_folders_do_not_start(start):
    first, second = start(0), start(1, folder="there")
    message = r"train: process 1 of 2 \(.+\) has another folder than process 0: there, not here; all have to see .*\n"
    for process in (first, second):
        status, output, error = ended(process)
        assert status == 1
        assert "training" not in output
        assert re.fullmatch(message, error)


def test_two_with_one_index_and_other_numbers_of_processes_are_named(start):
    first, *others = (start(index, count=3) for index in (0, 1, 1))
    assert "execution.index: 1 twice, on " in ended(first)[2]
    for process in others:
        assert ended(process)[0] == 1
    first, other = start(0, count=2), start(1, count=4)
    message = f"train: execution.processes: 2 for process 0, 4 for process 1 ({socket.gethostname()})\n"
    assert ended(first)[2] == ended(other)[2] == message


def test_whoever_does_not_come_is_named(start):
    message = ended(start(0, patience=2))[2]
    assert re.search(r"127\.0\.0\.1:\d+: process 1 of 2 did not come in 2 s\n$", message)


def test_a_stranger_is_sent_away(start):
    first = start(0, "train")
    port = int(first.args[3])
    for content in (b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b'{"index": 1}\n', b""):
        while True:
            try:
                stranger = socket.create_connection(("127.0.0.1", port))
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        with stranger:
            stranger.sendall(content)
            stranger.shutdown(socket.SHUT_WR)
            assert stranger.recv(100) == b""
    assert ended(start(1, "train"))[0] == ended(first)[0] == 0


ALONE = Execution(dask_scheduler=None, coordinator=None, processes=None, index=None)


def test_settings_and_environment(monkeypatch):
    for variable in VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    assert processes(ALONE) is None
    together = ALONE.model_copy(update={"coordinator": "[::1]:8476", "processes": 3, "index": 1})
    assert processes(together) == Processes("::1", 8476, 3, 1)
    assert processes(together.model_copy(update={"processes": 1})) is None
    monkeypatch.setenv("JAX_PROCESS_ID", "2")
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "gpu-0:80")
    assert processes(together) == Processes("gpu-0", 80, 3, 2)


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
    ],
)
def test_what_is_missing_or_does_not_fit_is_named(monkeypatch, environment, message):
    for variable in VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(StageError, match=message):
        processes(ALONE)
