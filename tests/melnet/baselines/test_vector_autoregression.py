"""VAR(1) noise has the moments of its process, which are known, and those of what it was fitted to."""

import numpy as np
import pytest
from scipy.linalg import solve_discrete_lyapunov

from melnet.baselines.vector_autoregression import VectorAutoregression


@pytest.fixture
def noise():
    """A slow process whose errors are correlated between its two bands."""
    return VectorAutoregression(
        coefficients=np.array([[0.9, 0.05], [-0.3, 0.6]]),
        intercept=np.array([0.1, -0.2]),
        covariance=np.array([[0.2, 0.1], [0.1, 0.3]]),
    )


def moments(x):
    """Mean, covariance and covariance of frames with the previous ones."""
    mean = x.mean(axis=(0, 1), dtype=np.float64)
    x = x - mean
    current, previous = x[:, 1:].reshape(-1, x.shape[-1]), x[:, :-1].reshape(-1, x.shape[-1])
    return mean, current.T @ current / len(current), current.T @ previous / len(current)


def test_samples_have_the_moments_of_the_process(noise):
    x = noise.sample((400, 500), np.random.default_rng(1))
    assert x.shape == (400, 500, 2)
    assert x.dtype == np.float32
    covariance = solve_discrete_lyapunov(noise.coefficients, noise.covariance)
    mean = np.linalg.solve(np.eye(2) - noise.coefficients, noise.intercept)
    for found, expected in zip(moments(x), (mean, covariance, noise.coefficients @ covariance), strict=True):
        np.testing.assert_allclose(found, expected, atol=0.03)


def test_samples_begin_anywhere_in_the_process(noise):
    first = noise.sample((20_000, 1), np.random.default_rng(1))[:, 0]
    covariance = solve_discrete_lyapunov(noise.coefficients, noise.covariance)
    np.testing.assert_allclose(np.cov(first.T), covariance, atol=0.03)


def test_a_fit_finds_the_process(noise):
    x = noise.sample((400, 500), np.random.default_rng(1))
    fitted = VectorAutoregression.fit(x, max_frames=200_000, seed=0)
    np.testing.assert_allclose(fitted.coefficients, noise.coefficients, atol=0.01)
    np.testing.assert_allclose(fitted.intercept, noise.intercept, atol=0.01)
    np.testing.assert_allclose(fitted.covariance, noise.covariance, atol=0.01)


def test_noise_has_the_moments_of_what_is_no_such_process(rng):
    x = np.sin(np.arange(100)[:, None] * [0.2, 0.3] + rng.uniform(0, 2 * np.pi, size=(200, 1, 2)))
    sampled = VectorAutoregression.fit(x, max_frames=20_000, seed=0).sample((500, 500), np.random.default_rng(1))
    for found, expected in zip(moments(sampled), moments(x), strict=True):
        np.testing.assert_allclose(found, expected, atol=0.05)


def test_samples_are_those_of_the_seed(noise):
    first, second, other = (noise.sample((2, 5), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_bands_that_never_change_stay_so(rng):
    x = rng.normal(size=(20, 50, 2)).astype(np.float32)
    x[..., 1] = -3
    sampled = VectorAutoregression.fit(x, max_frames=1000, seed=0).sample((4, 30), rng)
    np.testing.assert_allclose(sampled[..., 1], -3, atol=1e-6)
    assert 0.8 < sampled[..., 0].std() < 1.2


def test_of_single_frames_it_is_white_noise(rng):
    x = (rng.normal(size=(5000, 1, 2)) * [1, 2] + 3).astype(np.float32)
    sampled = VectorAutoregression.fit(x, max_frames=5000, seed=0).sample((100, 100), rng)
    mean, covariance, previous = moments(sampled)
    np.testing.assert_allclose(mean, 3, atol=0.1)
    np.testing.assert_allclose(covariance, np.diag([1, 4]), atol=0.2)
    np.testing.assert_allclose(previous, 0, atol=0.1)
