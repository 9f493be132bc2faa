"""The linear autoregression reaches the entropy of linear processes, and is a density in MelNet's order of elements."""

import json

import numpy as np
import pytest
from pydantic import TypeAdapter
from sklearn.linear_model import Ridge

from melnet.baselines import linear_autoregression
from melnet.baselines.band_mixture import BandMixture
from melnet.baselines.linear_autoregression import LinearAutoregression
from melnet.baselines.previous_frame import RIDGE, PreviousFrame

MIN_SIGMA = 0.02
# The entropy of a Gaussian, and of two that are far apart.
GAUSSIAN = 0.5 * np.log(2 * np.pi * np.e)
NOISES = {
    "one": (lambda rng, size: rng.normal(scale=0.3, size=size), GAUSSIAN + np.log(0.3)),
    "two": (lambda rng, size: rng.choice([-0.5, 0.5], size) + 0.1 * rng.normal(size=size), GAUSSIAN + np.log(0.1 * 2)),
}

JSON = TypeAdapter(LinearAutoregression)


def fit(x, max_frames=100_000):
    return LinearAutoregression.fit(x, min_sigma=MIN_SIGMA, max_frames=max_frames, seed=0)


def process(noise):
    """Slices of noise (slices, frames, 3), each element plus a part of elements up to three frames before and below."""
    x = noise.copy()
    for t in range(3, x.shape[1]):
        for band in range(3):
            x[:, t, band] += 0.5 * x[:, t - 1, band] - 0.2 * x[:, t - 2, 2 - band] + 0.3 * x[:, t - 3, band]
            x[:, t, band] += 0.8 * x[:, t, :band].sum(axis=-1)
    return x.astype(np.float32)


@pytest.mark.parametrize("kind", NOISES)
def test_it_reaches_the_entropy_of_a_linear_process(kind, rng):
    draw, entropy = NOISES[kind]
    train, test = (process(draw(rng, (40, 500, 3)))[:, 100:] for _ in range(2))
    nll = fit(train).nll(test)
    assert nll.shape == test.shape
    assert nll[:, 3:].mean(axis=(0, 1)) == pytest.approx(np.full(3, entropy), abs=0.03)


def test_lower_bands_are_worth_nats_to_it_only(rng):
    """White noise in time, in which each band is the one below it with some more noise."""
    x = np.cumsum(rng.normal(size=(200, 50, 3)) * [1, 0.1, 0.1], axis=-1).astype(np.float32)
    band = BandMixture.fit(x, num_components=4, min_sigma=MIN_SIGMA, max_frames=10_000, seed=0)
    previous = PreviousFrame.fit(x, min_sigma=MIN_SIGMA, max_frames=10_000, seed=0)
    for other in (band, previous):
        assert other.nll(x).mean() == pytest.approx(GAUSSIAN, abs=0.03)
    assert fit(x).nll(x).mean() == pytest.approx(GAUSSIAN + np.log(0.1) * 2 / 3, abs=0.03)


def test_its_regressions_are_those_of_each_band_by_itself(moving, monkeypatch):
    monkeypatch.setattr(linear_autoregression, "FRAMES_AT_ONCE", 70)  # two slices and a part of one
    fitted = fit(moving)
    slices, frames, bands = moving.shape
    before = np.zeros((slices, frames, 3, bands))
    for t in range(frames):
        for back in range(1, 4):
            if t >= back:
                before[:, t, 3 - back] = moving[:, t - back]
    for band in range(bands):
        columns = np.concatenate([before.reshape(-1, 9), moving.reshape(-1, bands)[:, :band]], axis=-1)
        expected = Ridge(alpha=RIDGE).fit(columns, moving[..., band].ravel().astype(float))
        np.testing.assert_allclose(fitted.coefficients[band, 0], expected.intercept_, atol=1e-9)
        np.testing.assert_allclose(fitted.coefficients[band, 1 : 10 + band], expected.coef_, atol=1e-9)
        assert (fitted.coefficients[band, 10 + band :] == 0).all()


def test_the_density_of_an_element_integrates_to_one(moving):
    values = np.linspace(-15, 15, 30_001)
    x = np.repeat(moving[:1], len(values), axis=0)
    x[:, 10, 1] = values
    assert np.trapezoid(np.exp(-fit(moving).nll(x)[:, 10, 1]), values) == pytest.approx(1, abs=1e-6)


def test_it_knows_only_the_three_frames_before_and_the_lower_bands(moving):
    fitted, changed = fit(moving), moving.copy()
    changed[3, 10, 1] += 1
    touched = np.argwhere(fitted.nll(changed) != fitted.nll(moving)).tolist()
    later = [[3, frame, band] for frame in (11, 12, 13) for band in range(3)]
    assert touched == [[3, 10, 1], [3, 10, 2], *later]


def test_bands_that_never_change_are_scored_by_min_sigma(moving):
    x = moving.copy()
    x[..., 1] = -3
    nll = fit(x).nll(x)
    # The first three frames have other contexts; the ridge leaves of the others a small part of min_sigma.
    np.testing.assert_allclose(nll[:, 3:, 1], np.log(MIN_SIGMA * np.sqrt(2 * np.pi)), atol=0.1)
    assert np.isfinite(nll).all()


@pytest.mark.parametrize("shape", [(2, 1, 3), (50, 1, 3), (1, 2, 40)])
def test_the_shortest_data_are_fitted(shape, rng):
    x = rng.normal(size=shape).astype(np.float32)
    assert np.isfinite(fit(x).nll(x)).all()


def test_a_fit_draws_no_more_frames_than_allowed_and_always_the_same(moving):
    few = fit(moving, max_frames=100)
    assert JSON.dump_json(few) == JSON.dump_json(fit(moving, max_frames=100))
    assert JSON.dump_json(few) != JSON.dump_json(fit(moving))


def test_it_survives_json(moving):
    fitted = fit(moving)
    again = JSON.validate_json(json.dumps(JSON.dump_python(fitted), allow_nan=False))
    np.testing.assert_array_equal(again.nll(moving), fitted.nll(moving))
