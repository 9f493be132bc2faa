"""A tier's order of elements, shown by gradients, and the agreement of its two passes."""

import numpy as np
import pytest
from keras import ops

from melnet.backend import compiled, gradients
from melnet.model.lstm import row
from melnet.model.tier import Tier

FRAMES, BANDS, BATCH = 6, 5, 2


@pytest.fixture(scope="module")
def tier():
    tier = Tier(bands=BANDS, layers=2, hidden=8, components=3, min_sigma=0.02)
    # Far from its small initial weights, so that every path carries weight.
    rng = np.random.default_rng(7)
    tier.set_weights([rng.normal(scale=0.5, size=w.shape).astype("float32") for w in tier.get_weights()])
    return tier


@pytest.fixture(scope="module")
def gradient(tier):
    """Of any weighted sum of a tier's outputs with respect to its input."""
    return gradients(lambda x, weights: ops.sum(tier(x) * weights))


@pytest.mark.parametrize(("t", "f"), [(0, 0), (0, 3), (1, 0), (3, 0), (3, 2), (5, 4)])
def test_an_element_depends_on_exactly_its_past(gradient, rng, t, f):
    """Outside the context the gradient is exactly zero; inside it reaches every element (equation 1's ordering)."""
    x = rng.normal(size=(1, FRAMES, BANDS)).astype("float32")
    past = np.zeros((FRAMES, BANDS), bool)
    past[:t] = True
    past[t, :f] = True
    for which in range(0, 9, 3):  # a mean, a deviation and a weight
        one = np.zeros((1, FRAMES, BANDS, 9), "float32")
        one[0, t, f, which] = 1
        reached = ops.convert_to_numpy(gradient(x, one)[0])[0] != 0
        np.testing.assert_array_equal(reached, past)


def test_samples_of_a_batch_do_not_mix(gradient, rng):
    x = rng.normal(size=(BATCH, FRAMES, BANDS)).astype("float32")
    first = np.zeros((BATCH, FRAMES, BANDS, 9), "float32")
    first[0] = 1
    reached = ops.convert_to_numpy(gradient(x, first)[0]) != 0
    assert not reached[1].any()
    assert reached[0, :-1].all()


def test_stepwise_pass_equals_teacher_forced_pass(tier, rng):
    """Fed the same values, sampling's carried state gives the mixtures of the parallel pass."""
    x = rng.normal(size=(BATCH, FRAMES, BANDS)).astype("float32")
    expected = ops.convert_to_numpy(compiled(tier)(x))
    step = compiled(lambda carried, frame: tier.frame_step(carried, lambda _, f: row(ops.transpose(frame), f)))
    carried = tier.initial(BATCH)
    for t in range(FRAMES):
        carried, parameters = step(carried, x[:, t])
        np.testing.assert_allclose(ops.convert_to_numpy(parameters), expected[:, t], atol=1e-4)
    assert np.abs(expected).max() > 0.5


def test_drawn_frames_feed_themselves(tier, rng):
    """Sampling equals the teacher-forced pass over its own output, so every drawn value was used as context."""
    noise = rng.random(size=(FRAMES, BANDS, BATCH)).astype("float32")
    step = compiled(
        lambda carried, draws: tier.frame_step(carried, lambda parameters, f: parameters[:, 0] + row(draws, f))
    )
    carried, frames, mixtures = tier.initial(BATCH), [], []
    for t in range(FRAMES):
        carried, parameters = step(carried, noise[t])
        frames.append(ops.convert_to_numpy(carried.frame))
        mixtures.append(ops.convert_to_numpy(parameters))
    expected = ops.convert_to_numpy(compiled(tier)(np.stack(frames, axis=1)))
    np.testing.assert_allclose(np.stack(mixtures, axis=1), expected, atol=1e-4)


def test_config_round_trip(tier):
    twin = Tier.from_config(tier.get_config())
    assert [w.shape for w in twin.weights] == [w.shape for w in tier.weights]
    assert [w.path for w in twin.weights] == [w.path for w in tier.weights]
