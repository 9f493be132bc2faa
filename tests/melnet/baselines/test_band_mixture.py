import json
import warnings

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy import stats

from melnet.baselines.band_mixture import BandMixture

MIN_SIGMA = 0.02

JSON = TypeAdapter(BandMixture)


@pytest.fixture
def mixture():
    """Two bands; the second has one component only, filled up to two."""
    return BandMixture(
        weights=np.array([[0.3, 0.7], [1.0, 0.0]]),
        means=np.array([[-2.0, 1.0], [0.5, 0.0]]),
        sigmas=np.array([[0.5, 1.5], [0.2, MIN_SIGMA]]),
    )


def fit_mixture(x, components=4, max_frames=10_000):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return BandMixture.fit(x, num_components=components, min_sigma=MIN_SIGMA, max_frames=max_frames, seed=0)


def test_mixture_nll_is_that_of_scipy(mixture, rng):
    x = rng.normal(size=(3, 5, 2)).astype(np.float32)
    expected = np.empty(x.shape)
    for band in range(2):
        components = stats.norm(mixture.means[band], mixture.sigmas[band]).pdf(x[..., band, None])
        expected[..., band] = -np.log(components @ mixture.weights[band])
    np.testing.assert_allclose(mixture.nll(x), expected, rtol=1e-6)


def test_mixture_nll_stays_finite_far_from_every_component(mixture):
    assert np.isfinite(mixture.nll(np.full((1, 1, 2), 1e4, np.float32))).all()


def test_mixture_density_integrates_to_one(mixture):
    x = np.linspace(-15, 15, 30_001)
    density = np.exp(-mixture.nll(np.stack([x, x], axis=-1)[None]))[0]
    np.testing.assert_allclose(np.trapezoid(density, x, axis=0), 1, atol=1e-6)


def test_samples_have_the_moments_of_the_mixture(mixture):
    x = mixture.sample((100, 1000), np.random.default_rng(1))
    assert x.shape == (100, 1000, 2)
    assert x.dtype == np.float32
    mean = (mixture.weights * mixture.means).sum(1)
    variance = (mixture.weights * (mixture.sigmas**2 + mixture.means**2)).sum(1) - mean**2
    np.testing.assert_allclose(x.mean((0, 1)), mean, atol=0.03)
    np.testing.assert_allclose(x.var((0, 1)), variance, rtol=0.03)
    # The share below a point between the components, where a single Gaussian of these moments would be wrong.
    share = mixture.weights[0] @ stats.norm(mixture.means[0], mixture.sigmas[0]).cdf(-1.5)
    assert np.mean(x[..., 0] < -1.5) == pytest.approx(share, abs=0.01)


def test_samples_are_those_of_the_seed(mixture):
    first, second, other = (mixture.sample((2, 5), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_mixture_finds_the_components_of_a_band(rng):
    x = np.concatenate([rng.normal(-2, 0.3, 3000), rng.normal(2, 0.6, 7000)])
    fitted = fit_mixture(rng.permutation(x).astype(np.float32).reshape(100, 100, 1), components=2)
    order = np.argsort(fitted.means[0])
    np.testing.assert_allclose(fitted.weights[0, order], [0.3, 0.7], atol=0.02)
    np.testing.assert_allclose(fitted.means[0, order], [-2, 2], atol=0.05)
    np.testing.assert_allclose(fitted.sigmas[0, order], [0.3, 0.6], atol=0.05)


def test_a_spike_of_equal_values_is_no_narrower_than_min_sigma(rng):
    x = rng.normal(size=(40, 50, 1)).astype(np.float32)
    x[:20] = -3.0
    fitted = fit_mixture(x)
    assert fitted.sigmas.min() == pytest.approx(MIN_SIGMA, rel=0.01)
    assert fitted.sigmas.min() >= MIN_SIGMA * (1 - 1e-9)
    # Half of the mass lies in the spike: the density there is half that of its Gaussian.
    expected = -np.log(0.5 * stats.norm(0, MIN_SIGMA).pdf(0))
    assert fitted.nll(x[:1, :1])[0, 0, 0] == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("values", [[-3.0], [-3.0, 1.0], [-3.0, np.nextafter(np.float32(-3), np.float32(0))]])
def test_bands_with_fewer_values_than_components_are_fitted_quietly(values, rng):
    x = np.stack([rng.choice(values, size=(10, 30)), rng.normal(size=(10, 30))], axis=-1).astype(np.float32)
    fitted = fit_mixture(x)
    assert fitted.weights.shape == (2, 4)
    np.testing.assert_allclose(fitted.weights.sum(1), 1)
    assert (fitted.sigmas >= MIN_SIGMA * (1 - 1e-9)).all()
    assert np.isfinite(fitted.nll(x)).all()
    np.testing.assert_allclose(np.unique(fitted.sample((50, 50), rng)[..., 0].round()), np.unique(np.round(values)))


def test_a_fit_draws_no_more_frames_than_allowed_and_always_the_same(rng):
    x = rng.normal(size=(20, 50, 2)).astype(np.float32)
    few = fit_mixture(x, max_frames=100)
    assert JSON.dump_json(few) == JSON.dump_json(fit_mixture(x, max_frames=100))
    assert JSON.dump_json(few) != JSON.dump_json(fit_mixture(x))


def test_it_survives_json(rng):
    x = rng.normal(size=(20, 30, 3)).astype(np.float32)
    fitted = fit_mixture(x)
    again = JSON.validate_json(json.dumps(JSON.dump_python(fitted), allow_nan=False))
    np.testing.assert_array_equal(again.nll(x), fitted.nll(x))
