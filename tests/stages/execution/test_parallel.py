"""Pieces of work in order, and never more in flight than a few."""

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
    """An executor that does nothing until a result is wanted, and counts what waits."""

    slots = 3

    def __init__(self):
        self.waiting = self.most = 0

    def submit(self, function, item):
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        recorder = self

        class Waiting:
            def result(self):
                recorder.waiting -= 1
                return function(item)

        return Waiting()


def test_100_000_items_never_flood_an_executor():
    recorder = Recorder()
    assert list(in_order(recorder, lambda item: -item, range(MANY))) == [-item for item in range(MANY)]
    assert recorder.most == AHEAD * recorder.slots


def test_a_growing_executor_is_given_more():
    recorder = Recorder()
    results = in_order(recorder, lambda item: item, range(1000))
    next(results)
    recorder.slots = 10
    assert list(results) == list(range(1, 1000))
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


@pytest.mark.parametrize("name", ["execution", "environment"])
def test_without_dask_the_extra_is_named(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "stages.execution.dask_cluster", None)
    address = "tcp://127.0.0.1:1"
    if name == "environment":
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
    with pytest.raises(StageError, match=r"dask_scheduler: tcp://127\.0\.0\.1:1 needs the extra `dask`"):
        list(run(str, range(3), scheduler=address if name == "execution" else None))
