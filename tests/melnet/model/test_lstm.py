"""The recurrent kernel against keras.layers.LSTM: values and every gradient."""

import keras
import numpy as np
import pytest
from keras import ops

from melnet.backend import compiled, gradients
from melnet.model.lstm import LSTM

STEPS, ROWS, FEATURES, HIDDEN = 7, 5, 3, 4


@pytest.fixture(params=[False, True], ids=["forward", "reversed"])
def pair(request, rng):
    """Ours and Keras's layer with the same weights."""
    ours = LSTM(HIDDEN, reverse=request.param)
    ours.build((None, None, FEATURES))
    theirs = keras.layers.LSTM(HIDDEN, return_sequences=True, go_backwards=request.param)
    theirs.build((None, STEPS, FEATURES))
    theirs.set_weights(ours.get_weights())
    assert [w.shape for w in ours.weights] == [w.shape for w in theirs.weights]
    return ours, theirs


def test_values_and_gradients_equal_keras(pair, rng):
    ours, theirs = pair
    x = rng.normal(size=(STEPS, ROWS, FEATURES)).astype("float32")
    weight = rng.normal(size=(STEPS, ROWS, HIDDEN)).astype("float32")

    def reference(sequence):
        states = theirs(ops.transpose(sequence, (1, 0, 2)))
        # Going backwards, Keras leaves the states in the order they were made.
        states = ops.flip(states, axis=1) if theirs.go_backwards else states
        return ops.transpose(states, (1, 0, 2))

    results = []
    for layer, function in ((ours, ours), (theirs, reference)):
        value = compiled(function)(x)
        grads = gradients(lambda y, f=function: ops.sum(f(y) * weight), layer.trainable_variables)(x)
        results.append([ops.convert_to_numpy(t) for t in (value, *grads)])
    assert len(results[0]) == 5
    for mine, expected in zip(*results, strict=True):
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(mine, expected, atol=1e-5)


def test_steps_equal_the_whole_sequence(rng):
    layer = LSTM(HIDDEN)
    layer.build((None, None, FEATURES))
    x = rng.normal(size=(STEPS, ROWS, FEATURES)).astype("float32")
    state, hiddens = layer.initial_state(ROWS), []
    for row in x:
        hidden, state = layer.step(row, state)
        hiddens.append(ops.convert_to_numpy(hidden))
    np.testing.assert_allclose(np.stack(hiddens), ops.convert_to_numpy(compiled(layer)(x)), atol=1e-6)


def test_forget_bias_is_one():
    layer = LSTM(HIDDEN)
    layer.build((None, None, FEATURES))
    assert ops.convert_to_numpy(layer.bias).tolist() == [0] * HIDDEN + [1] * HIDDEN + [0] * 2 * HIDDEN
