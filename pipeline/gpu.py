"""Which GPUs this host has, and the one that a task may use."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.settings import get_current_settings

from pipeline.lock import Claim, claimed

LIMIT = "gpu"  # Prefect's global concurrency limit: as many slots as GPUs, one on a host without
# s after which the slot of a run that was killed, and so could not give it back, is free again; the server's least.
LEASE = 60.0


class GpuError(RuntimeError):
    """The GPUs of this host cannot be listed."""


def devices() -> list[str]:
    """The GPUs that may be used: those of CUDA_VISIBLE_DEVICES where it is set, else all of the host's, by UUID."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device.strip() for device in visible.split(",") if device.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"], capture_output=True, text=True)
    if listed.returncode:
        # Not an empty list: on a GPU host whose driver is broken, training would silently take weeks.
        raise GpuError(
            f"nvidia-smi: {listed.stdout.strip()} {listed.stderr.strip()}; "
            "set CUDA_VISIBLE_DEVICES to an empty value to run on the CPU"
        )
    return listed.stdout.split()


class NoAnswer(RuntimeError):
    """The server gave no answer to the wish for a slot; it may later."""


@contextmanager
def pinned(holder: str, log: Callable[[str], object]) -> Iterator[dict[str, str]]:
    """Wait for a slot of the global limit and a GPU that no other run has; the variables that pin a stage to it."""
    log(f"asking for a slot of the global limit {LIMIT!r}")
    with ExitStack() as slot:
        try:
            # A training outlasts a server that is away for a while: losing the lease must not end it. The claim below
            # still keeps others off the GPU.
            slot.enter_context(
                concurrency(LIMIT, occupy=1, strict=True, lease_duration=LEASE, raise_on_lease_renewal_failure=False)
            )
        except ConcurrencySlotAcquisitionError as error:
            if error.__cause__ is None:  # there is no such limit
                raise
            raise NoAnswer(str(error)) from error
        folder = get_current_settings().home / "gpus"
        choices = [
            Claim(f"GPU {device}", folder / f"{device.replace('/', '-')}.lock", "MELNET_GPU", device)
            for device in devices()
        ]
        if not choices:
            log("this host has no GPU: the slot stands for its CPU")
            yield {"CUDA_VISIBLE_DEVICES": ""}
            return
        with claimed(choices, holder, log) as claim:
            log(f"using {claim.what}")
            yield {"CUDA_VISIBLE_DEVICES": claim.value, **claim.mark}
