"""The layers of a tier's stacks (arXiv 1906.01083, sections 4.1 to 4.3 and 6.2).

The axis that an RNN runs over comes first, and the batch is next to the features, so that a change of the axis moves
whole blocks of memory:

- time-major: (frames, bands, batch, hidden)
- frequency-major: (bands, frames, batch, hidden)

``call`` serves training and likelihoods: it sees all frames and starts from the trained initial state. For sampling,
layers that run over time have ``advance``, which takes any number of frames from a given state on, and the layer that
runs upwards in a frame has ``step``, which takes one band.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
from keras import ops

from melnet.backend import Tensor
from melnet.model.gru import GRU
from melnet.model.lstm import LSTM
from melnet.model.precision import Dense, float32
from melnet.model.recurrent import Recurrent, State

Cell: TypeAlias = Callable[..., Recurrent]
CELLS: dict[str, type[Recurrent]] = {"lstm": LSTM, "gru": GRU}


def swap_axes(x: Tensor) -> Tensor:
    """Time-major to frequency-major and back: (frames, bands, batch, hidden) <-> (bands, frames, batch, hidden).

    >>> swap_axes(ops.zeros((50, 32, 16, 64))).shape[:2] == (32, 50)
    True
    """
    return ops.transpose(x, (1, 0, 2, 3))


def run(rnn: Recurrent, x: Tensor) -> Tensor:
    """Apply an RNN over the first axis of x (steps, ..., features); the axes between are its rows."""
    return ops.reshape(rnn(_as_rows(x)), (*ops.shape(x)[:-1], rnn.hidden))


def _as_rows(x: Tensor) -> Tensor:
    return ops.reshape(x, (ops.shape(x)[0], -1, ops.shape(x)[-1]))


class TimeDelayedLayer(keras.layers.Layer):
    """One layer of the time-delayed stack (section 4.1): three RNNs over the features of earlier frames.

    One runs forward in time, two run up and down in frequency within a frame; their hidden states are concatenated,
    projected and added to the input. The input is already delayed by one frame, so the RNNs may see whole frames.
    """

    def __init__(self, hidden: int, cell: Cell, **kwargs: Any) -> None:
        super().__init__(**float32(kwargs))
        self.time = cell(hidden, name="time")
        self.up = cell(hidden, name="up")
        self.down = cell(hidden, reverse=True, name="down")
        # W [time; up; down] as two products, so that each is computed in the layout that its RNNs give.
        self.project_time = Dense(hidden, precision=self.up.precision, name="project_time")
        self.project_frequency = Dense(hidden, precision=self.up.precision, use_bias=False, name="project_frequency")

    def build(self, hidden: int) -> None:
        for rnn in (self.time, self.up, self.down):
            rnn.build((None, None, hidden))
        self.project_time.build((None, hidden))
        self.project_frequency.build((None, 2 * hidden))

    def call(self, by_time: Tensor, by_frequency: Tensor) -> Tensor:
        """The next layer's features, time-major, from the same features time-major and frequency-major."""
        return by_time + self.project_time(run(self.time, by_time)) + self._over_frequency(by_frequency)

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The next layer's features, time-major, from a given state of the RNN over time, and its new state."""
        over_time, state = self.time.advance(_as_rows(x), state)
        projected = self.project_time(ops.reshape(over_time, ops.shape(x)))
        return x + projected + self._over_frequency(swap_axes(x)), state

    def _over_frequency(self, by_frequency: Tensor) -> Tensor:
        both = ops.concatenate([run(self.up, by_frequency), run(self.down, by_frequency)], axis=-1)
        return swap_axes(self.project_frequency(both))


class CentralisedLayer(keras.layers.Layer):
    """One layer of the centralised stack (section 4.3): one RNN over time, with features of whole frames."""

    def __init__(self, hidden: int, cell: Cell, **kwargs: Any) -> None:
        super().__init__(**float32(kwargs))
        self.time = cell(hidden, name="time")
        self.project = Dense(hidden, precision=self.time.precision, name="project")

    def build(self, hidden: int) -> None:
        self.time.build((None, None, hidden))
        self.project.build((None, hidden))

    def call(self, x: Tensor) -> Tensor:
        """The next layer's features, (frames, batch, hidden) like x."""
        return x + self.project(self.time(x))

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The next layer's features (frames, batch, hidden) from a given state on, and the new state."""
        over_time, state = self.time.advance(x, state)
        return x + self.project(over_time), state


class FrequencyDelayedLayer(keras.layers.Layer):
    """One layer of the frequency-delayed stack (section 4.2): one RNN upwards in frequency.

    Its input is the sum of three features: those of the layer below, and those of the time-delayed and the centralised
    stack at the same layer.
    """

    def __init__(self, hidden: int, cell: Cell, **kwargs: Any) -> None:
        super().__init__(**float32(kwargs))
        self.up = cell(hidden, name="up")
        self.project = Dense(hidden, precision=self.up.precision, name="project")

    def build(self, hidden: int) -> None:
        self.up.build((None, None, hidden))
        self.project.build((None, hidden))

    def call(self, x: Tensor, context: Tensor) -> Tensor:
        """The next layer's features; x and context (the other stacks' features) are frequency-major."""
        return x + self.project(run(self.up, x + context))

    def step(self, x: Tensor, context: Tensor, state: State) -> tuple[Tensor, State]:
        """The next layer's features of one band (batch, hidden) and the new state."""
        over_frequency, state = self.up.step(x + context, state)
        return x + self.project(over_frequency), state


class FeatureExtractionLayer(keras.layers.Layer):
    """One layer of the feature-extraction network (section 6.2): four RNNs, both ways along both axes.

    It reads the values of the earlier tiers. All of them are known, so nothing is delayed.
    """

    def __init__(self, hidden: int, cell: Cell, **kwargs: Any) -> None:
        super().__init__(**float32(kwargs))
        self.forth = cell(hidden, name="forth")
        self.back = cell(hidden, reverse=True, name="back")
        self.up = cell(hidden, name="up")
        self.down = cell(hidden, reverse=True, name="down")
        self.project_time = Dense(hidden, precision=self.up.precision, name="project_time")
        self.project_frequency = Dense(hidden, precision=self.up.precision, use_bias=False, name="project_frequency")

    def build(self, hidden: int) -> None:
        for rnn in (self.forth, self.back, self.up, self.down):
            rnn.build((None, None, hidden))
        self.project_time.build((None, 2 * hidden))
        self.project_frequency.build((None, 2 * hidden))

    def call(self, by_time: Tensor) -> Tensor:
        """The next layer's features; both are time-major."""
        by_frequency = swap_axes(by_time)
        over_time = ops.concatenate([run(self.forth, by_time), run(self.back, by_time)], axis=-1)
        over_frequency = ops.concatenate([run(self.up, by_frequency), run(self.down, by_frequency)], axis=-1)
        return by_time + self.project_time(over_time) + swap_axes(self.project_frequency(over_frequency))
