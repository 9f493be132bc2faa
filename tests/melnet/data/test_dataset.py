"""Batches: nothing lost, nothing twice, and an order that depends on seed and epoch alone."""

from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melnet.data.dataset import Normalisation, ProcessShard, batches, draw, passages, shuffled_batches, steps_per_epoch

FRAMES, BANDS = 3, 2
ROW_BYTES = 4 * FRAMES * BANDS
ZEROS, ONES = np.zeros(BANDS, np.float32), np.ones(BANDS, np.float32)
PLAIN = Normalisation(ZEROS, ONES, -ONES, ONES)


class FakeShards:
    """Row groups of slices that hold nothing but their own number."""

    def __init__(self, sizes, positions=()):
        self.groups, self.sizes = list(sizes), sizes
        self.spec = SimpleNamespace(frames=FRAMES, bands=BANDS)
        self._positions = positions

    def read_group(self, index):
        first = sum(self.sizes[:index])
        numbers = np.arange(first, first + self.sizes[index], dtype=np.float32)
        return np.broadcast_to(numbers[:, None, None], (self.sizes[index], FRAMES, BANDS))

    def read_singers(self, index):
        first = sum(self.sizes[:index])
        return [f"singer {number}" for number in range(first, first + self.sizes[index])]

    def positions(self):
        return iter(self._positions)

    def __len__(self):
        return sum(self.sizes)


def numbers(stream):
    return np.concatenate([batch.x[batch.weights > 0][:, 0, 0] for batch in stream]).astype(int)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 10), st.integers(1, 20), st.integers(0, 5))
def test_each_epoch_has_every_slice_once(sizes, batch_size, window, seed):
    shards = FakeShards(sizes)
    steps = steps_per_epoch(len(shards), batch_size)
    assert numbers(batches(shards, PLAIN, batch_size)).tolist() == list(range(len(shards)))
    stream = shuffled_batches(shards, PLAIN, batch_size, seed=seed, window_bytes=window * ROW_BYTES)
    for _ in range(3):
        epoch = list(islice(stream, steps))
        assert all(batch.x.shape == (batch_size, FRAMES, BANDS) for batch in epoch)
        assert sorted(numbers(epoch)) == list(range(len(shards)))


def test_order_depends_on_seed_and_epoch_alone():
    shards = FakeShards([20, 20, 20])
    steps = steps_per_epoch(60, 8)

    def epochs(seed, first, count):
        stream = shuffled_batches(shards, PLAIN, 8, seed=seed, first_epoch=first, window_bytes=25 * ROW_BYTES)
        return [numbers(islice(stream, steps)).tolist() for _ in range(count)]

    undisturbed = epochs(1, 0, 4)
    assert epochs(1, 2, 2) == undisturbed[2:]
    assert len({tuple(epoch) for epoch in undisturbed}) == 4
    assert epochs(2, 0, 1) != undisturbed[:1]


def test_slices_of_one_window_are_mixed_across_groups():
    order = numbers(islice(shuffled_batches(FakeShards([50, 50]), PLAIN, 10, seed=0), 10))
    assert 15 < (order[:50] < 50).sum() < 35


def test_processes_share_every_batch_and_leave_nothing_out():
    for batch in batches(FakeShards([5, 9]), PLAIN, 6):
        parts = [ProcessShard(index, 3).rows(batch) for index in range(3)]
        assert {len(part.x) for part in parts} == {2}
        for whole, *shared in zip(batch, *parts, strict=True):
            np.testing.assert_array_equal(np.concatenate(shared), whole)


def test_normalisation_and_its_inverse(rng):
    log_mel = rng.normal(-5, 3, size=(4, FRAMES, BANDS)).astype("float32")
    normalisation = Normalisation.from_dict({"mean": [-5.0, 1.0], "std": [3.0, 0.5], "low": [-20, -1], "high": [9, 3]})
    x = normalisation.normalise(log_mel)
    np.testing.assert_allclose(x[..., 1], (log_mel[..., 1] - 1) / 0.5, rtol=1e-6)
    np.testing.assert_allclose(normalisation.denormalise(x), log_mel, atol=1e-5)
    assert Normalisation.from_dict(normalisation.to_dict()).to_dict() == normalisation.to_dict()


def test_draw_takes_each_slice_at_most_once():
    shards = FakeShards([30, 30, 30])
    drawn = draw(shards, 40, seed=0)[:, 0, 0]
    assert len(set(drawn)) == 40
    assert len(draw(shards, 1000, seed=0)) == 90


@pytest.mark.parametrize(
    ("frames", "expected"), [(6, [[0, 1], [2, 3], [5, 6]]), (3, [[0], [1], [2]]), (99, [[0, 1, 2, 3]])]
)
def test_passages_join_neighbours_of_one_recording(frames, expected):
    positions = [("a", 0), ("a", 3), ("a", 6), ("a", 9), ("a", 15), ("b", 0), ("b", 3)]
    found = passages(FakeShards([4, 3], positions), 3, frames)
    assert [passage.log_mel[::FRAMES, 0].tolist() for passage in found] == expected
    for passage in found:
        number = int(passage.log_mel[0, 0])
        assert positions[number] == (passage.recording, passage.start_frame)
        assert passage.singer == f"singer {number}"
