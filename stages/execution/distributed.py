"""Training by several processes on one or more hosts, which JAX connects, with the results of one process.

Nothing here changes a result, so no stage of the graph depends on this module.
"""

import atexit
import os
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from stages.command import StageError
from stages.parameters import ADDRESS, AUTO, Execution

# The environment comes before the settings. JAX's own programs look at these variables too.
VARIABLES = {
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "processes": "JAX_NUM_PROCESSES",
    "index": "JAX_PROCESS_ID",
}
JOIN_SECONDS = 300  # how long the processes wait for each other at the start
HEARTBEAT_SECONDS = 30  # after which JAX takes a process that sends no heartbeats for lost, and ends the others
TEXT_BYTES = 256  # of each text that processes exchange


class Launch(NamedTuple):
    """How the processes find each other; None for all where Slurm, Open MPI or Kubernetes tells JAX."""

    coordinator: str | None
    processes: int | None
    process_id: int | None


class Disagreement(StageError):
    """All processes raise this error alike, so that they can end together."""


def launch(execution: Execution) -> Launch | None:
    """Read the settings, and the environment before them; None for a process that trains alone.

    Raises
    ------
    StageError
        If some of the values are missing, or do not fit together.
    """
    if execution.coordinator == AUTO and not any(os.environ.get(variable) for variable in VARIABLES.values()):
        return Launch(None, None, None)
    values: dict[str, Any] = {}
    for key, variable in VARIABLES.items():
        values[key], text = getattr(execution, key), os.environ.get(variable)
        if text:
            try:
                values[key] = text if key == "coordinator" else int(text)
            except ValueError:
                raise StageError(f"{variable}: {text!r} is no whole number") from None
    given = {key: value for key, value in values.items() if value is not None}
    if not given or values["processes"] == 1:
        return None
    for key, variable in VARIABLES.items():
        if key not in given:
            known = ", ".join(f"{name}: {value}" for name, value in given.items())
            raise StageError(f"execution.{key} (or {variable}) is missing, but there is {known}")
    if not re.fullmatch(ADDRESS, values["coordinator"]):
        raise StageError(f"execution.coordinator: {values['coordinator']!r} is not host:port")
    if not 0 <= values["index"] < values["processes"]:
        raise StageError(
            f"execution.index: {values['index']} is none of the {values['processes']} processes, which count from 0"
        )
    return Launch(*values.values())


@contextmanager
def joined(launch: Launch, agreed: dict[str, str]) -> Iterator[tuple[int, int]]:
    """Connect this process with the others, and yield its index and their number.

    Leaving by an error ends this process without waiting for the others.

    Parameters
    ----------
    agreed
        What has to be the same for all processes, by name; as many names in each of them.

    Raises
    ------
    StageError
        If they do not find each other.
    Disagreement
        If they differ in ``agreed`` or in their number of devices.
    """
    try:
        yield _join(launch, agreed)
    except Disagreement:
        raise
    except BaseException as error:
        error.add_note("If another process was lost, start all again: they continue after the last finished epoch.")
        atexit.register(_leave)  # runs before JAX's own function, which would wait for the others
        raise


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(1)  # JAX aborts the others when process 0 ends: first let them say what they have to say
    os._exit(1)


def _check_address(coordinator: str) -> None:
    """Raise :class:`StageError` where this process cannot listen; JAX would end with a segmentation fault."""
    host, _, port = coordinator.rpartition(":")
    address = (host.strip("[]"), int(port))
    try:
        family = socket.getaddrinfo(*address)[0][0]
        socket.create_server(address, family=family).close()
    except (OSError, OverflowError) as error:
        raise StageError(f"execution.coordinator: {coordinator}: process 0 cannot listen there: {error}") from error


def _join(launch: Launch, agreed: dict[str, str]) -> tuple[int, int]:
    if launch.coordinator and launch.process_id == 0:
        _check_address(launch.coordinator)
    import jax

    where = launch.coordinator or f"{AUTO} (Slurm, Open MPI 4 or Kubernetes)"
    print(f"execution.coordinator: {where}: waiting for all processes, {JOIN_SECONDS} s at most", flush=True)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # several processes can train without GPUs too
    jax.config.update("jax_enable_preemption_service", False)  # it would keep SIGTERM from ending the process
    try:
        jax.distributed.initialize(
            *launch,
            cluster_detection_method="deactivate" if launch.coordinator else None,
            initialization_timeout=JOIN_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=3600,  # at the end the others wait while process 0 saves
            coordinator_bind_address=launch.coordinator,
        )
    except (ValueError, RuntimeError) as error:
        raise StageError(f"execution.coordinator: {where}: JAX cannot connect the processes: {error}") from error
    devices = Counter(device.process_index for device in jax.devices())
    if len(set(devices.values())) > 1:
        found = ", ".join(f"{devices[index]} in process {index}" for index in sorted(devices))
        raise Disagreement(f"all processes must have equally many devices; there are {found}")
    _compare(agreed | {"execution.processes": str(launch.processes or AUTO)})
    return jax.process_index(), jax.process_count()


def _compare(agreed: dict[str, str]) -> None:
    """Raise :class:`Disagreement` in all processes if one has other values than process 0."""
    from jax.experimental.multihost_utils import process_allgather

    texts = [socket.gethostname(), *agreed.values()]
    encoded = np.array([text.encode() for text in texts], dtype=f"S{TEXT_BYTES}")
    gathered = np.asarray(process_allgather(encoded.view(np.uint8))).view(encoded.dtype)
    first, *others = [[text.decode(errors="replace") for text in row] for row in gathered]
    for index, (host, *theirs) in enumerate(others, start=1):
        for name, mine, other in zip(agreed, first[1:], theirs, strict=True):
            if mine != other:
                raise Disagreement(
                    f"process {index} of {len(gathered)} ({host}) has another {name} than process 0: {other}, not "
                    f"{mine}; all must see the same project folder, with the same software"
                )
