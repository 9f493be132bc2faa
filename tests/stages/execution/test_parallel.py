"""Pieces of work in order, and only a few of them in flight."""

import os
import sys
import threading
import time

import pytest

from stages.command import StageError
from stages.execution.parallel import AHEAD, in_order, parallel

MANY = 100_000


def run(function, items, total=MANY, **options):
    return parallel(function, items, total=total, label="test", unit="items", **options)


class Recorder:
    """Does nothing until a result is wanted, and counts the pieces that wait."""

    slots = 3

    def __init__(self):
        self.waiting = self.most = 0

    def submit(self, item):
        self.waiting += 1
        self.most = max(self.most, self.waiting)

        def result():
            self.waiting -= 1
            return -item

        return result


def test_100_000_items_never_flood_an_executor():
    recorder = Recorder()
    results = in_order(recorder.submit, range(MANY), lambda: recorder.slots)
    assert list(results) == [-item for item in range(MANY)]
    assert recorder.most == AHEAD * recorder.slots


def test_an_executor_that_grows_is_given_more():
    recorder = Recorder()
    results = in_order(recorder.submit, range(1000), lambda: recorder.slots)
    next(results)
    recorder.slots = 10
    assert list(results) == [-item for item in range(1, 1000)]
    assert recorder.most == AHEAD * 10


def test_100_000_items_through_threads_are_taken_as_they_are_needed():
    taken = 0

    def items():
        nonlocal taken
        for item in range(MANY):
            taken += 1
            yield item

    most = 0
    for done, result in enumerate(run(lambda item: item + 1, items())):
        assert result == done + 1
        most = max(most, taken - done)
    assert done == MANY - 1
    assert most <= AHEAD * len(os.sched_getaffinity(0)) + 1


def test_an_exception_ends_it_and_the_rest_never_begins():
    begun = []

    def work(item):
        begun.append(item)
        time.sleep(0.01)
        if item == 3:
            raise StageError("three")
        return item

    with pytest.raises(StageError, match="three"):
        list(run(work, range(1000)))
    before = len(begun)
    time.sleep(0.1)
    assert len(begun) == before < 100
    assert threading.active_count() < 50


def test_an_iteration_that_is_left_early_starts_no_more():
    begun = []

    def work(item):
        begun.append(item)
        time.sleep(0.01)
        return item

    results = run(work, range(1000))
    assert next(results) == 0
    results.close()
    before = len(begun)
    time.sleep(0.1)
    assert len(begun) == before < 100


@pytest.mark.parametrize("name", ["execution", "environment"])
def test_without_dask_the_extra_is_named(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "stages.execution.dask_cluster", None)
    address = "tcp://127.0.0.1:1"
    if name == "environment":
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
    with pytest.raises(StageError, match=r"dask_scheduler: tcp://127\.0\.0\.1:1 needs the extra `dask`"):
        list(run(str, range(3), scheduler=address if name == "execution" else None))
