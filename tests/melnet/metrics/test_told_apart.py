import os

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from melnet.metrics import told_apart as module
from melnet.metrics.told_apart import told_apart
from tests.melnet.metrics.conftest import linear_noise, melodies

SIZES = {"window_frames": 40, "patch_frames": 8, "seed": 0}


@pytest.fixture(autouse=True)
def fewer_trees(monkeypatch):
    monkeypatch.setattr(module, "TREES", 50)


def pieces(sequences):
    """Each sequence in three parts, and the number of the sequence that each is of."""
    parts = [part for x in sequences for part in np.array_split(x, 3)]
    return parts, np.repeat(np.arange(len(sequences)), 3).tolist()


def test_halves_of_one_distribution_are_not_told_apart(rng):
    found = told_apart(melodies(rng, 30), melodies(rng, 30), **SIZES)
    for accuracy in (found.windows, found.patches):
        assert abs(accuracy.mean - 0.5) <= max(accuracy.spread, 0.05)
        assert 0 < accuracy.spread < 0.15


def test_linear_noise_is_told_from_melodies(rng):
    recorded = melodies(rng, 30)
    found = told_apart(linear_noise(rng, recorded, 30), recorded, **SIZES)
    assert found.windows.mean > 0.9
    assert found.patches.mean > 0.8


def test_neither_set_is_the_first(rng):
    recorded = melodies(rng, 12)
    noise = linear_noise(rng, recorded, 12)
    ab, ba = told_apart(noise, recorded, **SIZES), told_apart(recorded, noise, **SIZES)
    assert ab.windows.mean == pytest.approx(ba.windows.mean, abs=0.05)
    assert ab.patches.mean == pytest.approx(ba.patches.mean, abs=0.05)


def test_recordings_kept_together_are_not_recognised(rng):
    (a, groups_a), (b, groups_b) = (pieces(melodies(rng, 4, 600, spread=4)) for _ in range(2))
    apart = told_apart(a, b, **SIZES)
    together = told_apart(a, b, groups_a=groups_a, groups_b=groups_b, **SIZES)
    assert apart.windows.mean > 0.8  # the classifier has heard other parts of the recording
    assert apart.patches.mean > 0.8
    assert together.windows.mean < 0.65
    assert together.patches.mean < 0.65


def test_both_sets_are_in_every_fold_however_unequal_their_groups(rng, monkeypatch):
    tested = []

    def score(truth, predicted):
        tested.append(set(truth.tolist()))
        return balanced_accuracy_score(truth, predicted)

    monkeypatch.setattr(module, "balanced_accuracy_score", score)
    a = [x[:frames] for x, frames in zip(melodies(rng, 6, 900), (900, 80, 80, 90, 80, 100), strict=True)]
    b = [x[:frames] for x, frames in zip(melodies(rng, 5, 900), (80, 900, 80, 900, 80), strict=True)]
    told_apart(a, b, **SIZES)
    assert tested == [{0, 1}] * 10


def test_unequal_sets_have_chance_at_one_half(rng):
    """One set has few long recordings; a classifier must not gain by guessing the commoner set of a fold."""
    accuracy = told_apart(melodies(rng, 40, 120), melodies(rng, 3, 1600), **SIZES)
    assert accuracy.windows.mean == pytest.approx(0.5, abs=0.12)
    assert accuracy.patches.mean == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize(
    ("a", "b", "reason"), [(1, 8, "one group"), (8, 1, "one group"), (0, 8, "no group"), (2, 8, "few windows")]
)
def test_too_few_have_no_accuracy(a, b, reason, rng):
    found = told_apart(melodies(rng, a, 60), melodies(rng, b, 60), **SIZES)
    assert found.windows is None, reason
    assert (found.patches is None) == (a < 2 or b < 2)


def test_two_recordings_of_a_set_are_enough(rng):
    assert told_apart(melodies(rng, 2, 400), melodies(rng, 8, 60), **{**SIZES, "window_frames": 20}).windows is not None


def test_the_number_of_cores_changes_nothing(rng, monkeypatch):
    recorded = melodies(rng, 10)
    noise = linear_noise(rng, recorded, 10)
    results = []
    for cores in ({0}, set(range(4))):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores)
        results.append(told_apart(noise, recorded, **SIZES))
    assert results[0] == results[1]
    assert results[0] != told_apart(noise, recorded, **{**SIZES, "seed": 1})


def test_large_sets_are_bounded(rng, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "MAX_WINDOWS", 30)
    monkeypatch.setattr(module, "MAX_PATCHES", 50)
    monkeypatch.setattr(module, "_cross_validated", lambda _, x, y, *rest: seen.append((len(x), y.sum())))
    told_apart(melodies(rng, 20), melodies(rng, 30), **SIZES)
    assert seen == [(60, 30), (100, 50)]
