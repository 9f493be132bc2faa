"""Finds processes by an environment variable, and ends processes together with their descendants."""

from contextlib import suppress

import psutil

# s between asking processes to end and killing them. A cancelled run must be gone within 10 s, including the time until
# the worker hears of it. No stage needs longer, since stages write their files complete or not at all.
GRACE_SECONDS = 5.0


def processes_with(variable: str, value: str) -> list[psutil.Process]:
    """Return the processes that have the environment variable with this value."""
    # The environment of a process of another user, which is none of our stages, is None.
    every = psutil.process_iter(["environ"])
    return [process for process in every if (process.info["environ"] or {}).get(variable) == value]


def end_process_trees(*processes: psutil.Process) -> None:
    """Terminate the processes and their descendants; kill those that are left after GRACE_SECONDS."""
    tree = set(processes)
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it ended by itself
            tree.update(process.children(recursive=True))
    for send_signal in (psutil.Process.terminate, psutil.Process.kill):
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                send_signal(process)
        _, tree = psutil.wait_procs(tree, timeout=GRACE_SECONDS)
