"""The layers of a tier's stacks (arXiv 1906.01083, sections 4.1 to 4.3 and 6.2).

The axis that an RNN runs over comes first, and the batch is next to the features, so that a change of the axis moves
whole blocks of memory:

- time-major: (frames, bands, batch, hidden)
- frequency-major: (bands, frames, batch, hidden)

``jobs`` and ``combine`` serve training and likelihoods, where a layer sees all frames and starts from the trained
initial state: ``jobs`` gives its RNNs with their inputs, and ``combine`` takes their hidden states. So RNNs of several
layers can run together (:func:`run_all`). For sampling, layers that run over time have ``advance``, which takes any
number of frames from a given state on, and the layer that runs upwards in a frame has ``step``, which takes one band.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
from keras import ops

from melnet.backend import Tensor
from melnet.model import kernel_choice
from melnet.model.gru import GRU
from melnet.model.lstm import LSTM
from melnet.model.precision import Dense, float32
from melnet.model.recurrent import Recurrent, State
from melnet.model.recurrent_accelerator import Job, run_together

Cell: TypeAlias = Callable[..., Recurrent]
CELLS: dict[str, type[Recurrent]] = {"lstm": LSTM, "gru": GRU}


def swap_axes(x: Tensor) -> Tensor:
    """Time-major to frequency-major and back: (frames, bands, batch, hidden) <-> (bands, frames, batch, hidden).

    >>> swap_axes(ops.zeros((50, 32, 16, 64))).shape[:2] == (32, 50)
    True
    """
    return ops.transpose(x, (1, 0, 2, 3))


def run_all(jobs: Sequence[Job]) -> list[Tensor]:
    """Apply RNNs of one cell over the first axis of their inputs (steps, ..., features); the axes between are rows.

    On an accelerator they run together, so none may need what another gives.
    """
    cell: Any = type(jobs[0][0])  # mypy takes the class for an instance, which has no hash
    if kernel_choice.accelerated(cell):
        return run_together(jobs)
    return [ops.reshape(rnn(_as_rows(x)), (*ops.shape(x)[:-1], rnn.hidden)) for rnn, x in jobs]


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

    def jobs(self, by_time: Tensor, by_frequency: Tensor) -> list[Job]:
        """The layer's RNNs and their inputs, the same features time-major and frequency-major."""
        return [(self.time, by_time), (self.up, by_frequency), (self.down, by_frequency)]

    def combine(self, by_time: Tensor, hidden: Sequence[Tensor]) -> Tensor:
        """The next layer's features, time-major, from its input and the hidden states of its RNNs."""
        over_time, up, down = hidden
        return by_time + self.project_time(over_time) + self._over_frequency(up, down)

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The next layer's features, time-major, from a given state of the RNN over time, and its new state."""
        over_time, state = self.time.advance(_as_rows(x), state)
        projected = self.project_time(ops.reshape(over_time, ops.shape(x)))
        by_frequency = swap_axes(x)
        up, down = run_all([(self.up, by_frequency), (self.down, by_frequency)])
        return x + projected + self._over_frequency(up, down), state

    def _over_frequency(self, up: Tensor, down: Tensor) -> Tensor:
        return swap_axes(self.project_frequency(ops.concatenate([up, down], axis=-1)))


class CentralisedLayer(keras.layers.Layer):
    """One layer of the centralised stack (section 4.3): one RNN over time, with features of whole frames."""

    def __init__(self, hidden: int, cell: Cell, **kwargs: Any) -> None:
        super().__init__(**float32(kwargs))
        self.time = cell(hidden, name="time")
        self.project = Dense(hidden, precision=self.time.precision, name="project")

    def build(self, hidden: int) -> None:
        self.time.build((None, None, hidden))
        self.project.build((None, hidden))

    def jobs(self, x: Tensor) -> list[Job]:
        """The layer's RNN and its input (frames, batch, hidden)."""
        return [(self.time, x)]

    def combine(self, x: Tensor, hidden: Sequence[Tensor]) -> Tensor:
        """The next layer's features, (frames, batch, hidden) like x."""
        return x + self.project(hidden[0])

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

    def jobs(self, x: Tensor, context: Tensor) -> list[Job]:
        """The layer's RNN and its input; x and context (the other stacks' features) are frequency-major."""
        return [(self.up, x + context)]

    def combine(self, x: Tensor, hidden: Sequence[Tensor]) -> Tensor:
        """The next layer's features, frequency-major like x."""
        return x + self.project(hidden[0])

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
        along_time = [(self.forth, by_time), (self.back, by_time)]
        forth, back, up, down = run_all([*along_time, (self.up, by_frequency), (self.down, by_frequency)])
        over_time = ops.concatenate([forth, back], axis=-1)
        over_frequency = ops.concatenate([up, down], axis=-1)
        return by_time + self.project_time(over_time) + swap_axes(self.project_frequency(over_frequency))


def shift_frames(x: Tensor) -> Tensor:
    """Move each frame of x (frames, bands, batch) one frame later, after a frame of zeros."""
    return ops.pad(x[:-1], ((1, 0), (0, 0), (0, 0)))
