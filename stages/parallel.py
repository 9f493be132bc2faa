"""Many independent pieces of work over the cores of this machine."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from melnet.progress import progress

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel(
    function: Callable[[Item], Result], items: Iterable[Item], *, total: int, label: str, unit: str
) -> Iterator[Result]:
    """Yield ``function(item)`` for each item, in the order of ``items``, computed by one thread per core.

    Decoding, resampling, encoding, FFTs and numpy's loops over arrays all release the interpreter's lock, so threads
    keep the cores busy, start at once and share the memory of one process. Only a few items per core are in flight, so
    that neither the queue nor the results waiting to be taken grow with ``total``. A progress bar named ``label``
    counts what is done. An exception of ``function`` ends the iteration; what has not begun by then never does.
    """
    workers = max(1, min(len(os.sched_getaffinity(0)), total))
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool, progress(total=total, label=label, unit=unit) as bar:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
                    bar.update()
            while waiting:
                yield waiting.popleft().result()
                bar.update()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
