"""The reading of a text: its hidden Markov model against a sum over all alignments, and what it depends on."""

import itertools

import numpy as np
import pytest
import scipy.special
import scipy.stats
from keras import ops

from melnet.backend import compiled, gradients
from melnet.model.gru import GRU
from melnet.model.lstm import LSTM
from melnet.model.text import IMPOSSIBLE, TextEncoder, TextReader, forward, lengths, marginal_nats

FRAMES, BATCH, SYMBOLS, HIDDEN, BANDS, SPEED = 7, 2, 6, 4, 3, 0.4
TEXT = np.array([[3, 1, 2, 5, 4, 1], [5, 4, 3, 0, 0, 0]], np.int32)
LENGTH = np.array([6, 3], np.float32)


def far_from_initial(layer, rng):
    """A layer with weights far from its small initial ones."""
    if not layer.built:
        layer.build(None)
    layer.set_weights([rng.normal(scale=0.5, size=w.shape).astype("float32") for w in layer.get_weights()])
    return layer


def hidden_markov_model(rng, frames=FRAMES, symbols=4):
    """Start, density, and log-probabilities to stay and to leave, of a batch; the last symbol is not left."""
    density = rng.normal(scale=2, size=(frames, symbols, BATCH)).astype("float32")
    leaving = rng.normal(size=(frames, symbols, BATCH)).astype("float32")
    stay, leave = scipy.special.log_expit(-leaving), scipy.special.log_expit(leaving)
    stay[:, -1], leave[:, -1] = 0, IMPOSSIBLE
    start = np.full((symbols, BATCH), IMPOSSIBLE, np.float32)
    start[0] = 0
    return start, density, stay.astype("float32"), leave.astype("float32")


def log_likelihood_of_all_alignments(density, stay, leave, frames):
    """Enumerate the frames before which the symbol changes, and sum over the first frames of one item."""
    found = []
    for moves in itertools.product([0, 1], repeat=frames):
        at = np.cumsum(moves)
        if at[-1] < density.shape[1]:
            before = at - np.array(moves)
            steps = np.where(moves, leave[np.arange(frames), before], stay[np.arange(frames), before])
            found.append(steps.sum() + density[np.arange(frames), at].sum())
    return scipy.special.logsumexp(found)


def test_the_likelihood_is_the_sum_over_all_alignments(rng):
    start, density, stay, leave = hidden_markov_model(rng)
    nats = ops.convert_to_numpy(compiled(marginal_nats)(start, density, stay, leave))
    for b in range(BATCH):
        given = [x[..., b].astype(float) for x in (density, stay, leave)]
        expected = [log_likelihood_of_all_alignments(*given, frames) for frames in range(1, FRAMES + 1)]
        np.testing.assert_allclose(np.cumsum(nats[:, b]), -np.array(expected), rtol=1e-4, atol=1e-4)


def test_its_gradient_is_that_of_the_likelihood(rng):
    start, density, stay, leave = hidden_markov_model(rng)
    given = np.stack([density, stay, leave])
    gradient = gradients(lambda given: ops.sum(marginal_nats(start, given[0], given[1], given[2])))
    found, given = ops.convert_to_numpy(gradient(given)[0]), given.astype(float)

    def nats():
        return -sum(log_likelihood_of_all_alignments(*(x[..., b] for x in given), FRAMES) for b in range(BATCH))

    for values, gradient_of in zip(given, found, strict=True):
        for at in itertools.product(range(FRAMES), range(3), range(BATCH)):  # the last symbol is not left
            kept = values[at]
            values[at] = kept + 1e-5
            above = nats()
            values[at] = kept - 1e-5
            np.testing.assert_allclose(gradient_of[at], (above - nats()) / 2e-5, atol=1e-3)
            values[at] = kept


def test_the_weights_are_those_of_the_frames_before(rng):
    """The weight of a symbol at a frame is its share in all alignments of the frames before."""
    start, density, stay, leave = hidden_markov_model(rng, frames=4, symbols=3)
    observed = np.pad(density[:-1], ((1, 0), (0, 0), (0, 0)))
    found = np.exp(ops.convert_to_numpy(compiled(forward)(start, observed, stay, leave)))
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    for frame in range(4):
        for symbol in range(3):
            only = density[: frame + 1, :, 0].astype(float)
            only[frame] = np.where(np.arange(3) == symbol, 0, -np.inf)
            whole = only.copy()
            whole[frame] = 0
            args = stay[..., 0], leave[..., 0], frame + 1
            share = np.exp(
                log_likelihood_of_all_alignments(only, *args) - log_likelihood_of_all_alignments(whole, *args)
            )
            np.testing.assert_allclose(found[frame, symbol, 0], share, atol=1e-4)


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


def test_at_first_a_text_is_read_at_about_the_given_speed(rng):
    reader = TextReader(HIDDEN, BANDS, SYMBOLS, SPEED, GRU)
    reader.build(None)
    reader.head.set_weights([0 * weight for weight in reader.head.get_weights()])
    x = rng.normal(size=(FRAMES, BANDS, BATCH)).astype("float32")
    _, weights = compiled(lambda x: reader(x, reader.encode(TEXT), LENGTH))(x)
    expected = scipy.stats.binom(np.arange(1, FRAMES + 1)[:, None], SPEED).pmf(np.arange(5))
    np.testing.assert_allclose(ops.convert_to_numpy(weights)[:, 0, :5], expected, atol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(weights)[:, 1, :2], expected[:, :2], atol=1e-5)
    assert not ops.convert_to_numpy(weights)[:, 1, 3:].any()  # after the last symbol


@pytest.mark.parametrize("cell", [GRU, LSTM])
def test_reading_on_from_a_state_equals_reading_at_once(cell, rng):
    reader = far_from_initial(TextReader(HIDDEN, BANDS, SYMBOLS, SPEED, cell), rng)
    x = rng.normal(size=(FRAMES, BANDS, BATCH)).astype("float32")
    x[0] = 0  # there is no frame before the first
    expected, _ = compiled(lambda x: reader(x, reader.encode(TEXT), LENGTH))(x)
    advance = compiled(lambda x, state: reader.advance(x, reader.encode(TEXT), LENGTH, state))
    state, parts = reader.initial(BATCH, SYMBOLS), []
    for part in (x[:4], x[4:5], x[5:]):
        contexts, state = advance(part, state)
        parts.append(ops.convert_to_numpy(contexts))
    np.testing.assert_allclose(np.concatenate(parts), ops.convert_to_numpy(expected), atol=1e-5)
    assert np.abs(np.concatenate(parts)).max() > 0.1


def test_every_weight_learns_from_the_likelihood_and_none_from_the_contexts(rng):
    reader = far_from_initial(TextReader(HIDDEN, BANDS, SYMBOLS, SPEED, LSTM), rng)
    x = rng.normal(size=(BATCH, FRAMES, BANDS)).astype("float32")
    found = gradients(lambda x: ops.sum(reader.nats(x, TEXT, np.ones(BATCH, np.float32))), reader.trainable_variables)(
        x
    )[1:]
    for variable, gradient in zip(reader.trainable_variables, found, strict=True):
        assert np.abs(ops.convert_to_numpy(ops.convert_to_tensor(gradient))).max() > 1e-6, variable.path

    def weights(frames):
        return ops.sum(reader(frames, reader.encode(TEXT), lengths(TEXT))[1] ** 2)

    frames = np.transpose(x, (1, 2, 0))
    assert not ops.convert_to_numpy(gradients(lambda frames: weights(frames) + ops.sum(0 * frames))(frames)[0]).any()
