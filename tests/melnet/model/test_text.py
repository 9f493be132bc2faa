"""The reading of a text: its attention against scipy's logistic distribution, and what moves it on."""

import numpy as np
import pytest
import scipy.stats
from keras import ops

from melnet.backend import compiled, gradients
from melnet.model.gru import GRU
from melnet.model.lstm import LSTM
from melnet.model.text import TextEncoder, TextReader, lengths, window_weights

FRAMES, BATCH, SYMBOLS, HIDDEN, BANDS, SPEED = 9, 2, 6, 4, 3, 0.4
TEXT = np.array([[3, 1, 2, 5, 4, 1], [5, 4, 3, 0, 0, 0]], np.int32)
LENGTH = np.array([6, 3], np.float32)


def far_from_initial(layer, rng):
    """A layer with weights far from its small initial ones."""
    if not layer.built:
        layer.build(None)
    layer.set_weights([rng.normal(scale=0.5, size=w.shape).astype("float32") for w in layer.get_weights()])
    return layer


def test_weights_are_the_mass_of_a_logistic_distribution_around_each_symbol(rng):
    location, scale = rng.uniform(0, 6, (FRAMES, BATCH, 1)), rng.uniform(0.1, 3, (FRAMES, BATCH, 1))
    found = ops.convert_to_numpy(window_weights(location.astype("float32"), scale.astype("float32"), LENGTH, SYMBOLS))
    for b, length in enumerate(LENGTH.astype(int)):
        edges = np.array([-np.inf, *(np.arange(1, length) - 0.5), np.inf])
        mass = scipy.stats.logistic.cdf(edges, location[:, b], scale[:, b])
        np.testing.assert_allclose(found[:, b, :length], np.diff(mass), atol=1e-5)
        assert not found[:, b, length:].any()


def test_features_of_symbols_depend_on_all_symbols_and_on_no_padding(rng):
    encoder = far_from_initial(TextEncoder(HIDDEN, SYMBOLS, LSTM), rng)
    encode = compiled(encoder)
    features = ops.convert_to_numpy(encode(TEXT))
    assert not features[3:, 1].any()
    np.testing.assert_allclose(ops.convert_to_numpy(encode(TEXT[1:, :3])), features[:3, 1:], atol=1e-6)
    for at in range(SYMBOLS):
        changed = TEXT.copy()
        changed[0, at] = changed[0, at] % (SYMBOLS - 1) + 1
        assert np.abs(ops.convert_to_numpy(encode(changed)) - features)[:, 0].max(axis=-1).all()


def test_the_location_only_moves_forward_and_at_first_at_the_given_speed(rng):
    reader = TextReader(HIDDEN, BANDS, SYMBOLS, SPEED, GRU)
    reader.build(None)
    x = rng.normal(size=(FRAMES, BANDS, BATCH)).astype("float32")
    advance = compiled(lambda x, state: reader.advance(x, reader.encode(TEXT), LENGTH, state)[1], reader.weights)

    def locations():
        state, reached = reader.initial(BATCH), []
        for frame in x:
            state = advance(frame[None], state)
            reached.append(ops.convert_to_numpy(state.location))
        return np.stack(reached)

    expected = SPEED * np.arange(1, FRAMES + 1)
    np.testing.assert_allclose(locations().mean(axis=(1, 2)), expected, rtol=0.02)
    far_from_initial(reader, rng)
    moved = np.diff(locations(), axis=0, prepend=0)
    assert (moved > 0).all() and (moved.std(axis=0) > 0.005).all()


@pytest.mark.parametrize("cell", [GRU, LSTM])
def test_reading_on_from_a_state_equals_reading_at_once(cell, rng):
    reader = far_from_initial(TextReader(HIDDEN, BANDS, SYMBOLS, SPEED, cell), rng)
    x = rng.normal(size=(FRAMES, BANDS, BATCH)).astype("float32")
    expected, _ = compiled(lambda x: reader(x, reader.encode(TEXT), LENGTH))(x)
    advance = compiled(lambda x, state: reader.advance(x, reader.encode(TEXT), LENGTH, state))
    state, parts = reader.initial(BATCH), []
    for part in (x[:4], x[4:5], x[5:]):
        contexts, state = advance(part, state)
        parts.append(ops.convert_to_numpy(contexts))
    np.testing.assert_allclose(np.concatenate(parts), ops.convert_to_numpy(expected), atol=1e-5)
    assert np.abs(np.concatenate(parts)).max() > 0.1


def test_every_weight_has_a_gradient(rng):
    reader = far_from_initial(TextReader(HIDDEN, BANDS, SYMBOLS, SPEED, LSTM), rng)
    x = rng.normal(size=(FRAMES, BANDS, BATCH)).astype("float32")
    weights = rng.normal(size=(FRAMES, BATCH, HIDDEN)).astype("float32")

    def output(x):
        return ops.sum(reader(x, reader.encode(TEXT), lengths(TEXT))[0] * weights)

    found = gradients(output, reader.trainable_variables)(x)[1:]
    for variable, gradient in zip(reader.trainable_variables, found, strict=True):
        assert np.abs(ops.convert_to_numpy(ops.convert_to_tensor(gradient))).max() > 1e-6, variable.path
