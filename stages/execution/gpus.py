"""The GPUs that this process was given, and whether Keras sees them; nothing here imports a library that uses them."""

import importlib.util
import os
import shutil
import subprocess

import psutil

from stages.command import StageError

OR_CPU = "or set CUDA_VISIBLE_DEVICES to an empty value to compute on the CPU"


class GpuError(RuntimeError):
    """The GPUs of this host cannot be listed, or there is none although GPU=1 asks for one."""


def gpus() -> list[str]:
    """The GPUs that may be used: those in CUDA_VISIBLE_DEVICES if it is set, else the UUIDs of all GPUs.

    Raises
    ------
    GpuError
        The driver does not answer, or the environment has GPU=1 and there is no GPU. An empty list instead would let
        training run on the CPU for weeks.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device.strip() for device in visible.split(",") if device.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        if os.environ.get("GPU") == "1":
            raise GpuError(f"GPU=1, but no nvidia-smi is on the path: install NVIDIA's driver, {OR_CPU}")
        return []
    listed = _query("uuid")
    found = listed.stdout.split()
    if listed.returncode or not found:
        said = f"{listed.stdout.strip()} {listed.stderr.strip()}".strip() or "lists no GPU"
        raise GpuError(f"nvidia-smi: {said}: mend the driver, {OR_CPU}")
    return found


def _query(*of: str) -> subprocess.CompletedProcess[str]:
    command = ["nvidia-smi", f"--query-gpu={','.join(of)}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True)


def device_memory() -> float:
    """Bytes of memory of the smallest GPU that may be used; where there is none, of this machine."""
    try:
        given = gpus()
    except GpuError as error:
        raise StageError(str(error)) from error
    if not given:
        return float(psutil.virtual_memory().total)
    rows = (line.split(", ") for line in _query("index", "uuid", "memory.total").stdout.splitlines())
    sizes = [float(mebibytes) for index, uuid, mebibytes in rows if {index, uuid} & set(given)]
    if not sizes:
        raise StageError(f"nvidia-smi: does not list GPU {', '.join(given)}")
    return min(sizes) * 2**20


def keras_device() -> str:
    """The name of the device that Keras computes on: ``cpu``, or for example ``NVIDIA H100 80GB HBM3``.

    Raises
    ------
    StageError
        This process was given a GPU, and Keras sees none.
    """
    try:
        given = gpus()
    except GpuError as error:
        raise StageError(str(error)) from error
    import keras  # here, since it takes seconds

    from melnet.training.devices import device_name

    name = device_name()
    if given and name == "cpu":
        if importlib.util.find_spec("nvidia"):
            remedy = "CUDA's libraries are installed, so the driver may be too old for CUDA 12 (nvidia-smi shows it)"
        else:
            remedy = "install requirements-gpu.lock, as make GPU=1 install does"
        raise StageError(f"GPU {', '.join(given)}: {keras.backend.backend()} does not see it: {remedy}, {OR_CPU}")
    return name
