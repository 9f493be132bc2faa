"""The recurrent kernels against Keras's own layers: values and every gradient, from trained initial states."""

import keras
import numpy as np
import pytest
from keras import ops

from melnet.backend import compiled, gradients
from melnet.model.gru import GRU
from melnet.model.lstm import LSTM

STEPS, ROWS, FEATURES, HIDDEN = 7, 5, 3, 4
KERAS = {LSTM: keras.layers.LSTM, GRU: keras.layers.GRU}


def layer(kind, **options):
    made = kind(HIDDEN, **options)
    made.build((None, None, FEATURES))
    return made


@pytest.fixture(params=[LSTM, GRU], ids=["lstm", "gru"])
def kind(request):
    return request.param


@pytest.mark.parametrize("recompute", [False, True], ids=["stored", "recomputed"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
def test_values_and_gradients_equal_keras(kind, reverse, recompute, rng):
    ours = layer(kind, reverse=reverse, recompute=recompute)
    for weight in ours.weights:
        weight.assign(rng.normal(scale=0.5, size=weight.shape))
    theirs = KERAS[kind](HIDDEN, return_sequences=True, go_backwards=reverse)
    theirs.build((None, STEPS, FEATURES))
    biases = [w for w in ours.get_weights() if w.ndim == 1]
    theirs.set_weights([*ours.get_weights()[:2], np.stack(biases) if kind is GRU else biases[0]])
    x = rng.normal(size=(STEPS, ROWS, FEATURES)).astype("float32")
    weight = rng.normal(size=(STEPS, ROWS, HIDDEN)).astype("float32")

    def reference(sequence):
        states = theirs(ops.transpose(sequence, (1, 0, 2)), initial_state=list(ours.initial_state(ROWS)))
        # Going backwards, Keras leaves the states in the order they were made.
        states = ops.flip(states, axis=1) if reverse else states
        return ops.transpose(states, (1, 0, 2))

    results = []
    # The initial state is ours in both: its gradient flows through their layer too.
    shared = [*theirs.trainable_variables, ours.initial]
    mine = {w.path.rsplit("/", 1)[1]: w for w in ours.trainable_variables}
    own = [mine["kernel"], mine["recurrent_kernel"], *(w for n, w in mine.items() if "bias" in n), ours.initial]
    for variables, function in ((own, ours), (shared, reference)):
        value = compiled(function)(x)
        found = gradients(lambda y, f=function: ops.sum(f(y) * weight), variables)(x)
        results.append([ops.convert_to_numpy(t) for t in (value, *found)])
    if kind is GRU:  # one tensor holds both of Keras's biases
        results[0][4:6] = [np.stack(results[0][4:6])]
    assert len(results[0]) == len(results[1]) == 6
    for a, b in zip(*results, strict=True):
        assert np.abs(b).max() > 0.01
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_steps_equal_the_whole_sequence(kind, rng):
    rnn = layer(kind)
    rnn.initial.assign(rng.normal(size=rnn.initial.shape))
    x = rng.normal(size=(STEPS, ROWS, FEATURES)).astype("float32")
    state, hiddens = rnn.initial_state(ROWS), []
    for row in x:
        hidden, state = rnn.step(row, state)
        hiddens.append(ops.convert_to_numpy(hidden))
    np.testing.assert_allclose(np.stack(hiddens), ops.convert_to_numpy(compiled(rnn)(x)), atol=1e-6)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
def test_advancing_in_two_parts_equals_the_whole(kind, reverse, rng):
    rnn = layer(kind, reverse=reverse)
    x = rng.normal(size=(STEPS, ROWS, FEATURES)).astype("float32")
    advance = compiled(rnn.advance)
    parts, state = [], rnn.initial_state(ROWS)
    for part in (x[3:], x[:3]) if reverse else (x[:3], x[3:]):
        hiddens, state = advance(part, state)
        parts.append(ops.convert_to_numpy(hiddens))
    whole = np.concatenate(parts[::-1] if reverse else parts)
    np.testing.assert_allclose(whole, ops.convert_to_numpy(compiled(rnn)(x)), atol=1e-6)


def test_forget_bias_is_one():
    assert ops.convert_to_numpy(layer(LSTM).bias).tolist() == [0] * HIDDEN + [1] * HIDDEN + [0] * 2 * HIDDEN
