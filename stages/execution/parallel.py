"""Many independent pieces of work, done by the cores of this machine or by a Dask cluster."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from stages.command import StageError
from stages.progress import progress

Item = TypeVar("Item")
Result = TypeVar("Result")
Submit = Callable[[Callable[[Any], Any], Any], Callable[[], Any]]  # (function, item) -> wait for the result

AHEAD = 4  # pieces in flight per slot: enough to keep every slot busy, few enough to bound queues and memory
ADDRESS = "DASK_SCHEDULER_ADDRESS"  # the variable that Dask's own clients read


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
    """Yield ``function(item)`` for each item, in the order of ``items``, with a progress bar named ``label``.

    One thread per core does the work. If ``scheduler`` or the environment names the scheduler of a Dask cluster, its
    workers do it instead; they must see the folders ``shared`` as this process does, and items must hold absolute
    paths. Only a few items per core are in flight, so queues and memory do not grow with ``total``. An exception of
    ``function`` ends the iteration, and pieces that have not begun then never start.
    """
    address = os.environ.get(ADDRESS) or scheduler
    with _cluster(address, shared) if address else _threads() as (submit, slots):
        yield from progress(in_order(partial(submit, function), items, slots), total=total, label=label, unit=unit)


def in_order(
    submit: Callable[[Item], Callable[[], Result]], items: Iterable[Item], slots: Callable[[], int]
) -> Iterator[Result]:
    """Yield results in the order of ``items``; at most ``AHEAD * slots()`` of them are submitted and not yet yielded.

    joblib has no such bound: its generators submit the next item when one is done, not when its result is consumed.
    """
    waiting: deque[Callable[[], Result]] = deque()
    for item in items:
        while len(waiting) >= AHEAD * slots():
            yield waiting.popleft()()
        waiting.append(submit(item))
    while waiting:
        yield waiting.popleft()()


def _cluster(address: str, shared: Sequence[Path]) -> AbstractContextManager[tuple[Submit, Callable[[], int]]]:
    try:
        # Imported only when asked for: Dask is an optional extra and takes a second to import.
        from stages.execution.dask_cluster import cluster
    except ImportError as error:
        raise StageError(f"execution.dask_scheduler: {address} needs the extra `dask` ({error})") from error
    return cluster(address, shared)


@contextmanager
def _threads() -> Iterator[tuple[Submit, Callable[[], int]]]:
    """Threads rather than processes: decoding, resampling, encoding and FFTs release the interpreter's lock, and
    threads start at once and share memory."""
    cores = len(os.sched_getaffinity(0))
    pool = ThreadPoolExecutor(cores)
    try:
        yield lambda function, item: pool.submit(function, item).result, lambda: cores
    finally:
        pool.shutdown(cancel_futures=True)
