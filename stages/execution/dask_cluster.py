"""Pieces of work on the workers of a Dask cluster.

Each worker process is compared with this one before its first piece of work: same code, same versions of the libraries
that compute, same file names in the shared folders. Otherwise a worker without a folder would reject its files as
missing, and a worker with another resampler would return other samples.
"""

import functools
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import soundfile
from distributed import Client, Future, KilledWorker
from distributed.comm import CommClosedError
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # carries no types

from stages.command import StageError
from stages.execution.parallel import Submit

LIBRARIES = ("librosa", "numpy", "scipy", "soundfile", "soxr")  # they compute samples and spectrograms
CONNECT_SECONDS = 30.0
WORKER_SECONDS = 60.0  # a stage gives up after this time without any worker
LOOK_SECONDS = 5.0  # between two looks at the cluster's workers


@dataclass(frozen=True)
class Installation:
    """Everything besides its item that the result of a piece of work depends on."""

    versions: tuple[str, ...]
    code: str  # digest of the project's modules
    folders: tuple[tuple[str, str | None], ...]  # absolute path, digest of the file names in it (None: no such folder)


def installation(shared: Sequence[str]) -> Installation:
    """Describe this process, given the absolute paths of the folders it reads."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted([*root.glob("melnet/**/*.py"), *root.glob("stages/**/*.py")]):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    versions = [f"python {sys.version_info[0]}.{sys.version_info[1]}", f"libsndfile {soundfile.__libsndfile_version__}"]
    return Installation(
        (*versions, *(f"{library} {version(library)}" for library in LIBRARIES)),
        digest.hexdigest(),
        tuple((folder, _names(folder)) for folder in shared),
    )


def _names(folder: str) -> str | None:
    try:
        names = sorted(os.listdir(os.fsencode(folder)))  # noqa: PTH208  # as bytes, since names may be no valid UTF-8
    except OSError:
        return None
    return hashlib.sha256(b"\0".join(names)).hexdigest()


@functools.cache  # once per worker process; a failed check is repeated
def _check(expected: Installation) -> None:
    found = installation([folder for folder, _ in expected.folders])
    worker = f"the Dask worker {os.uname().nodename}:{os.getpid()}"
    for here, there in zip(expected.versions, found.versions, strict=True):
        if here != there:
            raise StageError(f"{worker} has {there}, here is {here}: install requirements.lock on both")
    if found.code != expected.code:
        raise StageError(f"{worker} runs other code than this process: start it in the same version of the project")
    for (folder, ours), (_, theirs) in zip(expected.folders, found.folders, strict=True):
        if ours != theirs:
            seen = "does not see it" if theirs is None else "sees other names in it"
            raise StageError(f"{folder}: {worker} {seen}; all workers must mount it at this path")
    threadpool_limits(1, "blas")  # as in the stages: the number of threads can change the last bit


def _work(function: Callable[[Any], Any], item: Any, expected: Installation) -> Any:
    _check(expected)
    return function(item)


class Cluster:
    """Submits pieces of work to a cluster and counts its slots, the threads of its workers."""

    def __init__(self, client: Client, address: str, expected: Installation) -> None:
        self.client, self.address, self.expected = client, address, expected
        self._slots = 0
        self._looked = -float("inf")
        self._had_worker = time.monotonic()  # the wait for the first worker begins now

    def submit(self, function: Callable[[Any], Any], item: Any) -> Callable[[], Any]:
        """Start a piece of work; the function returned waits for its result."""
        # pure=False: Dask would otherwise take equal pieces of two runs for one.
        future = self.client.submit(_work, function, item, self.expected, pure=False)
        return functools.partial(self.result, future, item)

    def slots(self) -> int:
        """Return the number of worker threads; raise :class:`StageError` if there was none for WORKER_SECONDS."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            try:
                self._slots = sum(self.client.nthreads().values())
            except OSError as error:
                raise StageError(f"execution.dask_scheduler: {self.address} does not answer any more") from error
            self._looked = now
            if self._slots:
                self._had_worker = now
            elif now - self._had_worker > WORKER_SECONDS:
                raise StageError(
                    f"execution.dask_scheduler: {self.address} has had no worker for {WORKER_SECONDS:.0f} s; "
                    f"start one: dask worker {self.address}"
                )
        return max(1, self._slots)

    def result(self, future: Future, item: Any) -> Any:
        """Wait for a result. Dask repeats the work of a lost worker on another one."""
        try:
            while future.status != "error":
                try:
                    return future.result(timeout=LOOK_SECONDS)
                except TimeoutError:
                    self.slots()  # raises if the result cannot come
            return future.result()  # raises the error of the work, which may be a TimeoutError too
        except KilledWorker as error:
            raise StageError(f"every Dask worker that took on this piece of work died: {item}") from error
        except (CancelledError, CommClosedError) as error:  # the latter while a result was on its way
            raise StageError(f"execution.dask_scheduler: {self.address} was lost") from error


@contextmanager
def cluster(address: str, shared: Sequence[Path]) -> Iterator[tuple[Submit, Callable[[], int]]]:
    """Connect to the scheduler at ``address``; work that is not done when the block ends is given up.

    Raises
    ------
    StageError
        If the scheduler cannot be reached.
    """
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise StageError(f"execution.dask_scheduler: {address} cannot be reached: {error}") from error
    with client:
        connected = Cluster(client, address, installation([str(folder.absolute()) for folder in shared]))
        yield connected.submit, connected.slots
