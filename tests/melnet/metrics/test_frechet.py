import numpy as np
import pytest

from melnet.metrics.frechet import FrameStatistics, Gaussian, frame_statistics, frechet_distance


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def random_gaussian(rng, dims, rank=None):
    factor = rng.normal(size=(dims, rank or dims))
    return Gaussian(rng.normal(size=dims), factor @ factor.T)


def test_statistics_are_of_frames_and_their_differences(rng):
    x = rng.normal(size=(4, 6, 3)).astype(np.float32)
    rows = [np.concatenate([s[t], s[t].astype(float) - s[t - 1]]) for s in x for t in range(1, 6)]
    mean, covariance = frame_statistics(x)
    np.testing.assert_allclose(mean, np.mean(rows, axis=0), atol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(np.transpose(rows), bias=True), atol=1e-12)


def test_statistics_of_batches_are_those_of_the_whole(rng):
    x = rng.normal(1, 2, size=(50, 20, 4)).astype(np.float32)
    streamed = FrameStatistics(4)
    for start in range(0, 50, 7):
        streamed.update(x[start : start + 7])
    for batchwise, whole in zip(streamed.gaussian(), frame_statistics(x), strict=True):
        np.testing.assert_allclose(batchwise, whole, rtol=1e-10, atol=1e-12)


def test_single_frames_have_no_statistics():
    with pytest.raises(ValueError, match="at least 2 frames"):
        frame_statistics(np.zeros((5, 1, 3), np.float32))


def test_distance_between_diagonal_gaussians_is_the_closed_form(rng):
    means, deviations = rng.normal(size=(2, 6)), rng.uniform(0.1, 3, size=(2, 6))
    a, b = (Gaussian(mean, np.diag(deviation**2)) for mean, deviation in zip(means, deviations, strict=True))
    expected = np.sum((means[0] - means[1]) ** 2) + np.sum((deviations[0] - deviations[1]) ** 2)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_distance_uses_the_principal_root_of_the_product(rng):
    a, b = random_gaussian(rng, 5), random_gaussian(rng, 5)
    # The eigenvalues of Σ₁Σ₂ are real and positive although the product is not symmetric.
    root = np.sqrt(np.linalg.eigvals(a.covariance @ b.covariance).real).sum()
    expected = np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance + b.covariance) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rank", [6, 2])
def test_distance_is_symmetric_and_zero_for_equals(rank, rng):
    a, b = random_gaussian(rng, 6, rank), random_gaussian(rng, 6, rank)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(a, b) > 0.1
    assert 0 <= frechet_distance(a, a) < 1e-9


def test_distance_sees_movement_in_time(rng):
    x = np.cumsum(rng.normal(size=(200, 40, 2)), axis=1)
    x = (x - x.mean((0, 1))) / x.std((0, 1))
    shuffled = rng.permutation(x, axis=1)  # the same frames in another order
    halves = frechet_distance(frame_statistics(x[::2]), frame_statistics(x[1::2]))
    assert frechet_distance(frame_statistics(x), frame_statistics(shuffled)) > 5 * halves
