"""Claims on what only one run may use at a time: a workspace, a GPU.

A claim is a file lock, which the kernel frees when its process dies, and a mark: an environment variable that every
process of a claimed stage inherits. A stage that outlived its run, whose lock is free again, is found by its mark.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.process_tree import marked

POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Claim:
    """What is claimed, the file whose lock stands for it, and the mark that its stages carry."""

    what: str
    path: Path
    variable: str
    value: str

    @property
    def mark(self) -> dict[str, str]:
        return {self.variable: self.value}

    @property
    def _holder(self) -> Path:
        return self.path.with_suffix(".holder")

    def write_holder(self, holder: str) -> None:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        self._holder.write_text(f"{holder} (process {os.getpid()}, since {now})", encoding="utf-8")

    def read_holder(self) -> str:
        """The run that holds or last held it."""
        # Between taking the lock and writing its name, a first holder has no name yet.
        return self._holder.read_text(encoding="utf-8") if self._holder.exists() else "a run that is just starting"


@contextmanager
def claimed(choices: Sequence[Claim], holder: str, log: Callable[[str], object]) -> Iterator[Claim]:
    """Hold the first of the choices that is free, and wait for one as long as none is; ``log`` says who holds them."""
    said = ""
    while True:
        held = []
        for claim in choices:
            claim.path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(claim.path, thread_local=False)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                held.append(f"{claim.what} is held by {claim.read_holder()}")
                continue
            try:
                left = marked(claim.variable, claim.value)
                if not left:
                    claim.write_holder(holder)
                    yield claim
                    return
                names = ", ".join(f"{process.pid}" for process in left)
                held.append(
                    f"{claim.what}: {claim.read_holder()} ended, but its processes still run: {names}; "
                    f"this run waits for them, or end them with: kill {names.replace(',', '')}"
                )
            finally:
                lock.release()
        if (text := "; ".join(held)) != said:
            log(f"waiting: {text}")
            said = text
        time.sleep(POLL_SECONDS)
