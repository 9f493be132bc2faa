"""BandStatistics merged from parts are those of the whole."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from melnet.data.band_statistics import MIN_STD, BandStatistics


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=8), offset=st.floats(-1e4, 1e4))
@settings(deadline=None)
def test_parts_merge_to_the_whole(lengths, offset):
    values = np.random.default_rng(len(lengths)).normal(offset, [0.1, 3, 100], (sum(lengths), 3))
    merged = BandStatistics.none(3)
    for part in np.split(values, np.cumsum(lengths)[:-1]):
        merged = merged.merged(BandStatistics.of(part))
    assert merged.frames == len(values)
    np.testing.assert_allclose(merged.mean, values.mean(axis=0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(merged.std, np.maximum(values.std(axis=0), MIN_STD), rtol=1e-6)
    np.testing.assert_array_equal(merged.low, values.min(axis=0))
    np.testing.assert_array_equal(merged.high, values.max(axis=0))


def test_bands_are_the_last_axis(rng):
    slices = rng.normal(size=(5, 4, 3))
    np.testing.assert_allclose(BandStatistics.of(slices).mean, slices.mean(axis=(0, 1)))
    assert BandStatistics.of(slices).frames == 20


def test_a_band_that_never_changes_can_be_divided_by():
    assert (BandStatistics.of(np.full((10, 2), -11.5)).std == MIN_STD).all()
