"""The stacks of a tier (arXiv 1906.01083, sections 4.1 to 4.3 and 6.2), a layer of each at a time.

Inside the stacks tensors keep the axis that is run over first and the batch next to the features, so that going from
one axis to the other moves whole blocks:

- time-major: (frames, bands, batch, hidden)
- frequency-major: (bands, frames, batch, hidden)

Layers have up to three passes with the same weights: ``call`` sees all frames at once; ``step`` advances by one frame
or one element and carries the recurrent state; ``warm`` sees all frames of a known beginning and gives the state that
``step`` goes on from.
"""

from collections.abc import Callable
from typing import TypeAlias

import keras
from keras import ops

from melnet.model.gru import GRU
from melnet.model.lstm import LSTM
from melnet.model.recurrent import Recurrent, State, Tensor

Cell: TypeAlias = Callable[..., Recurrent]
CELLS: dict[str, type[Recurrent]] = {"lstm": LSTM, "gru": GRU}


def swap_axes(x: Tensor) -> Tensor:
    """Time-major to frequency-major and back: (frames, bands, batch, hidden) <-> (bands, frames, batch, hidden)."""
    return ops.transpose(x, (1, 0, 2, 3))


def run(rnn: Recurrent, x: Tensor) -> Tensor:
    """Run over the first axis of x (steps, ..., features); all others but the features are rows."""
    steps, *rows, features = ops.shape(x)
    flat = ops.reshape(x, (steps, -1, features))
    return ops.reshape(rnn(flat), (steps, *rows, rnn.hidden))


def warm(rnn: Recurrent, x: Tensor, state: State) -> tuple[Tensor, State]:
    """As :func:`run`, from a given state; also the state after the last step."""
    steps, *rows, features = ops.shape(x)
    hiddens, state = rnn.warm(ops.reshape(x, (steps, -1, features)), state)
    return ops.reshape(hiddens, (steps, *rows, rnn.hidden)), state


class TimeDelayedLayer(keras.layers.Layer):
    """One layer of the time-delayed stack (section 4.1): three RNNs over the features of earlier frames.

    Forward in time, and forward and backward in frequency within a frame; their states are concatenated, projected and
    added to the input. The input is already delayed by one frame, so whole frames may be seen.
    """

    def __init__(self, hidden: int, cell: Cell, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.time = cell(hidden, name="time")
        self.up = cell(hidden, name="up")
        self.down = cell(hidden, reverse=True, name="down")
        # W [time; up; down] is the sum of the products of W's two parts: each is taken in the layout its RNNs leave.
        self.project_time = keras.layers.Dense(hidden, name="project_time")
        self.project_frequency = keras.layers.Dense(hidden, use_bias=False, name="project_frequency")

    def build(self, hidden: int) -> None:
        for rnn in (self.time, self.up, self.down):
            rnn.build((None, None, hidden))
        self.project_time.build((None, hidden))
        self.project_frequency.build((None, 2 * hidden))

    def call(self, by_time: Tensor, by_frequency: Tensor) -> Tensor:
        """The next layer's features, time-major, from the same features in both layouts."""
        return by_time + self.project_time(run(self.time, by_time)) + self._over_frequency(by_frequency)

    def warm(self, by_time: Tensor, by_frequency: Tensor, state: State) -> tuple[Tensor, State]:
        """As ``call``, from a given state of the RNN over time; also its state after the last frame."""
        over_time, state = warm(self.time, by_time, state)
        return by_time + self.project_time(over_time) + self._over_frequency(by_frequency), state

    def _over_frequency(self, by_frequency: Tensor) -> Tensor:
        both = ops.concatenate([run(self.up, by_frequency), run(self.down, by_frequency)], axis=-1)
        return swap_axes(self.project_frequency(both))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The next layer's features of one frame, (bands, batch, hidden), and the state of the RNN over time."""
        bands, batch, hidden = x.shape
        over_time, state = self.time.step(ops.reshape(x, (bands * batch, hidden)), state)
        over_frequency = ops.concatenate([self.up(x), self.down(x)], axis=-1)
        delayed = self.project_time(ops.reshape(over_time, x.shape))
        return x + delayed + self.project_frequency(over_frequency), state


class CentralisedLayer(keras.layers.Layer):
    """One layer of the centralised stack (section 4.3): one RNN over time whose features stand for a whole frame."""

    def __init__(self, hidden: int, cell: Cell, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.time = cell(hidden, name="time")
        self.project = keras.layers.Dense(hidden, name="project")

    def build(self, hidden: int) -> None:
        self.time.build((None, None, hidden))
        self.project.build((None, hidden))

    def call(self, x: Tensor) -> Tensor:
        """The next layer's features, from (frames, batch, hidden) to the same."""
        return x + self.project(self.time(x))

    def warm(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """As ``call``, from a given state; also the state after the last frame."""
        over_time, state = self.time.warm(x, state)
        return x + self.project(over_time), state

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The next layer's features of one frame (batch, hidden) and the new state."""
        over_time, state = self.time.step(x, state)
        return x + self.project(over_time), state


class FrequencyDelayedLayer(keras.layers.Layer):
    """One layer of the frequency-delayed stack (section 4.2): one RNN upwards in frequency.

    Its input is the sum of its own previous layer, the time-delayed and the centralised features of the same layer.
    """

    def __init__(self, hidden: int, cell: Cell, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.up = cell(hidden, name="up")
        self.project = keras.layers.Dense(hidden, name="project")

    def build(self, hidden: int) -> None:
        self.up.build((None, None, hidden))
        self.project.build((None, hidden))

    def call(self, x: Tensor, context: Tensor) -> Tensor:
        """The next layer's features; x and context, the other stacks' features, are frequency-major."""
        return x + self.project(run(self.up, x + context))

    def step(self, x: Tensor, context: Tensor, state: State) -> tuple[Tensor, State]:
        """The next layer's features of one band (batch, hidden) and the new state."""
        over_frequency, state = self.up.step(x + context, state)
        return x + self.project(over_frequency), state


class FeatureExtractionLayer(keras.layers.Layer):
    """One layer of the feature-extraction network (section 6.2): four RNNs, both ways along both axes.

    It reads what the earlier tiers hold, all of which is known: nothing is delayed.
    """

    def __init__(self, hidden: int, cell: Cell, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.forth = cell(hidden, name="forth")
        self.back = cell(hidden, reverse=True, name="back")
        self.up = cell(hidden, name="up")
        self.down = cell(hidden, reverse=True, name="down")
        self.project_time = keras.layers.Dense(hidden, name="project_time")
        self.project_frequency = keras.layers.Dense(hidden, use_bias=False, name="project_frequency")

    def build(self, hidden: int) -> None:
        for rnn in (self.forth, self.back, self.up, self.down):
            rnn.build((None, None, hidden))
        self.project_time.build((None, 2 * hidden))
        self.project_frequency.build((None, 2 * hidden))

    def call(self, by_time: Tensor) -> Tensor:
        """The next layer's features, time-major to time-major."""
        by_frequency = swap_axes(by_time)
        over_time = ops.concatenate([run(self.forth, by_time), run(self.back, by_time)], axis=-1)
        over_frequency = ops.concatenate([run(self.up, by_frequency), run(self.down, by_frequency)], axis=-1)
        return by_time + self.project_time(over_time) + swap_axes(self.project_frequency(over_frequency))
