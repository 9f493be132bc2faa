"""Reading a text along the frames of a spectrogram, without times (arXiv 1906.01083, section 5; Graves 2013).

A text is a sequence of symbols, characters or phonemes. An embedding and two RNNs, one in each direction, give features
of each symbol. Attention weighs them at every frame with a logistic distribution over the positions of the symbols, and
the sum of the weighted features, the context, is what the stacks are told at the frame. The location of the
distribution only moves forward, by what an RNN over the frames before says. So the alignment of text and frames is
learned from the likelihood alone.

Two things are simpler than in the paper, and alignments form all the same. The RNN does not read the context of
the frame before: it hears how far the voice has come, and the weights depend on the frames and on how many symbols
there are. So the contexts of all frames are computed at once, by an RNN of the others' kind. And there is one
distribution instead of a mixture, of which one component went ahead to the last symbol, to be looked at where no text
is needed.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from melnet.backend import Tensor
from melnet.model.precision import Dense, float32
from melnet.model.recurrent import State
from melnet.model.stacks import Cell, run_all

PADDING = 0
"""index of what follows the last symbol of a text; symbols are counted from 1"""
SLOWEST, FASTEST = -6.0, 3.0  # natural logarithms of the speed relative to the one given
NARROWEST, WIDEST = 0.05, 1.5
"""least and largest scale of the distribution, in symbols; without the latter, training makes it very wide wherever it
needs no text, as within a vowel, and there the weights show no alignment"""


class ReadingState(NamedTuple):
    """How far an attention has read."""

    rnn: State
    """state of its RNN, each tensor (batch, hidden)"""
    location: Tensor
    """of the attention, (batch, 1), in symbols after the middle of the first"""


def lengths(text: Tensor) -> Tensor:
    """Number of symbols of each text (batch, symbols); float32 (batch,).

    >>> [float(length) for length in lengths(np.array([[3, 1, 0], [0, 0, 0]]))]
    [2.0, 0.0]
    """
    return ops.sum(ops.cast(ops.not_equal(text, PADDING), "float32"), axis=-1)


def window_weights(location: Tensor, scale: Tensor, length: Tensor, symbols: int) -> Tensor:
    """Attention weights (..., batch, symbols), which sum to one over the symbols of a text.

    The weight of symbol u is what a logistic distribution has between u - 1/2 and u + 1/2; what lies before the first
    symbol counts as the first, and what lies after the last as the last.

    Parameters
    ----------
    location, scale : (..., batch, 1)
        Of the distribution, in symbols.
    length : (batch,)
        Symbols of each text; after them all weights are 0. A text of none has weight 1 on its first padding.

    >>> one = np.ones((1, 1), np.float32)
    >>> [round(float(w), 2) for w in window_weights(one, 0.05 * one, length=np.array([3.0]), symbols=4)[0]]
    [0.0, 1.0, 0.0, 0.0]
    """
    edges = np.arange(1, symbols, dtype=np.float32) - 0.5
    below = ops.sigmoid((edges - location) / scale)  # (..., batch, symbols - 1)
    below = ops.where(edges > ops.expand_dims(length, -1) - 1, 1.0, below)
    up_to = ops.concatenate([below, ops.ones_like(location)], axis=-1)
    return up_to - ops.concatenate([ops.zeros_like(location), below], axis=-1)


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
        Symbols that are read per frame before training: what a text has on average.
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
        self.hidden, self.bands, self.speed = hidden, bands, speed
        self.encode = TextEncoder(hidden, symbols, cell, name="encoder")
        self.frame_input = Dense(hidden, name="frame_input")
        self.rnn = cell(hidden, name="rnn")
        # Almost zero, so that at first all texts are read at the given speed.
        small = keras.initializers.RandomNormal(stddev=0.01)
        self.head = Dense(2, kernel_initializer=small, name="head")

    def build(self, input_shape: object) -> None:
        self.encode.build(None)
        self.frame_input.build((None, self.bands))
        self.rnn.build((None, None, self.hidden))
        self.head.build((None, self.hidden))
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
        weights, _ = self._weights(hidden, 0.0, length, features.shape[0])
        return _weighted(weights, features), weights

    def advance(
        self, one_frame_back: Tensor, features: Tensor, length: Tensor, state: ReadingState
    ) -> tuple[Tensor, ReadingState]:
        """The contexts of the next frames, and the state after them; without a gradient."""
        hidden, rnn = self.rnn.advance(self._frames(one_frame_back), state.rnn)
        weights, location = self._weights(hidden, state.location, length, features.shape[0])
        return _weighted(weights, features), ReadingState(rnn, location[-1])

    def initial(self, batch: int) -> ReadingState:
        """The state before the first frame."""
        return ReadingState(self.rnn.initial_state(batch), ops.zeros((batch, 1), self.compute_dtype))

    def _frames(self, one_frame_back: Tensor) -> Tensor:
        return self.frame_input(ops.transpose(one_frame_back, (0, 2, 1)))

    def _weights(self, hidden: Tensor, location: Tensor | float, length: Tensor, symbols: int) -> tuple[Tensor, Tensor]:
        """Attention weights (frames, batch, symbols) and locations (frames, batch, 1) that follow a location."""
        log_speed, width = ops.split(self.head(hidden), 2, axis=-1)
        moved = self.speed * ops.exp(ops.clip(log_speed, SLOWEST, FASTEST))
        location = location + ops.cumsum(moved, axis=0)
        scale = NARROWEST + (WIDEST - NARROWEST) * ops.sigmoid(width)
        return window_weights(location, scale, length, symbols), location


def _weighted(weights: Tensor, features: Tensor) -> Tensor:
    """Sums (frames, batch, hidden) of the features of symbols."""
    return ops.einsum("tbu,ubh->tbh", weights, features)
