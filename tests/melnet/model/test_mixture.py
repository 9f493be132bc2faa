"""Mixture likelihood and sampling against independent numpy and scipy computations."""

import numpy as np
import pytest
from keras import ops
from scipy import stats
from scipy.special import softmax

from melnet.backend import compiled
from melnet.model import mixture

K = 3


def split(parameters, min_sigma):
    mean, log_sigma, logits = np.split(parameters.astype("float64"), 3, axis=-1)
    return mean, np.exp(log_sigma) + min_sigma, softmax(logits, axis=-1)


@pytest.mark.parametrize("min_sigma", [0.02, 0.3])
def test_likelihood_equals_numpy(rng, min_sigma):
    parameters = rng.normal(size=(2, 5, 4, 3 * K)).astype("float32")
    x = rng.normal(size=(2, 5, 4)).astype("float32")
    mean, sigma, weight = split(parameters, min_sigma)
    density = (weight * stats.norm.pdf(x[..., None], mean, sigma)).sum(-1)
    nll = ops.convert_to_numpy(mixture.negative_log_likelihood(x, parameters, min_sigma))
    np.testing.assert_allclose(nll, -np.log(density), rtol=1e-4, atol=1e-5)


def test_likelihood_is_bounded_where_values_repeat():
    """However narrow the component, no element is worth more than a Gaussian of min_sigma."""
    parameters = np.array([0.0, -50.0, 0.0], "float32")
    nll = ops.convert_to_numpy(mixture.negative_log_likelihood(np.float32(0), parameters, 0.02))
    assert nll == pytest.approx(-stats.norm.logpdf(0, 0, 0.02), abs=1e-4)


def test_likelihood_is_finite_far_away(rng):
    parameters = rng.normal(size=(3 * K,)).astype("float32")
    assert np.isfinite(ops.convert_to_numpy(mixture.negative_log_likelihood(np.float32(1e6), parameters, 0.02)))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_follow_the_tempered_mixture(rng, temperature):
    n = 200_000
    parameters = np.array([-2.0, 0.5, 3.0, -1.0, 0.1, -0.5, 0.3, 1.0, -0.2], "float32")
    drawn = mixture.sample(
        np.broadcast_to(parameters, (n, 3 * K)),
        rng.random(n, dtype="float32"),
        rng.standard_normal(n, dtype="float32"),
        min_sigma=0.02,
        temperature=temperature,
    )
    mean, sigma, weight = split(parameters, 0.02)
    weight = weight ** (1 / temperature) / (weight ** (1 / temperature)).sum()

    def cumulative(x):
        return (weight * stats.norm.cdf(np.asarray(x)[..., None], mean, sigma * np.sqrt(temperature))).sum(-1)

    assert stats.kstest(ops.convert_to_numpy(drawn), cumulative).statistic < 1.95 / np.sqrt(n)  # p = 0.001


def test_temperature_zero_is_the_heaviest_mean(rng):
    parameters = np.array([-2.0, 0.5, 3.0, 0, 0, 0, 0.3, 1.0, -0.2], "float32")
    noise = rng.random(2, dtype="float32")
    drawn = mixture.sample(np.stack([parameters] * 2), noise, noise, min_sigma=0.02, temperature=0)
    assert ops.convert_to_numpy(drawn).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(("temperature", "top"), [(1.0, 3), (0.7, 1), (1.5, 2), (0.0, 3)])
def test_compiled_draws_serve_all_temperatures(rng, temperature, top):
    parameters = rng.normal(size=(500, 3 * K)).astype("float32")
    uniform, normal = rng.random(500, dtype="float32"), rng.standard_normal(500, dtype="float32")
    draw = compiled(
        lambda *noise, temperature, top_components: mixture.sample(
            parameters, *noise, min_sigma=0.02, temperature=temperature, top_components=top_components
        )
    )
    settings = {"temperature": np.array(temperature, "float32"), "top_components": np.array(top, "int32")}
    found = draw(uniform, normal, **settings)
    mean, sigma, weight = split(parameters, 0.02)
    order = np.argsort(-weight, axis=-1)[:, : top if temperature else 1]
    kept = np.zeros(weight.shape)
    np.put_along_axis(kept, order, 1, axis=-1)
    tempered = kept * weight ** (1 / temperature if temperature else 1)
    cumulative = np.cumsum(tempered / tempered.sum(-1, keepdims=True), axis=-1)
    chosen = (uniform[:, None] > cumulative[:, :-1] + 1e-12).sum(-1)
    expected = (mean + np.sqrt(temperature) * sigma * normal[:, None])[np.arange(500), chosen]
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=1e-5)


def test_a_draw_of_almost_one_stays_in_range():
    parameters = np.array([1.0, 2.0, 3.0, 0, 0, 0, 0, 0, 0], "float32")
    drawn = mixture.sample(
        parameters, np.nextafter(np.float32(1), np.float32(0)), np.float32(0), min_sigma=0.02, temperature=1.0
    )
    assert float(drawn) == 3.0


def test_loss_counts_each_slice_by_its_weight(rng):
    x = rng.normal(size=(3, 4, 2)).astype("float32")
    parameters = rng.normal(size=(3, 4, 2, 3 * K)).astype("float32")
    nll = ops.convert_to_numpy(mixture.negative_log_likelihood(x, parameters, 0.02))
    loss = mixture.MixtureLoss(0.02)(x, parameters, sample_weight=np.array([1.0, 1.0, 0.0], "float32"))
    assert float(loss) == pytest.approx(nll[:2].mean(), abs=1e-5)
