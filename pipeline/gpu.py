"""Lends a GPU of this host to a task."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.settings import get_current_settings

from pipeline.lock import Resource, lock_any
from stages.execution.gpus import gpus

LIMIT = "gpu"  # Prefect's global concurrency limit: one slot per GPU, or one slot on a host without GPUs
LEASE_SECONDS = 60.0  # until the slot of a killed run, which could not return it, is free; the server accepts no less


@contextmanager
def lock_gpu(holder: str, log: Callable[[str], object]) -> Iterator[dict[str, str]]:
    """Wait for a slot of the global limit and a free GPU; yield the environment variables that select the GPU."""
    log(f"asking for a slot of the global limit {LIMIT!r}")
    # Training goes on while the server is away: losing the lease must not end it, and the lock below still keeps other
    # runs off the GPU.
    with concurrency(LIMIT, occupy=1, strict=True, lease_duration=LEASE_SECONDS, raise_on_lease_renewal_failure=False):
        folder = get_current_settings().home / "gpus"
        found = [
            Resource(f"GPU {device}", folder / f"{device.replace('/', '-')}.lock", "MELNET_GPU", device)
            for device in gpus()
        ]
        if not found:
            log("this host has no GPU: the slot stands for its CPU")
            yield {"CUDA_VISIBLE_DEVICES": ""}
            return
        with lock_any(found, holder, log) as gpu:
            log(f"using {gpu.name}")
            yield {"CUDA_VISIBLE_DEVICES": gpu.value, **gpu.environment}


def server_unreachable(error: object) -> bool:
    """Return whether :func:`lock_gpu` failed because the server did not answer; False if it has no such limit."""
    return isinstance(error, ConcurrencySlotAcquisitionError) and error.__cause__ is not None
