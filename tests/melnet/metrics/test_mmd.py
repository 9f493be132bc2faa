import numpy as np
import pytest

from melnet.metrics.mmd import mmd
from melnet.metrics.windows import Windows, features, windows
from tests.melnet.metrics.conftest import linear_noise, melodies


def separate(x):
    return Windows(x, np.arange(len(x)))


def by_loops(x, y, groups_x, groups_y):
    """The estimate from its definition, pair by pair."""
    y_features = features(y)
    mean, std = y_features.mean(axis=0), y_features.std(axis=0)
    x, y = (features(x) - mean) / std, (y_features - mean) / std
    distances = [np.linalg.norm(y[i] - y[j]) for i in range(len(y)) for j in range(i)]

    def kernel(a, b):
        return np.exp(-np.sum((a - b) ** 2) / (2 * np.median(distances) ** 2))

    def within(z, groups):
        pairs = [(i, j) for i in range(len(z)) for j in range(len(z)) if groups[i] != groups[j]]
        return np.mean([kernel(z[i], z[j]) for i, j in pairs])

    return 100 * (within(x, groups_x) + within(y, groups_y) - 2 * np.mean([kernel(a, b) for a in x for b in y]))


@pytest.mark.parametrize("grouped", [False, True])
def test_it_is_the_unbiased_estimate(grouped, rng):
    x, y = rng.normal(0.3, 1, (20, 9, 8)), rng.normal(0, 1, (25, 9, 8))
    groups_x = rng.integers(0, 4, 20) if grouped else np.arange(20)
    groups_y = rng.integers(0, 5, 25) if grouped else np.arange(25)
    found = mmd(Windows(x, groups_x), Windows(y, groups_y), seed=0)
    assert found.value == pytest.approx(by_loops(x, y, groups_x, groups_y), abs=1e-9)


def test_equal_distributions_have_zero_in_their_interval(rng):
    found = [mmd(*(windows(melodies(rng, 20, spread=1), 40, 20) for _ in range(2)), seed=0) for _ in range(12)]
    assert sum(result.low <= 0 <= result.high for result in found) >= 10
    # Recordings differ much more from each other than from themselves, which biases an estimate from all pairs.
    values = np.array([result.value for result in found])
    assert abs(values.mean()) < 3 * values.std(ddof=1) / np.sqrt(len(values))


def test_it_grows_with_a_shift(rng):
    reference = windows(melodies(rng, 20), 40, 20)
    generated = windows(melodies(rng, 20), 40, 20)
    shifted = [mmd(Windows(generated.values + by, generated.group), reference, seed=0) for by in (0, 0.2, 0.5, 1)]
    values = [result.value for result in shifted]
    assert (np.diff(values) > 0).all()
    assert all(result.low <= result.value <= result.high for result in shifted)
    assert shifted[-1].low > shifted[0].high


def test_it_sees_linear_noise(rng):
    recorded = melodies(rng, 20)
    reference = windows(melodies(rng, 20), 40, 20)
    noise = mmd(windows(linear_noise(rng, recorded, 20), 40, 20), reference, seed=0)
    assert noise.low > mmd(windows(recorded, 40, 20), reference, seed=0).high


def test_fewer_recordings_make_it_less_certain(rng):
    widths = []
    for count in (4, 40):
        generated, reference = (windows(melodies(rng, count, 4800 // count, spread=1), 40, 20) for _ in range(2))
        found = mmd(generated, reference, seed=0)
        widths.append(found.high - found.low)
    assert widths[0] > 2 * widths[1]


def test_it_depends_on_the_seed_alone(rng):
    sides = [windows(melodies(rng, 6), 40, 20) for _ in range(2)]
    assert mmd(*sides, seed=0) == mmd(*sides, seed=0)
    assert mmd(*sides, seed=0).low != mmd(*sides, seed=1).low
    assert mmd(*sides, seed=0).value == mmd(*sides, seed=1).value


def test_two_recordings_have_a_finite_interval(rng):
    found = mmd(*(windows(melodies(rng, 2), 40, 20) for _ in range(2)), seed=0)
    assert np.isfinite([found.value, found.low, found.high]).all()


def test_too_few_have_no_distance(rng):
    one, many = windows(melodies(rng, 1), 40, 20), windows(melodies(rng, 5), 40, 20)
    none = windows([], 40, 20)
    assert [mmd(a, b, seed=0) for a, b in ((one, many), (many, one), (none, many), (many, none))] == [None] * 4
    assert mmd(many, separate(np.zeros((9, 40, 12), np.float32)), seed=0) is None
