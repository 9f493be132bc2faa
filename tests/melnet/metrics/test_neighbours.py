import os

import numpy as np
import pytest

from melnet.metrics import neighbours as module
from melnet.metrics.neighbours import NearestPair, PrecisionRecall, memorised, precision_recall
from melnet.metrics.windows import Windows, standardised_features, windows
from tests.melnet.metrics.conftest import melodies


def separate(x):
    return Windows(x.astype(np.float32), np.arange(len(x)))


def modes(rng, *counts):
    """Windows around patterns, so many around each."""
    patterns = np.random.default_rng(1).normal(0, 3, (len(counts), 9, 8))
    return separate(np.concatenate([rng.normal(at, 1, (n, 9, 8)) for n, at in zip(counts, patterns, strict=True)]))


def by_loops(x, y, groups_x, groups_y):
    def radius(z, groups, i):
        return sorted(np.linalg.norm(z[i] - other) for other, g in zip(z, groups, strict=True) if g != groups[i])[4]

    radii_x = [radius(x, groups_x, i) for i in range(len(x))]
    radii_y = [radius(y, groups_y, i) for i in range(len(y))]
    distances = np.array([[np.linalg.norm(a - b) for b in y] for a in x])
    return PrecisionRecall(
        np.mean([any(distances[i, j] <= radii_y[j] for j in range(len(y))) for i in range(len(x))]),
        np.mean([any(distances[i, j] <= radii_x[i] for i in range(len(x))) for j in range(len(y))]),
        np.mean([any(distances[i, j] <= radii_y[j] for i in range(len(x))) for j in range(len(y))]),
    )


@pytest.mark.parametrize("grouped", [False, True])
def test_they_are_what_the_papers_define(grouped, rng):
    x, y = rng.normal(0.1, 1.1, (30, 9, 8)), rng.normal(0, 1, (30, 9, 8))
    groups = [np.arange(30) // (3 if grouped else 1) for _ in range(2)]
    sides = Windows(x, groups[0]), Windows(y, groups[1])
    found = precision_recall(*sides, seed=0)
    assert found == by_loops(*standardised_features(*sides), *groups)
    assert 0 < found.precision < 1 or 0 < found.recall < 1


def test_equal_distributions_have_most_of_each(rng):
    found = precision_recall(*(windows(melodies(rng, 40), 40, 20) for _ in range(2)), seed=0)
    assert min(found.precision, found.recall, found.coverage) > 0.7


def test_a_missing_mode_lowers_recall_and_coverage(rng):
    reference = modes(rng, 100, 100)
    whole = precision_recall(modes(rng, 100, 100), reference, seed=0)
    dropped = precision_recall(modes(rng, 200, 0), reference, seed=0)
    assert dropped.recall < whole.recall - 0.3
    assert dropped.coverage < whole.coverage - 0.3
    assert dropped.precision > whole.precision - 0.1


def test_a_mode_of_its_own_lowers_precision(rng):
    reference = modes(rng, 200)
    whole = precision_recall(modes(rng, 200), reference, seed=0)
    outside = precision_recall(modes(rng, 100, 100), reference, seed=0)
    assert outside.precision == pytest.approx(whole.precision / 2, abs=0.1)
    assert outside.coverage > whole.coverage - 0.2


def test_overlapping_windows_are_no_neighbours_of_each_other(rng):
    """Windows of a recording lie close together. Their balls would be too small for any other recording."""
    generated, reference = (windows(melodies(rng, 12, spread=2), 40, 2) for _ in range(2))
    split = [separate(side.values) for side in (generated, reference)]
    assert precision_recall(*split, seed=0).coverage < 0.5
    assert precision_recall(generated, reference, seed=0).coverage > 0.8


def test_the_larger_set_is_drawn_from(rng):
    few, many = separate(rng.normal(size=(40, 9, 8))), separate(rng.normal(size=(400, 9, 8)))
    assert precision_recall(few, many, seed=0) == precision_recall(few, many, seed=0)
    # 40 balls of a set of 40 cover more of the space than those of 400.
    assert precision_recall(few, many, seed=0).recall > 0.5


def test_too_few_have_no_precision(rng):
    x = separate(rng.normal(size=(20, 9, 8)))
    assert precision_recall(x, separate(rng.normal(size=(5, 9, 8))), seed=0) is None
    assert precision_recall(x, Windows(x.values, np.repeat([0, 1], [17, 3])), seed=0) is None
    assert precision_recall(x, Windows(x.values[:0], x.group[:0]), seed=0) is None


@pytest.fixture
def sets(rng):
    """New, test and train sequences of one distribution."""
    return [melodies(rng, count) for count in (4, 8, 12)]


def test_nothing_is_memorised_where_all_is_new(sets):
    found = memorised(*sets, frames=30)
    assert found.ratio == pytest.approx(1, abs=0.1)
    assert found.ratio_low == pytest.approx(1, abs=0.25)


def test_a_copy_at_an_odd_offset_is_found(sets, rng):
    generated, test, train = sets
    generated[2] = generated[2].copy()
    generated[2][45:90] = train[7][37:82] + np.linspace(0.01, 0.03, 45)[:, None] * rng.choice([-1, 1], (45, 12))
    found = memorised(generated, test, train, frames=30)
    assert found.nearest == NearestPair(2, 45, 7, 37, pytest.approx(0.017, abs=0.002))
    assert found.ratio > 0.8
    assert found.ratio_low < 0.5


def test_copies_have_a_ratio_far_below_one(sets, rng):
    _, test, train = sets
    copies = [train[i][11:110] + rng.normal(0, 0.02, (99, 12)).astype(np.float32) for i in (3, 1, 9)]
    found = memorised(copies, test, train, frames=30)
    assert found.ratio < 0.1
    assert found.ratio_low < 0.1
    assert (found.nearest.generated, found.nearest.train) in {(0, 3), (1, 1), (2, 9)}
    assert found.nearest.train_frame == found.nearest.generated_frame + 11


def test_distances_are_those_of_all_pairs(sets):
    generated, test, train = sets

    def nearest(sequences):
        at = [x[first : first + 30] for x in sequences for first in range(0, 91, 15)]
        others = [x[first : first + 30] for x in train for first in range(91)]
        return [min(np.sqrt(np.mean((a.astype(float) - b) ** 2)) for b in others) for a in at]

    own, reference = nearest(generated[:1]), nearest(test[:2])
    found = memorised(generated[:1], test[:2], train, frames=30)
    assert found.ratio == pytest.approx(np.median(own) / np.median(reference), rel=1e-6)
    assert found.ratio_low == pytest.approx(np.percentile(own, 5) / np.percentile(reference, 5), rel=1e-6)
    assert found.nearest.distance == pytest.approx(min(own), rel=1e-6)


def test_blocks_and_cores_change_nothing(sets, monkeypatch):
    whole = memorised(*sets, frames=30)
    monkeypatch.setattr(module, "BLOCK_BYTES", 7 * 30 * 12 * 4)
    for cores in ({0}, set(range(4))):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores)
        assert memorised(*sets, frames=30) == whole


def test_rests_do_not_count(sets):
    generated, test, train = sets
    rest = np.tile(np.linspace(-3, -1, 12, dtype=np.float32), (200, 1))  # the floor, another value in each band
    with_rests = [[*sequences, rest + 0.01 * np.sin(np.arange(200, dtype=np.float32))[:, None]] for sequences in sets]
    assert memorised(*with_rests, frames=30) == memorised(generated, test, train, frames=30)


def test_without_sound_there_is_no_ratio(sets):
    rests = [np.zeros((100, 12), np.float32)]
    for position in range(3):
        some = list(sets)
        some[position] = rests
        assert memorised(*some, frames=30) is None
        some[position] = []
        assert memorised(*some, frames=30) is None


def test_a_test_split_that_is_in_train_gives_no_ratio(sets):
    generated, _, train = sets
    found = memorised(generated, train[:3], train, frames=30)
    assert found.ratio is None
    assert found.ratio_low is None
    assert found.nearest.distance > 0


def test_evenly_spaced_windows_are_compared(sets, monkeypatch):
    asked = []
    search = module._nearest
    monkeypatch.setattr(module, "_nearest", lambda queries, *rest: asked.append(len(queries)) or search(queries, *rest))
    monkeypatch.setattr(module, "MAX_COMPARED", 5)
    assert memorised(*sets, frames=30) is not None
    assert asked == [10]
    starts = module._moving(sets[0], 30)
    assert starts.tolist() == [[0, 0], [1, 0], [2, 0], [2, 90], [3, 90]]
