"""The GPUs of a host are those in CUDA_VISIBLE_DEVICES, or else those that nvidia-smi lists."""

from pathlib import Path

import pytest

from pipeline import gpu


def nvidia_smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program of that name first on the path."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("visible", "found"),
    [("", []), ("-1", []), ("0", ["0"]), ("0, 2", ["0", "2"]), ("GPU-1a,GPU-2b", ["GPU-1a", "GPU-2b"])],
)
def test_visible_devices_are_obeyed(visible: str, found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu.devices() == found


def test_all_gpus_of_the_host_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(
        tmp_path, 'test "$*" = "--query-gpu=uuid --format=csv,noheader" && echo GPU-1a && echo GPU-2b', monkeypatch
    )
    assert gpu.devices() == ["GPU-1a", "GPU-2b"]


def test_a_broken_driver_is_an_error_and_not_a_host_without_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(tmp_path, "echo 'Driver/library version mismatch'; exit 18", monkeypatch)
    with pytest.raises(gpu.GpuError, match=r"Driver/library version mismatch.*CUDA_VISIBLE_DEVICES"):
        gpu.devices()


def test_a_host_without_nvidia_smi_has_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.devices() == []
