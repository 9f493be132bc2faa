"""With operands in bfloat16, results are those of float32 within stated tolerances; all else stays in float32."""

import keras
import numpy as np
import pytest
from keras import ops

from melnet.backend import compiled, gradients
from melnet.likelihood import Likelihood
from melnet.model.mixture import negative_log_likelihood
from melnet.model.precision import Dense, exact, matmul
from melnet.model.tier import Tier
from melnet.sampling import Sampler
from tests.weights import fixed

SHAPE = {"bands": 4, "layers": 2, "hidden": 16, "num_components": 3, "min_sigma": 0.1}
BATCH, FRAMES = 3, 6


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).normal(size=(BATCH, FRAMES, SHAPE["bands"])).astype("float32")


def tier(precision="float32", cell="lstm"):
    return fixed(Tier(**SHAPE, cell=cell, precision=precision))


def relative(actual, expected):
    actual, expected = (ops.convert_to_numpy(tensor) for tensor in (actual, expected))
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


def test_operands_are_rounded_and_the_sum_is_not():
    """The operands have 8 bits, the sum of 256 products has more."""
    a, b = np.full((1, 257), 1 + 2**-12, np.float32), np.ones((257, 1), np.float32)
    product = compiled(lambda a, b: matmul(a, b, "bfloat16"))(a, b)
    assert ops.dtype(product) == "float32"
    assert float(product[0, 0]) == 257.0
    with exact():
        assert float(compiled(lambda a, b: matmul(a, b, "bfloat16"))(a, b)[0, 0]) > 257.01


def test_a_dense_layer_and_its_gradients(rng):
    x, factors = rng.normal(size=(5, 4, 8)).astype("float32"), rng.normal(size=(5, 4, 6)).astype("float32")
    layers = [Dense(6, precision=precision) for precision in ("float32", "bfloat16")]
    for layer in layers:
        layer.build((None, 8))
    layers[1].set_weights(layers[0].get_weights())
    found = [
        [
            compiled(layer)(x),
            *gradients(lambda x, layer=layer: ops.sum(layer(x) * factors), layer.trainable_variables)(x),
        ]
        for layer in layers
    ]
    for exact_value, rounded in zip(*found, strict=True):
        assert ops.dtype(rounded) == "float32"
        assert relative(rounded, exact_value) < 0.01


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_tier_and_its_gradients(x, cell):
    def measured(precision):
        model = tier(precision, cell)

        def nll(x):
            return ops.mean(negative_log_likelihood(x, model({"x": x}), model.min_sigma))

        return compiled(lambda x: model({"x": x}))(x), gradients(nll, model.trainable_variables)(x)

    (mixtures, by_weight), (rounded, rounded_by_weight) = measured("float32"), measured("bfloat16")
    assert {ops.dtype(tensor) for tensor in (rounded, *rounded_by_weight)} == {"float32"}
    assert 0 < relative(rounded, mixtures) < 0.02
    flat, rounded_flat = (
        np.concatenate([ops.convert_to_numpy(gradient).ravel() for gradient in found])
        for found in (by_weight, rounded_by_weight)
    )
    assert 0 < relative(rounded_flat, flat) < 0.05


def sampled(model):
    bound = np.full(SHAPE["bands"], 3, np.float32)
    return Sampler([model], -bound, bound).sample(2, frames=4, seed=0)


def test_sampling_has_its_precision_and_the_likelihood_is_exact(x):
    model, exact_model = tier("bfloat16"), tier()
    drawn, expected = sampled(model), sampled(exact_model)
    assert drawn.dtype == np.float32
    # The noise is the same; a draw near the edge of two components may fall into the other.
    assert 0 < np.median(np.abs(drawn - expected)) < 0.05
    singers = np.zeros(BATCH, np.int32)
    np.testing.assert_array_equal(Likelihood([model]).nats(x, singers), Likelihood([exact_model]).nats(x, singers))


def test_keras_own_policy_rounds_nothing_of_the_model(x):
    singers, plain = np.zeros(BATCH, np.int32), tier()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = tier()
        np.testing.assert_array_equal(Likelihood([model]).nats(x, singers), Likelihood([plain]).nats(x, singers))
        np.testing.assert_array_equal(sampled(model), sampled(plain))
    finally:
        keras.config.set_dtype_policy("float32")
