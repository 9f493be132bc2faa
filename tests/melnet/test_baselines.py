import json
import warnings

import numpy as np
import pytest
from scipy import stats

from melnet.baselines import RIDGE, BandMixture, PreviousFrame, floored

MIN_SIGMA = 0.02


@pytest.fixture
def rng():
    return np.random.default_rng(0)


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


def fit_regression(x, max_frames=10_000):
    return PreviousFrame.fit(x, min_sigma=MIN_SIGMA, max_frames=max_frames, seed=0)


def moving(rng, slices=20, frames=30, bands=3):
    """Bands that follow each other's past: x_t = A x_t-1 + noise."""
    dynamics = 0.4 * rng.normal(size=(bands, bands)) / np.sqrt(bands) + 0.5 * np.eye(bands)
    x = rng.normal(size=(slices, frames, bands))
    for t in range(1, frames):
        x[:, t] = x[:, t - 1] @ dynamics.T + 0.3 * x[:, t]
    return x.astype(np.float32)


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
    assert few.to_dict() == fit_mixture(x, max_frames=100).to_dict()
    assert few.to_dict() != fit_mixture(x).to_dict()
    assert fit_regression(x, 100).to_dict() == fit_regression(x, 100).to_dict()
    assert fit_regression(x, 100).to_dict() != fit_regression(x).to_dict()


def test_regression_is_least_squares_on_the_whole_previous_frame(rng):
    x = moving(rng)
    previous, current = x[:, :-1].reshape(-1, 3).astype(float), x[:, 1:].reshape(-1, 3).astype(float)
    # The ridge as further rows of a least-squares problem; the intercept, kept by centring, is not penalised.
    design = np.vstack([previous - previous.mean(0), np.sqrt(RIDGE) * np.eye(3)])
    target = np.vstack([current - current.mean(0), np.zeros((3, 3))])
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    predicted = (previous - previous.mean(0)) @ solution + current.mean(0)
    sigma = np.sqrt(np.mean((current - predicted) ** 2, axis=0))
    nll = fit_regression(x).nll(x)
    assert nll.shape == x.shape
    expected = -stats.norm(predicted, sigma).logpdf(current).reshape(20, 29, 3)
    np.testing.assert_allclose(nll[:, 1:], expected, rtol=1e-6, atol=1e-6)


def test_ridge_costs_next_to_nothing(rng):
    x = moving(rng)
    previous, current = x[:, :-1].reshape(-1, 3).astype(float), x[:, 1:].reshape(-1, 3).astype(float)
    design = np.column_stack([previous, np.ones(len(previous))])
    predicted = design @ np.linalg.lstsq(design, current, rcond=None)[0]
    unpenalised = -stats.norm(predicted, (current - predicted).std(axis=0)).logpdf(current).mean()
    assert fit_regression(x).nll(x)[:, 1:].mean() == pytest.approx(unpenalised, abs=1e-3)


def test_first_frames_are_scored_by_the_band_alone(rng):
    x = moving(rng)
    flat = x.reshape(-1, 3).astype(float)
    expected = -stats.norm(flat.mean(0), flat.std(0)).logpdf(x[:, 0])
    np.testing.assert_allclose(fit_regression(x).nll(x)[:, 0], expected, rtol=1e-6)


def test_regression_knows_nothing_of_later_frames_or_other_slices(rng):
    x = moving(rng)
    fitted = fit_regression(x)
    changed = x.copy()
    changed[3, 10] += 1
    touched = np.argwhere((fitted.nll(changed) != fitted.nll(x)).any(axis=-1))
    assert touched.tolist() == [[3, 10], [3, 11]]


def test_regression_bounds_sigma_where_nothing_moves():
    x = np.full((4, 10, 2), -3.0, np.float32)
    fitted = fit_regression(x)
    assert (fitted.sigma == MIN_SIGMA).all()
    np.testing.assert_allclose(fitted.nll(x), np.log(MIN_SIGMA * np.sqrt(2 * np.pi)), rtol=1e-6)


def test_regression_of_single_frames_is_the_band_alone(rng):
    x = rng.normal(size=(50, 1, 2)).astype(np.float32)
    fitted = fit_regression(x)
    longer = np.repeat(x, 2, axis=1)
    np.testing.assert_array_equal(fitted.nll(longer)[:, 0], fitted.nll(longer)[:, 1])


@pytest.mark.parametrize("fit", [fit_mixture, fit_regression])
def test_baselines_survive_json(fit, rng):
    x = moving(rng)
    fitted = fit(x)
    again = type(fitted).from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False)))
    np.testing.assert_array_equal(again.nll(x), fitted.nll(x))


def test_movement_in_time_is_worth_nats_to_the_regression_only(rng):
    x = moving(rng, slices=100)
    assert fit_regression(x).nll(x).mean() < fit_mixture(x).nll(x).mean() - 0.1


def test_floored_finds_silence_after_normalisation_in_float32(rng):
    floor = np.log(1e-5)
    mean, deviation = rng.normal(-6, 2, 8), rng.uniform(0.5, 3, 8)
    log_mel = rng.uniform(floor + 0.01, 4, (5, 20, 8))
    silent = rng.random(log_mel.shape) < 0.3
    log_mel[silent] = floor
    x = ((log_mel.astype(np.float32) - mean.astype(np.float32)) / deviation.astype(np.float32)).astype(np.float32)
    np.testing.assert_array_equal(floored(x, (floor - mean) / deviation), silent)
