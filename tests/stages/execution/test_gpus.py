"""GPUs are those in CUDA_VISIBLE_DEVICES, or else those that nvidia-smi lists; Keras must see them."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from stages.command import StageError
from stages.execution.gpus import GpuError, device_memory, gpus, keras_device
from stages.parameters import load_params
from stages.train import train

ROOT = Path(__file__).parents[3]
TWO_GPUS = """case $1 in
--query-gpu=uuid) echo GPU-1a; echo GPU-2b;;
--query-gpu=index,uuid,memory.total) echo 0, GPU-1a, 81559; echo 1, GPU-2b, 40960;;
*) exit 1;;
esac"""


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for variable in ("CUDA_VISIBLE_DEVICES", "GPU"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a program of that name first on the path."""

    def put(script):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return put


@pytest.mark.parametrize(
    ("visible", "found"),
    [("", []), ("-1", []), ("0", ["0"]), ("0, 2", ["0", "2"]), ("GPU-1a,GPU-2b", ["GPU-1a", "GPU-2b"])],
)
def test_visible_devices_are_obeyed(visible, found, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv("GPU", "1")
    assert gpus() == found


def test_all_gpus_of_the_host_are_listed(nvidia_smi):
    nvidia_smi(TWO_GPUS)
    assert gpus() == ["GPU-1a", "GPU-2b"]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'Driver/library version mismatch'; exit 18", "Driver/library version mismatch.*CUDA_VISIBLE_DEVICES"),
        ("exit 0", "nvidia-smi: lists no GPU.*CUDA_VISIBLE_DEVICES"),
    ],
)
def test_a_broken_driver_is_an_error_and_not_a_host_without_gpus(nvidia_smi, script, message):
    nvidia_smi(script)
    with pytest.raises(GpuError, match=message):
        gpus()


def test_a_host_without_nvidia_smi_has_no_gpu(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == []
    assert keras_device() == "cpu"
    monkeypatch.setenv("GPU", "1")
    with pytest.raises(StageError, match=r"^GPU=1, but no nvidia-smi is on the path: install NVIDIA's driver, or set"):
        keras_device()


@pytest.mark.parametrize(("visible", "mebibytes"), [(None, 40960), ("GPU-1a", 81559), ("1", 40960)])
def test_the_memory_is_that_of_the_smallest_gpu(nvidia_smi, monkeypatch, visible, mebibytes):
    nvidia_smi(TWO_GPUS)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device_memory() == mebibytes * 2**20


def test_the_memory_of_a_gpu_that_is_not_there(nvidia_smi, monkeypatch):
    nvidia_smi(TWO_GPUS)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(StageError, match=r"^nvidia-smi: does not list GPU 7$"):
        device_memory()


def test_a_gpu_that_keras_does_not_see_stops_a_training(nvidia_smi, tmp_path, monkeypatch):
    params = load_params(ROOT / "params.yaml")
    config = SimpleNamespace(tiers=params.model.tier_names, normalisation=None)
    monkeypatch.setattr("stages.train.load_config", lambda _: config)
    monkeypatch.chdir(tmp_path)
    remedies = r"install requirements-gpu\.lock, as make GPU=1 install does|CUDA's libraries are installed, so .*"
    unseen = rf"does not see it: ({remedies}), or"
    nvidia_smi(TWO_GPUS)
    with pytest.raises(StageError, match=rf"^GPU GPU-1a, GPU-2b: \w+ {unseen} set CUDA_VISIBLE_DEVICES to an empty"):
        train(params)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-2b")  # as a run of Prefect sets it
    with pytest.raises(StageError, match=rf"^GPU GPU-2b: \w+ {unseen}"):
        train(params)
    # With the CPU asked for, it gets as far as the data, which are not there.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(StageError, match="data/shards/train"):
        train(params)
