"""Pieces of work on the workers of a Dask cluster, with the results that this machine would have.

Nothing here changes a result, so no stage of the graph depends on this module. Each worker process is compared with
this one before its first piece of work: the same code, the same versions of what computes, and the same names in the
folders read. A worker that lacks a folder would otherwise reject its files as missing, one with another resampler give
other samples.
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

LIBRARIES = ("librosa", "numpy", "scipy", "soundfile", "soxr")  # what samples and spectrograms are computed with
CONNECT_SECONDS = 30.0
WORKER_SECONDS = 60.0  # without any worker, before a stage gives up
LOOK_SECONDS = 5.0  # between two looks at who is there


@dataclass(frozen=True)
class Surroundings:
    """What the result of a piece of work depends on beside its item."""

    versions: tuple[str, ...]
    code: str  # digest of the modules
    folders: tuple[tuple[str, str | None], ...]  # absolute path and digest of the names in it; None: there is none


def surroundings(shared: Sequence[str]) -> Surroundings:
    """Those of this process, with the folders ``shared``, absolute paths."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[2]
    for path in sorted([*root.glob("melnet/**/*.py"), *root.glob("stages/**/*.py")]):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    versions = [f"python {sys.version_info[0]}.{sys.version_info[1]}", f"libsndfile {soundfile.__libsndfile_version__}"]
    return Surroundings(
        (*versions, *(f"{library} {version(library)}" for library in LIBRARIES)),
        digest.hexdigest(),
        tuple((folder, _names(folder)) for folder in shared),
    )


def _names(folder: str) -> str | None:
    try:
        names = sorted(os.fsencode(name) for name in os.listdir(folder))  # noqa: PTH208  # names, for any bytes
    except OSError:
        return None
    return hashlib.sha256(b"\0".join(names)).hexdigest()


@functools.cache  # once per worker process, unless it fails
def _check(expected: Surroundings) -> None:
    found = surroundings([folder for folder, _ in expected.folders])
    where = f"the Dask worker {os.uname().nodename}:{os.getpid()}"
    for here, there in zip(expected.versions, found.versions, strict=True):
        if here != there:
            raise StageError(f"{where} has {there}, here is {here}: install requirements.lock on both")
    if found.code != expected.code:
        raise StageError(f"{where} runs other code than this: start it in the same version of the project")
    for (folder, ours), (_, theirs) in zip(expected.folders, found.folders, strict=True):
        if ours != theirs:
            seen = "does not see it" if theirs is None else "sees other names in it"
            raise StageError(f"{folder}: {where} {seen}; all workers must mount it at this path")
    threadpool_limits(1, "blas")  # as the stages do: the number of threads can show in the last bit


def _work(function: Callable[[Any], Any], item: Any, expected: Surroundings) -> Any:
    _check(expected)
    return function(item)


class Cluster:
    """An executor whose slots are the threads of the cluster's workers."""

    def __init__(self, client: Client, address: str, shared: Sequence[Path]) -> None:
        self.client, self.address = client, address
        self.expected = surroundings([str(folder.absolute()) for folder in shared])
        self._slots = 0
        self._looked = -float("inf")
        self._seen = time.monotonic()  # a worker; the wait for the first begins now

    @property
    def slots(self) -> int:
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self.look()
        return max(1, self._slots)

    def submit(self, function: Callable[[Any], Any], item: Any, /) -> "Piece":
        # Not pure: equal pieces of two runs are not the same, and nothing is to be remembered.
        return Piece(self, item, self.client.submit(_work, function, item, self.expected, pure=False))

    def look(self) -> None:
        """Count the workers' threads; raise :class:`StageError` if there has been none for long."""
        try:
            self._slots = sum(self.client.nthreads().values())
        except OSError as error:
            raise StageError(f"execution.dask_scheduler: {self.address} does not answer any more") from error
        self._looked = time.monotonic()
        if self._slots:
            self._seen = self._looked
        elif self._looked - self._seen > WORKER_SECONDS:
            raise StageError(
                f"execution.dask_scheduler: {self.address} has had no worker for {WORKER_SECONDS:.0f} s; "
                f"start one: dask worker {self.address}"
            )


@dataclass(frozen=True)
class Piece:
    """A piece of work on its way."""

    cluster: Cluster
    item: Any
    future: Future

    def result(self) -> Any:
        """Wait for it as long as somebody is there to do it; when its worker is lost, another is given it by itself."""
        while True:
            try:
                return self.future.result(timeout=LOOK_SECONDS)
            except TimeoutError:
                if self.future.done():
                    raise  # one of the function's own
                self.cluster.look()
            except KilledWorker as error:
                raise StageError(f"every Dask worker that took on this piece of work died: {self.item}") from error
            except (CancelledError, CommClosedError) as error:  # the latter while the result was on its way
                raise StageError(f"execution.dask_scheduler: {self.cluster.address} was lost") from error


@contextmanager
def cluster(address: str, shared: Sequence[Path]) -> Iterator[Cluster]:
    """The cluster whose scheduler is at ``address``; what is not done when the block ends is given up.

    Raises
    ------
    StageError
        If the scheduler cannot be reached; from the pieces' results also if workers differ from this process, or none
        is left.
    """
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise StageError(f"execution.dask_scheduler: {address} cannot be reached: {error}") from error
    with client:
        yield Cluster(client, address, shared)
