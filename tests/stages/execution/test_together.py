"""The stage `train` on several devices and in several processes: the losses of one, also across kills."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pandas as pd
import pytest

from stages.model import model
from tests.stages.conftest import ROOT, SMALL, write_params, write_shards

EPOCHS = 5
# The stage, with what a test wants of it: "devices" on this CPU, and "kills" of the process with this index, at the
# third step of this epoch (from 1).
PROGRAM = """
import json, os, signal, sys
import keras
wanted = json.loads(sys.argv.pop())
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * wanted["devices"])
import stages.train as stage
from stages.execution import distributed as processes
from stages.command import main

class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch + 1
    def on_train_batch_end(self, batch, logs=None):
        if [int(os.environ.get("JAX_PROCESS_ID", 0)), self.now] == wanted.get("kills") and batch == 2:
            os.kill(os.getppid() if processes.is_training() else os.getpid(), signal.SIGKILL)
            signal.pause()

fit = stage.fit
stage.fit = lambda *arguments, callbacks=(), **others: fit(*arguments, callbacks=[*callbacks, Kill()], **others)
sys.argv[0] = "train"
main(stage.train, stage.__doc__, stage.arguments)
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A project before `train`; no last batch is full, that of the validation has slices for one device only."""
    folder = tmp_path_factory.mktemp("together")
    for name in ("dvc.yaml", "melnet", "stages"):
        (folder / name).symlink_to(ROOT / name)
    params = write_params(folder, SMALL | {"train": {"epochs": EPOCHS, "batch_size": 8}})
    write_shards(folder / "data/shards", params, {"train": 29, "valid": 11, "test": 8})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        model(params)
    return folder


def start(folder, backend, *, devices=1, kills=None, **environment):
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps({"devices": devices, "kills": kills})],
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "XLA_FLAGS": flags}
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    output, error = process.communicate(timeout=500)
    return process.returncode, output, error


def copy(prepared, folder):
    """The same project: it is read only, but for what the training makes."""
    folder.mkdir()
    for name in ("dvc.yaml", "melnet", "stages", "params.yaml", "data"):
        (folder / name).symlink_to(prepared / name)
    (folder / "models").mkdir()
    (folder / "models/melnet.json").write_bytes((prepared / "models/melnet.json").read_bytes())
    return folder


def history(folder):
    return pd.read_csv(folder / "metrics/history/tier-1.csv")


def assert_same(folder, reference):
    for column in ("epoch", "loss", "val_loss", "learning_rate"):
        assert (history(folder)[column] - history(reference)[column]).abs().max() <= 1e-5, column
    assert len(history(folder)) == EPOCHS


def pair(folder, **options):
    """Two processes on loopback: how each of them ended."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    both = [
        start(
            folder,
            "jax",
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(index),
            **options,
        )
        for index in range(2)
    ]
    return [ended(process) for process in both]


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.skipif(os.environ.get("FAULTS") == "bounded", reason="takes too long for the bounded form")
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_have_the_losses_of_one(prepared, tmp_path, backend):
    pytest.importorskip(backend)
    folders = [copy(prepared, tmp_path / name) for name in ("one", "two")]
    both = [start(folder, backend, devices=devices) for folder, devices in zip(folders, (1, 2), strict=True)]
    results = [ended(process) for process in both]
    for status, _, error in results:
        assert status == 0, error
    assert " on 2 devices" in results[1][1]
    assert_same(folders[1], folders[0])


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_two_processes_have_the_losses_of_one_whatever_is_killed(prepared, tmp_path):
    """From two processes to one, back to two, which both are killed once."""
    pytest.importorskip("jax")
    one, folder = (copy(prepared, tmp_path / name) for name in ("one", "several"))
    alone = start(one, "jax")
    (status, output, error), killed = pair(folder, kills=[1, 2])
    assert (status, killed[0]) == (1, -signal.SIGKILL)
    assert " on 2 devices" in output
    assert error == (
        f"train: process 1 of 2 ({socket.gethostname()}) was lost in epoch 2 of tier-1; the training goes on from "
        "epoch 1 when started again\n"
    )

    status, output, _ = ended(start(folder, "jax", kills=[0, 3]))
    assert status == -signal.SIGKILL
    assert "continuing after epoch 1\n" in output

    killed, (status, output, error) = pair(folder, kills=[0, 4])
    assert (killed[0], status) == (-signal.SIGKILL, 1)
    assert "continuing after epoch 2\n" in killed[1]
    assert error == (
        "train: process 0 of 2 (127.0.0.1) was lost in epoch 4 of tier-1; the training goes on from epoch 3 when "
        "started again\n"
    )
    assert "epoch" not in output  # only process 0 says how it goes on
    assert not (folder / "metrics").exists()

    for status, _, error in pair(folder):
        assert (status, error) == (0, "")
    assert ended(alone)[0] == 0
    assert_same(folder, one)


def test_what_cannot_be_divided_and_other_backends_are_named(prepared, tmp_path):
    folder = copy(prepared, tmp_path / "copy")
    status, _, error = ended(start(folder, "tensorflow", devices=3))
    message = "train: train.batch_size: 8 slices cannot be divided evenly between 3 devices; the nearest: 6 or 9\n"
    assert (status, error.endswith(message)) == (1, True)
    environment = {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}
    started = time.monotonic()
    status, _, error = ended(start(folder, "tensorflow", **environment))
    assert status == 1
    assert error.endswith("execution.coordinator: several processes train under KERAS_BACKEND=jax, not tensorflow\n")
    assert time.monotonic() - started < 120
