"""One tier of MelNet: the stacks and the mixture they end in (arXiv 1906.01083, section 4).

The spectrogram is modelled element by element, frame by frame and from the lowest band up inside a frame. The same
weights serve two passes: ``call`` gives the mixtures of all elements of known spectrograms at once, for training and
likelihoods; ``frame_step`` goes on by one frame and carries the recurrent state, for sampling.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import keras
from keras import ops

from melnet.model.lstm import State, Tensor, put_row, row
from melnet.model.stacks import CentralisedLayer, FrequencyDelayedLayer, TimeDelayedLayer, swap_axes

# The values (batch,) of a band, from its mixture parameters (batch, 3 K) and its number.
Choose: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class Carried(NamedTuple):
    """What sampling carries from one frame to the next."""

    frame: Tensor
    """the last frame, (batch, bands); zeros before the first"""
    time_delayed: list[State]
    """per layer, the state of the RNN over time, 2 x (bands * batch, hidden)"""
    centralised: list[State]
    """per layer, 2 x (batch, hidden)"""


@keras.saving.register_keras_serializable("melnet")
class Tier(keras.Model):
    """A tier for spectrograms of ``bands`` bands, with ``layers`` layers per stack and ``hidden`` features.

    ``components`` is K, the Gaussians per element, and ``min_sigma`` their smallest standard deviation, in units of
    the normalised values. The number of frames and the batch size are free, but a compiled pass has fixed ones.
    """

    def __init__(
        self, *, bands: int, layers: int, hidden: int, components: int, min_sigma: float, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.bands, self.hidden, self.components, self.min_sigma = bands, hidden, components, min_sigma
        dense = keras.layers.Dense
        self.time_input = dense(hidden, name="time_input")
        self.frame_input = dense(hidden, name="frame_input")
        self.frequency_input = dense(hidden, name="frequency_input")
        self.time_delayed = [TimeDelayedLayer(hidden, name=f"time_delayed_{i}") for i in range(layers)]
        self.centralised = [CentralisedLayer(hidden, name=f"centralised_{i}") for i in range(layers)]
        self.frequency_delayed = [FrequencyDelayedLayer(hidden, name=f"frequency_delayed_{i}") for i in range(layers)]
        self.head = dense(3 * components, name="head")
        self.build((None, None, bands))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        # By hand: a first call would have to run, and the recurrent kernel runs only compiled.
        self.time_input.build((None, 1))
        self.frame_input.build((None, self.bands))
        self.frequency_input.build((None, 1))
        for layers in self._per_layer():
            for layer in layers:
                layer.build(self.hidden)
        self.head.build((None, self.hidden))
        self.built = True

    def call(self, x: Tensor) -> Tensor:
        """Unconstrained mixture parameters (batch, frames, bands, 3 K) of every element of x (batch, frames, bands).

        Those of element (t, f) depend on the frames before t and on the bands below f of frame t, on nothing else.
        """
        x = ops.transpose(x, (1, 2, 0))  # (frames, bands, batch)
        one_frame_back = ops.pad(x[:-1], ((1, 0), (0, 0), (0, 0)))
        one_band_down = ops.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0)))
        by_time = self.time_input(ops.expand_dims(one_frame_back, -1))  # (frames, bands, batch, hidden)
        whole = self.frame_input(ops.transpose(one_frame_back, (0, 2, 1)))  # (frames, batch, hidden)
        by_frequency = self.frequency_input(ops.expand_dims(ops.transpose(one_band_down, (1, 0, 2)), -1))
        delayed = swap_axes(by_time)  # (bands, frames, batch, hidden)
        for time_layer, frame_layer, frequency_layer in self._per_layer():
            by_time = time_layer(by_time, delayed)
            delayed = swap_axes(by_time)
            whole = frame_layer(whole)
            by_frequency = frequency_layer(by_frequency, delayed + ops.expand_dims(whole, 0))
        return ops.transpose(self.head(by_frequency), (2, 1, 0, 3))  # from (bands, frames, batch, 3 K)

    def _per_layer(self) -> zip:
        return zip(self.time_delayed, self.centralised, self.frequency_delayed, strict=True)

    def initial(self, batch: int) -> Carried:
        """What is carried into the first frame of a batch of spectrograms."""
        return Carried(
            frame=ops.zeros((batch, self.bands), self.compute_dtype),
            time_delayed=[layer.time.initial_state(self.bands * batch) for layer in self.time_delayed],
            centralised=[layer.time.initial_state(batch) for layer in self.centralised],
        )

    def frame_step(self, carried: Carried, choose: Choose) -> tuple[Carried, Tensor]:
        """Go on by one frame, whose values ``choose`` picks band by band.

        Returns
        -------
        what is carried on, its ``frame`` the one chosen, and the frame's mixture parameters (batch, bands, 3 K)
        """
        time_states, frame_states = [], []
        delayed = self.time_input(ops.expand_dims(ops.transpose(carried.frame), -1))  # (bands, batch, hidden)
        whole = self.frame_input(carried.frame)  # (batch, hidden)
        contexts = []
        states = zip(carried.time_delayed, carried.centralised, strict=True)
        for (time_layer, frame_layer, _), (time_state, frame_state) in zip(self._per_layer(), states, strict=True):
            delayed, time_state = time_layer.step(delayed, time_state)
            whole, frame_state = frame_layer.step(whole, frame_state)
            contexts.append(delayed + whole)
            time_states.append(time_state)
            frame_states.append(frame_state)
        frame, parameters = self._bands(ops.stack(contexts, axis=1), choose)
        return Carried(frame, time_states, frame_states), parameters

    def _bands(self, contexts: Tensor, choose: Choose) -> tuple[Tensor, Tensor]:
        """Go up one frame: contexts (bands, layers, batch, hidden) to values (batch, bands) and their parameters."""
        batch = contexts.shape[2]

        def step(f: Tensor, value: Tensor, states: list[State], values: Tensor, parameters: Tensor) -> tuple:
            x = self.frequency_input(ops.expand_dims(value, -1))
            context = row(contexts, f)
            after = []
            for i, layer in enumerate(self.frequency_delayed):
                x, state = layer.step(x, context[i], states[i])
                after.append(state)
            mixtures = self.head(x)
            value = choose(mixtures, f)
            return f + 1, value, after, put_row(values, f, value), put_row(parameters, f, mixtures)

        dtype = self.compute_dtype
        start = (
            ops.convert_to_tensor(0, "int32"),
            ops.zeros((batch,), dtype),
            [layer.up.initial_state(batch) for layer in self.frequency_delayed],
            ops.zeros((self.bands, batch), dtype),
            ops.zeros((self.bands, batch, 3 * self.components), dtype),
        )
        _, _, _, values, parameters = ops.while_loop(lambda f, *_: f < self.bands, step, start)
        return ops.transpose(values), ops.transpose(parameters, (1, 0, 2))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "bands": self.bands,
            "layers": len(self.time_delayed),
            "hidden": self.hidden,
            "components": self.components,
            "min_sigma": self.min_sigma,
        }
