import numpy as np
import pytest

from melnet.metrics.windows import Windows, features, standardised_features, window_starts, window_values, windows


def numbered(lengths, bands=3):
    """Sequences whose values are their frame numbers, counted over all of them."""
    frames = np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
    return [np.repeat(numbers[:, None], bands, axis=1).astype(np.float32) for numbers in frames]


def test_windows_lie_within_sequences():
    cut = windows(numbered([10, 3, 7]), frames=4, hop=3)
    assert cut.values.dtype == np.float32
    assert cut.values.shape == (5, 4, 3)
    assert cut.values[:, 0, 0].tolist() == [0, 3, 6, 13, 16]
    np.testing.assert_array_equal(cut.values[:, -1, 0] - cut.values[:, 0, 0], 3)
    assert cut.group.tolist() == [0, 0, 0, 2, 2]


def test_stretches_of_a_recording_are_one_group():
    assert windows(numbered([4, 4, 4]), 4, 1, ["b", "a", "b"]).group.tolist() == [0, 1, 0]


def test_a_limit_draws_some_windows_in_order():
    sequences = numbered([50, 60])
    every, some = windows(sequences, 5, 1), windows(sequences, 5, 1, limit=20, seed=1)
    firsts = some.values[:, 0, 0]
    assert len(np.unique(firsts)) == 20
    assert (np.diff(firsts) > 0).all()
    assert (some.group == (firsts >= 50)).all()
    np.testing.assert_array_equal(some.values, windows(sequences, 5, 1, limit=20, seed=1).values)
    assert (firsts != windows(sequences, 5, 1, limit=20, seed=2).values[:, 0, 0]).any()
    assert len(every.group) == 46 + 56


@pytest.mark.parametrize("sequences", [[], [np.zeros((3, 8), np.float32)]])
def test_there_may_be_no_window(sequences):
    cut = windows(sequences, 4, 2)
    assert cut.values.shape[:2] == (0, 4)
    assert cut.group.shape == (0,)
    assert window_starts(sequences, 4, 2).shape == (0, 2)


def test_starts_tell_where_the_windows_are():
    sequences = numbered([10, 7])
    starts = window_starts(sequences, 4, 2)
    for value, (index, first) in zip(window_values(sequences, starts, 4), starts, strict=True):
        np.testing.assert_array_equal(value, sequences[index][first : first + 4])


@pytest.mark.parametrize("bands", [8, 32, 256])
@pytest.mark.parametrize("frames", [8, 9, 94])
def test_features_of_any_size_are_finite_and_differ(bands, frames, rng):
    found = features(rng.standard_normal((3, frames, bands)).astype(np.float32))
    low, magnitudes = min(frames, 12) * min(bands, 12), min(frames, 16) * min(bands, 16)
    assert found.dtype == np.float64
    assert found.shape == (3, low + magnitudes + 2)
    assert np.isfinite(found).all()
    assert (found[0] != found[1]).all()


def test_features_are_what_they_say(rng):
    x = rng.standard_normal((1, 20, 18))

    def basis(size):
        rows = np.sqrt(2 / size) * np.cos(np.pi * np.outer(np.arange(size), np.arange(size) + 0.5) / size)
        rows[0] /= np.sqrt(2)
        return rows

    coefficients = basis(20) @ x[0] @ basis(18).T
    expected = [
        *coefficients[:12, :12].ravel(),
        *np.log(np.abs(coefficients[:16, :16]) + 0.1).ravel(),
        np.mean([abs(x[0, t, b] - x[0, t - 1, b]) for t in range(1, 20) for b in range(18)]),
        np.mean([abs(x[0, t, b] - x[0, t, b - 1]) ** 0.5 for t in range(20) for b in range(1, 18)]),
    ]
    np.testing.assert_allclose(features(x)[0], expected, atol=1e-12)


def test_many_windows_have_the_features_of_each(rng):
    x = rng.standard_normal((600, 9, 8))
    np.testing.assert_array_equal(features(x)[[0, 300, 599]], features(x[[0, 300, 599]]))


def test_features_are_in_units_of_the_reference(rng):
    generated, reference = (Windows(rng.normal(size=(50, 9, 8)), np.arange(50)) for _ in range(2))
    x, y = standardised_features(generated, reference)
    np.testing.assert_allclose((y.mean(axis=0), y.std(axis=0)), (np.zeros(146), np.ones(146)), atol=1e-9)
    raw = features(reference.values)
    np.testing.assert_allclose(x, (features(generated.values) - raw.mean(axis=0)) / raw.std(axis=0), atol=1e-9)
