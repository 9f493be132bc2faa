"""The order of the tiers: nothing is lost, nothing is in two, and sizes that do not fit are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melnet.model.multiscale import (
    TierIndex,
    axis,
    divisors,
    inputs_and_target,
    interleave,
    shape,
    split,
    target_and_context,
)

TIERS = st.integers(1, 7)
SIZES = st.integers(1, 5)


@st.composite
def spectrograms(draw):
    """A number of tiers, and a batch that they can divide, each element different."""
    tiers, frames, bands, batch = draw(TIERS), draw(SIZES), draw(SIZES), draw(st.integers(0, 3))
    sizes = (frames * divisors(tiers)[0], bands * divisors(tiers)[1])
    return tiers, np.arange(batch * sizes[0] * sizes[1], dtype=np.float32).reshape(batch, *sizes)


@given(spectrograms())
def test_interleave_undoes_split(case):
    tiers, x = case
    parts = split(x, tiers)
    assert len(parts) == tiers
    np.testing.assert_array_equal(interleave(parts), x)
    assert [part.shape[1:] for part in parts] == [shape(t, tiers, *x.shape[1:]) for t in range(1, tiers + 1)]


@given(spectrograms())
def test_split_undoes_interleave(case):
    """For any parts that fit together, not only for parts of one spectrogram."""
    tiers, x = case
    parts = [part[::-1] for part in split(x, tiers)]
    for again, part in zip(split(interleave(parts), tiers), parts, strict=True):
        np.testing.assert_array_equal(again, part)


@given(spectrograms())
def test_a_tier_is_given_all_earlier_ones_and_only_them(case):
    tiers, x = case
    parts = split(x, tiers)
    for tier in range(1, tiers + 1):
        target, context = target_and_context(x, tier, tiers)
        np.testing.assert_array_equal(target, parts[tier - 1])
        if tier == 1:
            assert context is None
        else:
            np.testing.assert_array_equal(context, interleave(parts[: tier - 1]))
            assert context.shape == target.shape


@pytest.mark.parametrize("number", [1, 2])
def test_a_tier_is_fed_what_it_models_and_its_context_and_singers(number):
    x, singers = np.arange(2 * 4 * 6).reshape(2, 4, 6), np.array([1, 0], np.int32)
    inputs, target = inputs_and_target(x, singers, TierIndex(number, 2))
    expected, context = target_and_context(x, number, 2)
    np.testing.assert_array_equal(target, expected)
    assert inputs["x"] is target and inputs["singer"] is singers
    assert set(inputs) == ({"x", "singer"} if number == 1 else {"x", "singer", "context"})
    np.testing.assert_array_equal(inputs.get("context"), context)


def test_even_and_odd_rows_along_alternating_axes():
    """Section 6: the last tier holds odd rows; of three, that one halves bands and the one before frames."""
    x = np.arange(4 * 6).reshape(4, 6)
    first, second, third = split(x, 3)
    np.testing.assert_array_equal(third, x[:, 1::2])
    np.testing.assert_array_equal(second, x[1::2, ::2])
    np.testing.assert_array_equal(first, x[::2, ::2])


@pytest.mark.parametrize("tiers", range(1, 9))
def test_divisors_are_those_of_the_axes(tiers):
    along = [axis(tier) for tier in range(2, tiers + 1)]
    assert divisors(tiers) == (2 ** along.count(-2), 2 ** along.count(-1))


@pytest.mark.parametrize(("size", "what"), [((6, 8), "6 frames"), ((8, 7), "7 bands")])
def test_what_cannot_be_divided_is_refused(size, what):
    with pytest.raises(ValueError, match=f"{what}: 5 tiers need a multiple of 4"):
        split(np.zeros(size), 5)


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="tier 2"):
        interleave([np.zeros((2, 2)), np.zeros((2, 3))])
