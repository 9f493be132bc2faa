"""The stage `train` on several devices and in several processes: the losses of one, also across kills."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import keras
import pandas as pd
import pytest

from stages.command import StageError
from stages.execution import distributed
from stages.model import model
from stages.parameters import load_params
from stages.train import train
from tests.stages.conftest import ROOT, SMALL, write_params, write_shards

EPOCHS = 5
PREVIEWED = {"execution": {"preview_every": EPOCHS}}
# The stage, with what a test wants of it: "devices" on this CPU, and a "signal" that the process with this index gets
# at the third step of this epoch (from 1).
PROGRAM = """
import json, os, sys
from pathlib import Path
import keras
wanted = json.loads(sys.argv.pop())
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * wanted["devices"])
import stages.train as stage
from stages.command import main

class Signal(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.now = [int(os.environ.get("JAX_PROCESS_ID", 0)), epoch + 1]
    def on_train_batch_end(self, batch, logs=None):
        *when, number = wanted["signal"]
        if self.now == when and batch == 2:
            Path("signalled").touch()
            os.kill(os.getpid(), number)

fit = stage.fit
stage.fit = lambda *arguments: fit(*arguments[:-1], [*arguments[-1], Signal()])
sys.argv[0] = "train"
main(stage.train, stage.__doc__, stage.arguments)
"""
NEVER = (0, 0, 0)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A project before `train`; the last batch of the validation has slices for one device only."""
    folder = tmp_path_factory.mktemp("together")
    for name in ("dvc.yaml", "melnet", "stages"):
        (folder / name).symlink_to(ROOT / name)
    params = write_params(folder, SMALL | {"train": SMALL["train"] | {"epochs": EPOCHS}} | PREVIEWED)
    write_shards(folder / "data/shards", params, {"train": 29, "valid": 11, "test": 8})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        model(params)
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts the stage; its processes are ended after the tests of this module."""
    cache = tmp_path_factory.mktemp("compiled")
    started = []

    def one(folder, backend, *, devices=1, signalled=NEVER, **environment):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps({"devices": devices, "signal": signalled})],
            cwd=folder,
            env=os.environ
            | {
                "PYTHONPATH": str(ROOT),
                "KERAS_BACKEND": backend,
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
                # JAX compiles the same step once for all tests.
                "JAX_COMPILATION_CACHE_DIR": str(cache),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            }
            | environment,
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


@pytest.fixture(scope="module")
def start_pair(start):
    """Starts two processes on loopback that train together."""

    def pair(folder, **options):
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        together = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
        return [start(folder, "jax", JAX_PROCESS_ID=str(index), **together, **options) for index in range(2)]

    return pair


@pytest.fixture(scope="module")
def by_one_jax_process(prepared, start):
    """A project after a training by one process under JAX, on one device, undisturbed."""
    pytest.importorskip("jax")
    folder = copy(prepared, prepared.parent / "together-one-jax")
    status, _, error = ended(start(folder, "jax"))
    assert status == 0, error
    return folder


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


def in_micro_batches(folder):
    """The same training, a step of which takes the batch in two turns."""
    (folder / "params.yaml").unlink()
    write_params(folder, SMALL | {"train": SMALL["train"] | {"epochs": EPOCHS, "accumulate": 2}} | PREVIEWED)
    return folder


def history(folder):
    return pd.read_csv(folder / "metrics/history/tier-1.csv")


def assert_same(folder, reference):
    for column in ("epoch", "loss", "val_loss", "learning_rate"):
        assert (history(folder)[column] - history(reference)[column]).abs().max() <= 1e-5, column
    assert len(history(folder)) == EPOCHS
    assert (folder / f"logs/tier-1/previews/epoch-{EPOCHS:04d}-1.wav").exists()


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.skipif(os.environ.get("FAULTS") == "bounded", reason="takes too long for the bounded form")
def test_two_devices_have_the_losses_of_one_under_tensorflow(prepared, tmp_path, start):
    folders = [copy(prepared, tmp_path / "one"), in_micro_batches(copy(prepared, tmp_path / "two"))]
    both = [start(folder, "tensorflow", devices=devices) for folder, devices in zip(folders, (1, 2), strict=True)]
    results = [ended(process) for process in both]
    for status, _, error in results:
        assert status == 0, error
    assert " on 2 devices" in results[1][1]
    assert_same(folders[1], folders[0])


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.skipif(os.environ.get("FAULTS") == "bounded", reason="takes too long for the bounded form")
def test_two_devices_have_the_losses_of_one_under_jax(by_one_jax_process, prepared, tmp_path, start):
    folder = in_micro_batches(copy(prepared, tmp_path / "two"))
    status, output, error = ended(start(folder, "jax", devices=2))
    assert status == 0, error
    assert " on 2 devices" in output
    assert_same(folder, by_one_jax_process)


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_two_processes_have_the_losses_of_one_whatever_is_killed(
    by_one_jax_process, prepared, tmp_path, start, start_pair
):
    """From two processes to one, back to two; each time one of them is killed or stopped."""
    folder = copy(prepared, tmp_path / "several")
    (status, output, error), killed = map(ended, start_pair(folder, signalled=(1, 2, signal.SIGKILL)))
    assert (status, killed[0]) == (1, -signal.SIGKILL)
    assert " on 2 devices" in output
    assert "Gloo" in error
    assert "start all again: they continue after the last finished epoch" in error

    status, output, _ = ended(start(folder, "jax", signalled=(0, 3, signal.SIGKILL)))
    assert status == -signal.SIGKILL
    assert "continuing after epoch 1\n" in output

    stopped, other = start_pair(folder, signalled=(0, 4, signal.SIGSTOP))
    status, output, error = ended(other)
    assert time.time() - (folder / "signalled").stat().st_mtime < 60
    assert status == -signal.SIGABRT
    assert "Terminating process because the JAX distributed service detected fatal errors" in error
    assert "epoch" not in output  # only process 0 says how the training proceeds
    stopped.kill()
    assert "continuing after epoch 2\n" in ended(stopped)[1]
    assert not (folder / "metrics").exists()

    first, second = map(ended, start_pair(folder))
    for status, _, error in (first, second):
        assert status == 0, error
    assert "tier-1" in first[1]
    assert "tier-1" not in second[1] + second[2]
    assert_same(folder, by_one_jax_process)


def test_what_cannot_be_divided_and_other_backends_are_named(prepared, tmp_path, start):
    folder = copy(prepared, tmp_path / "copy")
    started = time.monotonic()
    undivided = start(folder, "tensorflow", devices=3)
    environment = {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}
    other_backend = start(folder, "tensorflow", **environment)
    status, _, error = ended(undivided)
    message = "train: train.batch_size: 8 slices cannot be divided evenly between 3 devices; the nearest: 6 or 9\n"
    assert (status, error.endswith(message)) == (1, True)
    status, _, error = ended(other_backend)
    assert status == 1
    assert error.endswith("execution.coordinator: several processes train under KERAS_BACKEND=jax, not tensorflow\n")
    assert time.monotonic() - started < 120


def test_settings_data_tiers_and_finished_epochs_are_compared(prepared, tmp_path, monkeypatch):
    pytest.importorskip("jax")
    folder = copy(prepared, tmp_path / "copy")
    (folder / "data").unlink()
    shutil.copytree(prepared / "data", folder / "data")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(distributed, "launch", lambda _: distributed.Launch("127.0.0.1:1", 2, 0))
    compared = []

    def joined(_, agreed):
        compared.append(agreed)
        raise StageError("enough")

    monkeypatch.setattr(distributed, "joined", joined)

    def agreed(params):
        with pytest.raises(StageError, match="enough"):
            train(params)
        return compared.pop()

    params = load_params(folder / "params.yaml")
    digest, epochs = "digest of settings, code, data and libraries", "number of finished epochs in checkpoints"
    before = agreed(params)
    assert (before["list of tiers"], before[epochs]) == ("tier-1", "0")
    other_seed = params.train.model_copy(update={"seed": params.train.seed + 1})
    other = agreed(params.model_copy(update={"train": other_seed}))
    assert {name for name in before if before[name] != other[name]} == {digest}
    monkeypatch.setattr("stages.train.finished_epochs", lambda *_: 3)
    other = agreed(params)
    assert {name: other[name] for name in before if before[name] != other[name]} == {epochs: "3"}
    (folder / "data/shards/normalisation.json").write_text("{}")
    assert agreed(params)[digest] != before[digest]
