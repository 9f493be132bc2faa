"""Sampling: the same for the same seed, whatever else is drawn beside or after it."""

import numpy as np
import pytest

from melnet.model.tier import Tier
from melnet.sampling import Sampler, noise

LOW, HIGH = np.full(5, -3, np.float32), np.full(5, 3, np.float32)


@pytest.fixture(scope="module")
def tier():
    tier = Tier(bands=5, layers=2, hidden=8, components=3, min_sigma=0.02)
    rng = np.random.default_rng(7)
    tier.set_weights([rng.normal(scale=0.3, size=w.shape).astype("float32") for w in tier.get_weights()])
    return tier


@pytest.fixture(scope="module")
def sampler(tier):
    return Sampler(tier, 1.0, LOW, HIGH)


@pytest.fixture(scope="module")
def samples(sampler):
    return sampler.sample(3, 7, seed=5)


def test_shape_and_variety(samples):
    assert samples.shape == (3, 7, 5)
    assert samples.dtype == np.float32
    assert ((samples >= LOW) & (samples <= HIGH)).all()
    assert samples.std(axis=0).min() > 0.01


def test_seed_decides(sampler, samples):
    np.testing.assert_array_equal(sampler.sample(3, 7, seed=5), samples)
    assert (sampler.sample(3, 7, seed=6) != samples).mean() > 0.9


def test_a_sample_does_not_depend_on_the_number_drawn_with_it(sampler, samples):
    np.testing.assert_allclose(sampler.sample(1, 7, seed=5), samples[:1], atol=1e-4)


def test_a_longer_sample_begins_with_the_shorter(sampler, samples):
    np.testing.assert_allclose(sampler.sample(3, 10, seed=5)[:, :7], samples, atol=1e-4)


def test_temperature_zero_has_no_chance_in_it(tier):
    samples = Sampler(tier, 0.0, LOW, HIGH).sample(2, 7, seed=5)
    np.testing.assert_allclose(samples[0], samples[1], atol=1e-5)


def test_noise_of_a_sample_is_its_own():
    few, many = noise(1, 2, 3, 4), noise(1, 5, 6, 4)
    for a, b in zip(few, many, strict=True):
        np.testing.assert_array_equal(a, b[:3, :, :2])
    assert len(np.unique(many[0])) == many[0].size
