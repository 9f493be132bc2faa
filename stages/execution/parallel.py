"""Many independent pieces of work, over the cores of this machine or over a Dask cluster."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from stages.command import StageError
from stages.progress import progress

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 4  # items in flight for each that is worked on: none waits for the next, and neither queue nor results pile up
ADDRESS = "DASK_SCHEDULER_ADDRESS"  # the variable that Dask's own clients look at


class Pending(Protocol):
    """The result of a piece of work, perhaps to come."""

    def result(self) -> Any: ...


class Executor(Protocol):
    """Where the pieces of work are done."""

    @property
    def slots(self) -> int:
        """How many are worked on at once, now."""

    def submit(self, function: Callable[[Any], Any], item: Any, /) -> Pending: ...


def parallel(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    total: int,
    label: str,
    unit: str,
    scheduler: str | None = None,
    shared: Sequence[Path] = (),
) -> Generator[Result]:
    """Yield ``function(item)`` for each item, in the order of ``items``.

    One thread per core does them; or, where ``scheduler`` or the environment names the scheduler of a Dask cluster, its
    workers, which must see the folders ``shared`` as this process does, and to which relative paths mean nothing. Only
    a few items per core are in flight, so that no queue, here or at the scheduler, grows with ``total``. A progress bar
    named ``label`` counts what is done. An exception of ``function`` ends the iteration; what has not begun then never
    does.
    """
    address = os.environ.get(ADDRESS) or scheduler
    with _executor(address, total, shared) as executor, progress(total=total, label=label, unit=unit) as bar:
        for result in in_order(executor, function, items):
            yield result
            bar.update()


def in_order(
    executor: Executor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int = AHEAD
) -> Iterator[Result]:
    """Results in the order of ``items``, of which at most ``ahead`` for each slot are submitted and not yet taken."""
    waiting: deque[Pending] = deque()
    for item in items:
        while len(waiting) >= ahead * executor.slots:
            yield waiting.popleft().result()
        waiting.append(executor.submit(function, item))
    while waiting:
        yield waiting.popleft().result()


def _executor(address: str | None, total: int, shared: Sequence[Path]) -> AbstractContextManager[Executor]:
    if not address:
        return _threads(total)
    try:
        # Only here: Dask is an optional extra, and takes a second to import.
        from stages.execution.dask_cluster import cluster
    except ImportError as error:
        raise StageError(f"execution.dask_scheduler: {address} needs the extra `dask` ({error})") from error
    return cluster(address, shared)


class _Threads(ThreadPoolExecutor):
    """Decoding, resampling, encoding, FFTs and numpy's loops over arrays all release the interpreter's lock, so threads
    keep the cores busy, start at once and share the memory of one process."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots)
        self.slots = slots


@contextmanager
def _threads(total: int) -> Iterator[_Threads]:
    with _Threads(max(1, min(len(os.sched_getaffinity(0)), total))) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
