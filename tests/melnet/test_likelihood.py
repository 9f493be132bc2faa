"""The tiers' likelihoods multiply to a density of whole spectrograms, and to the one that sampling draws from."""

import itertools

import numpy as np
import pytest

from melnet.likelihood import Likelihood
from melnet.model.multiscale import shape
from melnet.model.tier import Tier

STEP, REACH = 0.6, 6.0  # of the grid that is summed over, in standard deviations


def make_tiers(count, frames, bands):
    rng = np.random.default_rng(3)
    tiers = []
    for number in range(1, count + 1):
        tier = Tier(
            bands=shape(number, count, frames, bands).bands,
            layers=1,
            hidden=4,
            num_components=2,
            min_sigma=0.02,
            feature_layers=0 if number == 1 else 1,
        )
        weights = [rng.normal(scale=0.4, size=w.shape).astype("float32") for w in tier.get_weights()]
        # Deviations near one, so that so coarse a grid is fine enough; everything else depends on everything before.
        weights[-2][:, 2:4] *= 0.1
        weights[-1][2:4] = 0
        tier.set_weights(weights)
        tiers.append(tier)
    return tiers


@pytest.mark.parametrize("count", [1, 2, 3])
def test_probability_of_all_spectrograms_is_one(count):
    """The density of 2 x 2 elements, summed over a fine grid of all four values, is one."""
    likelihood = Likelihood(make_tiers(count, 2, 2))
    values = np.arange(-REACH, REACH + STEP / 2, STEP, dtype=np.float32)
    grid = np.array(list(itertools.product(values, repeat=4)), np.float32).reshape(-1, 2, 2)
    padded = np.concatenate([grid, grid[: -len(grid) % 4096]]).reshape(-1, 4096, 2, 2)
    nats = np.concatenate([likelihood.nats(x, np.zeros(len(x), np.int32)) for x in padded])[: len(grid)]
    densities = np.exp(-nats.astype(np.float64).sum(axis=(1, 2)))
    assert densities.sum() * STEP**4 == pytest.approx(1, abs=1e-3)
    # A density in which the elements were independent would pass as well: they are not.
    apart = np.abs(_correlations(grid.reshape(-1, 4), densities)[np.triu_indices(4, 1)])
    assert apart.max() > 0.05


@pytest.mark.parametrize("count", [1, 3])
def test_every_element_is_counted_once(count):
    likelihood = Likelihood(make_tiers(count, 4, 6))
    x = np.random.default_rng(0).normal(size=(2, 4, 6)).astype(np.float32)
    parts = likelihood.by_tier(x, np.zeros(len(x), np.int32))
    whole = likelihood.nats(x, np.zeros(len(x), np.int32))
    assert whole.shape == x.shape
    assert sum(part.size for part in parts) == x.size
    assert whole.sum() == pytest.approx(sum(part.sum() for part in parts), rel=1e-6)


def _correlations(values, weights):
    covariance = np.cov(values.T, aweights=weights)
    deviations = np.sqrt(np.diag(covariance))
    return covariance / np.outer(deviations, deviations)
