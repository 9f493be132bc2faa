"""Locks on what one run at a time may use: a workspace, a GPU.

A run locks a file, and the kernel releases the lock when the run's process dies. Stages that outlived their run, whose
lock is free again, are found by an environment variable that every process of a stage inherits.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.process_tree import processes_with

POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Resource:
    """A workspace or a GPU, its lock file, and the environment variable of the stages that use it."""

    name: str
    lock_file: Path
    variable: str
    value: str

    @property
    def environment(self) -> dict[str, str]:
        return {self.variable: self.value}


@contextmanager
def lock_any(resources: Sequence[Resource], holder: str, log: Callable[[str], object]) -> Iterator[Resource]:
    """Lock the first free resource for ``holder``; wait while there is none, and log who holds them."""
    logged = ""
    while True:
        reasons = []
        for resource in resources:
            resource.lock_file.parent.mkdir(parents=True, exist_ok=True)
            with resource.lock_file.open("a+", encoding="utf-8") as file:  # closing the file releases its lock
                file.seek(0)
                last_holder = file.read() or "a run that is just starting"
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    reasons.append(f"{resource.name} is held by {last_holder}")
                    continue
                survivors = [f"{process.pid}" for process in processes_with(resource.variable, resource.value)]
                if not survivors:
                    now = datetime.now().astimezone().isoformat(timespec="seconds")
                    file.truncate(0)
                    file.write(f"{holder} (process {os.getpid()}, since {now})")
                    file.flush()
                    yield resource
                    return
                reasons.append(
                    f"{resource.name}: {last_holder} ended, but its processes still run: {', '.join(survivors)}; "
                    f"this run waits for them, or end them with: kill {' '.join(survivors)}"
                )
        if (text := "; ".join(reasons)) != logged:
            log(f"waiting: {text}")
            logged = text
        time.sleep(POLL_SECONDS)
