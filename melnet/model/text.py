"""Reading a text along the frames of a spectrogram, without times (arXiv 1906.01083, section 5).

A text is a sequence of symbols, characters or phonemes. An embedding and two RNNs, one in each direction, give features
of each symbol. Attention weighs them at every frame, and their weighted sum, the context, is what the stacks are told
at the frame.

The paper's attention is a mixture of logistic distributions over the positions of the symbols, whose location an RNN
moves forward. Here the weights are the belief of a hidden Markov model about which symbol the frame belongs to, given
all frames before it (Mehta et al., Neural HMMs are all you need, arXiv 2108.13320). It begins with the first symbol;
before each frame it stays or goes on to the next one, and each symbol says how probable the frame is, given an RNN over
the frames before. So the text itself corrects the attention: frames that a symbol cannot explain move the belief on.
The likelihood of a text's frames is a sum over all alignments and has a plain gradient, so the alignment forms within
some hundred steps, where that of a logistic distribution takes thousands and drifts by a symbol or two
(docs/model.md has the figures).
"""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from melnet.backend import Tensor
from melnet.model.precision import Dense, float32
from melnet.model.recurrent import State
from melnet.model.stacks import Cell, run_all, shift_frames

PADDING = 0
"""index of what follows the last symbol of a text; symbols are counted from 1"""
IMPOSSIBLE = -1e9  # a log-probability that survives sums without becoming NaN
LOG_SIGMA = (-2.5, 2.0)  # range of the logarithm of the deviation of a band, in its normalised units


class ReadingState(NamedTuple):
    """How far a text has been read."""

    rnn: State
    """state of the RNN over the frames, each tensor (batch, hidden)"""
    hidden: Tensor
    """its last output, (batch, hidden)"""
    log_weights: Tensor
    """logarithms of the last attention weights, (batch, symbols)"""


def lengths(text: Tensor) -> Tensor:
    """Number of symbols of each text (batch, symbols); float32 (batch,).

    >>> [float(length) for length in lengths(np.array([[3, 1, 0], [0, 0, 0]]))]
    [2.0, 0.0]
    """
    return ops.sum(ops.cast(ops.not_equal(text, PADDING), "float32"), axis=-1)


def forward(log_weights: Tensor, observed: Tensor, stay: Tensor, leave: Tensor) -> Tensor:
    """Log-weights of the symbols at each frame, given the frames before it: the forward algorithm.

    Parameters
    ----------
    log_weights : (symbols, batch)
        At the frame before the first.
    observed : (frames, symbols, batch)
        For each frame, log-density of the frame before it under each symbol.
    stay, leave : (frames, symbols, batch)
        Log-probabilities that the frame belongs to the symbol of the frame before it, or to the next one.

    >>> log = lambda *values: np.log(np.array(values, np.float32)).reshape(1, -1, 1)
    >>> start, observed = log(1, 1e-30)[0], log(1, 1)
    >>> found = forward(start, observed, stay=log(0.75, 1), leave=log(0.25, 1e-30))
    >>> [round(float(weight), 2) for weight in np.exp(found)[0, :, 0]]
    [0.75, 0.25]
    """

    def step(before: Tensor, xs: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        observed, stay, leave = xs
        known = before + observed
        moved = ops.pad((known + leave)[:-1], ((1, 0), (0, 0)), constant_values=IMPOSSIBLE)
        reached = ops.logaddexp(known + stay, moved)
        reached = reached - ops.logsumexp(reached, axis=0, keepdims=True)
        return reached, reached

    if observed.shape[0] == 1:  # without a loop
        return ops.expand_dims(step(log_weights, (observed[0], stay[0], leave[0]))[0], 0)
    return ops.scan(step, log_weights, (observed, stay, leave))[1]


def backward(density: Tensor, stay: Tensor, leave: Tensor) -> Tensor:
    """Log-densities of each frame and all later ones, by the symbol of the frame, up to a constant of each frame.

    ``density`` (frames, symbols, batch) is that of each frame under each symbol; for the others see :func:`forward`.
    """

    def step(after: Tensor, xs: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        density, stay, leave = xs
        found = density + ops.logaddexp(stay + after, leave + _next(after))
        found = found - ops.max(found, axis=0, keepdims=True)
        return found, found

    _, found = ops.scan(step, density[-1], (density[:-1], stay[1:], leave[1:]), reverse=True)
    return ops.concatenate([found, density[-1:]], axis=0)


def _next(values: Tensor) -> Tensor:
    """Move the values of each symbol to the symbol before it, along the axis before the last."""
    padding = [(0, 0)] * (len(values.shape) - 2) + [(0, 1), (0, 0)]
    return ops.pad(values[..., 1:, :], padding, constant_values=IMPOSSIBLE)


def marginal_nats(start: Tensor, density: Tensor, stay: Tensor, leave: Tensor) -> Tensor:
    """Negative log-density of each frame given the frames before it, over all alignments; (frames, batch).

    The gradient of the sum over the frames is that of the exact likelihood, by Fisher's identity: of the
    log-probabilities, weighted with what the forward-backward algorithm says of them. So no gradient has to pass
    through the loops over the frames.

    Parameters
    ----------
    start : (symbols, batch)
        Log-weights at the frame before the first.
    density, stay, leave
        See :func:`backward` and :func:`forward`.
    """
    given = [ops.stop_gradient(tensor) for tensor in (density, stay, leave)]
    fixed_density, fixed_stay, fixed_leave = given
    observed = ops.pad(fixed_density[:-1], ((1, 0), (0, 0), (0, 0)))
    weights = ops.stop_gradient(forward(start, observed, fixed_stay, fixed_leave))
    nats = ops.stop_gradient(-ops.logsumexp(weights + fixed_density, axis=1))
    after = ops.stop_gradient(backward(*given))
    belonging = ops.softmax(weights + after, axis=1)  # of each frame to each symbol, given all frames
    before = ops.concatenate([ops.expand_dims(start, 0), weights[:-1]], axis=0) + observed
    moves = ops.concatenate([before + fixed_stay + after, before + fixed_leave + _next(after)], axis=1)
    stayed, left = ops.split(ops.softmax(moves, axis=1), 2, axis=1)
    terms = belonging * density + stayed * _bounded(stay) + left * _bounded(leave)
    surrogate = -ops.sum(terms, axis=1)
    return nats + surrogate - ops.stop_gradient(surrogate)


def _bounded(log_probability: Tensor) -> Tensor:
    """Without what is impossible, whose weight is zero."""
    return ops.maximum(log_probability, -100.0)


class TextEncoder(keras.layers.Layer):
    """Features of the symbols of texts: an embedding, and RNNs over the text in both directions.

    Parameters
    ----------
    hidden
        Features of a symbol.
    symbols
        Number of symbol indices, of which ``PADDING`` is one.
    cell
        Makes an RNN of so many units.
    """

    def __init__(self, hidden: int, symbols: int, cell: Cell, **kwargs: Any) -> None:
        super().__init__(**float32(kwargs))
        self.hidden = hidden
        # Keras' own initial values are a tenth as large, and alignments form later with them.
        apart = keras.initializers.RandomNormal(stddev=0.5)
        self.embedding = keras.layers.Embedding(
            symbols, hidden, embeddings_initializer=apart, dtype="float32", name="symbols"
        )
        self.forth, self.back = cell(hidden, name="forth"), cell(hidden, name="back")
        self.project = Dense(hidden, name="project")

    def build(self, input_shape: object) -> None:
        self.embedding.build()
        for rnn in (self.forth, self.back):
            rnn.build((None, None, self.hidden))
        self.project.build((None, 3 * self.hidden))
        self.built = True

    def call(self, text: Tensor) -> Tensor:
        """Features (symbols, batch, hidden) of texts, int32 (batch, symbols); zeros for padding.

        They do not depend on how much padding there is.
        """
        length, at = ops.expand_dims(lengths(text), -1), ops.arange(text.shape[1], dtype="float32")
        # Each text backwards, its padding still at the end, as a product with a permutation.
        turned = ops.where(at < length, length - 1 - at, at)
        turn = ops.one_hot(ops.cast(turned, "int32"), text.shape[1], dtype="float32")  # (batch, symbols, symbols)
        embedded = self.embedding(text)
        forwards, backwards = (ops.transpose(x, (1, 0, 2)) for x in (embedded, ops.matmul(turn, embedded)))
        forth, back = run_all([(self.forth, forwards), (self.back, backwards)])
        back = ops.transpose(ops.matmul(turn, ops.transpose(back, (1, 0, 2))), (1, 0, 2))
        features = self.project(ops.concatenate([forwards, forth, back], axis=-1))
        return features * ops.cast(ops.expand_dims(ops.not_equal(ops.transpose(text), PADDING), -1), features.dtype)


class TextReader(keras.layers.Layer):
    """Contexts of every frame from a text and the frames before it; see the module.

    Parameters
    ----------
    hidden, bands
        Features of a symbol and of a context, and bands of a frame.
    symbols
        Number of symbol indices, of which ``PADDING`` is one.
    speed
        Symbols that are read per frame before training, at most 0.9: what a text has on average.
    cell
        Makes an RNN of so many units.

    >>> from melnet.backend import compiled
    >>> from melnet.model.gru import GRU
    >>> reader = TextReader(hidden=4, bands=3, symbols=6, speed=0.1, cell=GRU)
    >>> reader.build(None)
    >>> text, one_frame_back = np.array([[5, 1, 2, 0]], np.int32), np.zeros((7, 3, 1), np.float32)
    >>> read = compiled(lambda x, text: reader(x, reader.encode(text), lengths(text)))
    >>> contexts, weights = read(one_frame_back, text)
    >>> tuple(contexts.shape), tuple(weights.shape)
    ((7, 1, 4), (7, 1, 4))
    """

    def __init__(self, hidden: int, bands: int, symbols: int, speed: float, cell: Cell, **kwargs: Any) -> None:
        super().__init__(**float32(kwargs))
        self.hidden, self.bands, self.speed = hidden, bands, float(np.clip(speed, 0.01, 0.9))
        self.encode = TextEncoder(hidden, symbols, cell, name="encoder")
        self.frame_input = Dense(hidden, name="frame_input")
        self.rnn = cell(hidden, name="rnn")
        self.of_frames, self.of_symbols = Dense(hidden, name="of_frames"), Dense(hidden, name="of_symbols")
        # Mean and logarithm of the deviation of each band, and the logit of leaving the symbol.
        self.head = Dense(2 * bands + 1, name="head")

    def build(self, input_shape: object) -> None:
        self.encode.build(None)
        self.frame_input.build((None, self.bands))
        self.rnn.build((None, None, self.hidden))
        for layer in (self.of_frames, self.of_symbols, self.head):
            layer.build((None, self.hidden))
        self.built = True

    def call(self, one_frame_back: Tensor, features: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Contexts (frames, batch, hidden) and attention weights (frames, batch, symbols) from the first frame on.

        Parameters
        ----------
        one_frame_back : (frames, bands, batch)
            For each frame the one before it.
        features : (symbols, batch, hidden)
            Of the symbols, from :class:`TextEncoder`.
        length : (batch,)
            Symbols of each text.
        """
        hidden = self.rnn(self._frames(one_frame_back))
        state = self.initial(ops.shape(hidden)[1], features.shape[0])
        weights = self._weights(one_frame_back, hidden, features, length, state)
        return _weighted(weights, features), ops.transpose(ops.exp(weights), (0, 2, 1))

    def advance(
        self, one_frame_back: Tensor, features: Tensor, length: Tensor, state: ReadingState
    ) -> tuple[Tensor, ReadingState]:
        """The contexts of the next frames, and the state after them; without a gradient."""
        hidden, rnn = self.rnn.advance(self._frames(one_frame_back), state.rnn)
        weights = self._weights(one_frame_back, hidden, features, length, state)
        return _weighted(weights, features), ReadingState(rnn, hidden[-1], ops.transpose(weights[-1]))

    def initial(self, batch: int, symbols: int) -> ReadingState:
        """The state before the first frame, at the first of so many symbols."""
        hidden = ops.zeros((batch, self.hidden), self.compute_dtype)
        first = np.where(np.arange(symbols) == 0, 0.0, IMPOSSIBLE).astype(np.float32)
        return ReadingState(self.rnn.initial_state(batch), hidden, ops.broadcast_to(first, (batch, symbols)))

    def nats(self, x: Tensor, text: Tensor, evidence: Tensor) -> Tensor:
        """Nats of each frame of x (batch, frames, bands), (batch, frames), whose mean trains this layer.

        They are those of the densities that are used here, to the power of ``evidence`` (batch,), 1 or less.
        """
        frames, length = ops.transpose(x, (1, 2, 0)), lengths(text)
        hidden = self.rnn(self._frames(shift_frames(frames)))
        gaussians, leaving = self._of_pairs(hidden, self.encode(text))
        start = ops.transpose(self.initial(ops.shape(hidden)[1], text.shape[1]).log_weights)
        density = evidence * _log_density(frames, gaussians)
        nats = marginal_nats(start, density, *_moves(leaving, length))
        return ops.transpose(nats)

    def _frames(self, one_frame_back: Tensor) -> Tensor:
        return self.frame_input(ops.transpose(one_frame_back, (0, 2, 1)))

    def _of_pairs(self, hidden: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """For each frame and symbol, means and log-deviations of the bands and the logit of leaving.

        They are (frames, symbols, batch, 2 bands) and (frames, symbols, batch).
        """
        pairs = ops.expand_dims(self.of_frames(hidden), 1) + ops.expand_dims(self.of_symbols(features), 0)
        out = self.head(keras.activations.gelu(pairs))
        return out[..., :-1], out[..., -1] + float(np.log(self.speed / (1 - self.speed)))

    def _weights(
        self, one_frame_back: Tensor, hidden: Tensor, features: Tensor, length: Tensor, state: ReadingState
    ) -> Tensor:
        """Log-weights (frames, symbols, batch) that follow a state; they pass no gradient on, see :meth:`nats`."""
        from_before = ops.concatenate([ops.expand_dims(state.hidden, 0), hidden], axis=0)
        gaussians, leaving = self._of_pairs(from_before, features)
        observed = _log_density(one_frame_back, gaussians[:-1])
        given = (ops.transpose(state.log_weights), observed, *_moves(leaving[1:], length))
        return ops.stop_gradient(forward(*(ops.stop_gradient(tensor) for tensor in given)))


def _log_density(frames: Tensor, gaussians: Tensor) -> Tensor:
    """Log-density of frames (frames, bands, batch) under each symbol, over the root of the number of bands.

    Neighbouring bands say much the same. As independent evidence they would make the reader so sure of a wrong
    alignment that it hardly ever leaves it. The result is (frames, symbols, batch).
    """
    mean, log_sigma = ops.split(gaussians, 2, axis=-1)
    log_sigma = ops.clip(log_sigma, *LOG_SIGMA)
    distance = (ops.expand_dims(ops.transpose(frames, (0, 2, 1)), 1) - mean) * ops.exp(-log_sigma)
    nats = ops.sum(0.5 * ops.square(distance) + log_sigma + 0.5 * float(np.log(2 * np.pi)), axis=-1)
    return -nats / frames.shape[1] ** 0.5


def _moves(leaving: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities to stay and to leave, from logits (frames, symbols, batch); the last symbol is not left."""
    last = ops.expand_dims(ops.arange(leaving.shape[1], dtype="float32"), -1) >= length - 1
    return ops.where(last, 0.0, ops.log_sigmoid(-leaving)), ops.where(last, IMPOSSIBLE, ops.log_sigmoid(leaving))


def _weighted(log_weights: Tensor, features: Tensor) -> Tensor:
    """Sums (frames, batch, hidden) of the features of symbols."""
    return ops.einsum("tub,ubh->tbh", ops.exp(log_weights), features)
