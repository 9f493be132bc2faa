"""One tier of MelNet: the stacks and the mixture they end in (arXiv 1906.01083, sections 4 and 6).

The spectrogram is modelled element by element, frame by frame and from the lowest band up inside a frame. The same
weights serve two passes: ``call`` gives the mixtures of all elements of known spectrograms at once, for training and
likelihoods; ``frame_step`` goes on by one frame and carries the recurrent state, for sampling. ``warm`` takes the state
over from the first to the second, for going on from a known beginning.

A tier after the first is conditioned on the earlier ones: the feature-extraction network reads their values, and its
features are added to the inputs of the time-delayed and the frequency-delayed stacks. A tier with singers has an
embedding of them, which is projected into the input of every stack.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import keras
from keras import ops

from melnet import backend
from melnet.model.recurrent import State, Tensor, put_row, row
from melnet.model.stacks import (
    CELLS,
    CentralisedLayer,
    FeatureExtractionLayer,
    FrequencyDelayedLayer,
    TimeDelayedLayer,
    swap_axes,
)

# The values (batch,) of a band, from its mixture parameters (batch, 3 K) and its number.
Choose: TypeAlias = Callable[[Tensor, Tensor], Tensor]
# "x" (batch, frames, bands), what the tier models; "context", of the same shape, the earlier tiers interleaved, and
# "singer", int32 (batch,), where the tier is conditioned on them.
Inputs: TypeAlias = dict[str, Tensor]


class Carried(NamedTuple):
    """What sampling carries from one frame to the next."""

    frame: Tensor
    """the last frame, (batch, bands); zeros before the first"""
    time_delayed: list[State]
    """per layer, the state of the RNN over time, each tensor (bands * batch, hidden)"""
    centralised: list[State]
    """per layer, each tensor (batch, hidden); none in a tier without the stack"""


@keras.saving.register_keras_serializable("melnet")
class Tier(backend.Model):
    """A tier for spectrograms of ``bands`` bands; the number of frames and the batch size are free.

    Parameters
    ----------
    layers, hidden
        Layers of each stack; features and RNN units of each layer.
    components, min_sigma
        K, the Gaussians per element, and their smallest standard deviation, in units of the normalised values.
    cell
        ``lstm`` or ``gru``.
    feature_layers
        Layers of the feature-extraction network; 0 in the first tier, which has no context. It alone has the
        centralised stack.
    singers
        How many singers it knows; 0 if it is not conditioned on them.
    recompute
        See :class:`melnet.model.recurrent.Recurrent`. It changes what training takes, not what the tier is.
    """

    def __init__(
        self,
        *,
        bands: int,
        layers: int,
        hidden: int,
        components: int,
        min_sigma: float,
        cell: str = "lstm",
        feature_layers: int = 0,
        singers: int = 0,
        recompute: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.bands, self.hidden, self.components, self.min_sigma = bands, hidden, components, min_sigma
        self.cell, self.singers, self.recompute = cell, singers, recompute
        rnn, dense = partial(CELLS[cell], recompute=recompute), keras.layers.Dense
        self.time_input = dense(hidden, name="time_input")
        self.frequency_input = dense(hidden, name="frequency_input")
        self.time_delayed = [TimeDelayedLayer(hidden, rnn, name=f"time_delayed_{i}") for i in range(layers)]
        self.frequency_delayed = [
            FrequencyDelayedLayer(hidden, rnn, name=f"frequency_delayed_{i}") for i in range(layers)
        ]
        first = not feature_layers
        self.frame_input = dense(hidden, name="frame_input") if first else None
        self.centralised = [CentralisedLayer(hidden, rnn, name=f"centralised_{i}") for i in range(layers * first)]
        self.context_input = None if first else dense(hidden, name="context_input")
        self.features = [FeatureExtractionLayer(hidden, rnn, name=f"features_{i}") for i in range(feature_layers)]
        # Without a bias: the layers they are added to have one.
        condition = [] if first else ["features_to_time", "features_to_frequency"]
        if singers:
            stacks = ["time", "frequency", "frame" if first else "features"]
            condition += [f"singer_to_{stack}" for stack in stacks]
            # Zero, so that one who is only in the validation or test split is nobody in particular.
            self.embedding = keras.layers.Embedding(singers, hidden, embeddings_initializer="zeros", name="singer")
        self.conditions = {name: dense(hidden, use_bias=False, name=name) for name in condition}
        self.head = dense(3 * components, name="head")
        self.build((None, None, bands))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        # By hand: a first call would have to run, and the recurrent kernel runs only compiled.
        for layer in (self.time_input, self.frequency_input, self.context_input):
            if layer:
                layer.build((None, 1))
        if self.frame_input:
            self.frame_input.build((None, self.bands))
        for layers in (self.time_delayed, self.frequency_delayed, self.centralised, self.features):
            for layer in layers:
                layer.build(self.hidden)
        for layer in (*self.conditions.values(), self.head):
            layer.build((None, self.hidden))
        if self.singers:
            self.embedding.build()
        self.built = True

    def call(self, inputs: Inputs) -> Tensor:
        """Unconstrained mixture parameters (batch, frames, bands, 3 K) of every element of x.

        Those of element (t, f) depend on the frames before t and on the bands below f of frame t of x, on the whole
        context and the singer, on nothing else.
        """
        condition = self.condition(inputs)
        x = ops.transpose(inputs["x"], (1, 2, 0))  # (frames, bands, batch)
        one_frame_back = ops.pad(x[:-1], ((1, 0), (0, 0), (0, 0)))
        one_band_down = ops.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0)))
        by_time = self._time_input(one_frame_back, condition)
        by_frequency = swap_axes(self._frequency_input(one_band_down, condition))
        whole = self._frame_input(ops.transpose(one_frame_back, (0, 2, 1)), condition)
        delayed = swap_axes(by_time)  # (bands, frames, batch, hidden)
        for i, (time_layer, frequency_layer) in enumerate(zip(self.time_delayed, self.frequency_delayed, strict=True)):
            by_time = time_layer(by_time, delayed)
            delayed = swap_axes(by_time)
            context = delayed
            if whole is not None:
                whole = self.centralised[i](whole)
                context = delayed + ops.expand_dims(whole, 0)
            by_frequency = frequency_layer(by_frequency, context)
        return ops.transpose(self.head(by_frequency), (2, 1, 0, 3))  # from (bands, frames, batch, 3 K)

    def condition(self, inputs: Inputs) -> dict[str, Tensor]:
        """What is added to the inputs of the stacks, by stack, from ``context`` and ``singer``.

        Returns
        -------
        ``time`` and ``frequency``: (frames or 1, bands or 1, batch, hidden); ``frame``: (1, batch, hidden)
        """
        project = self.conditions
        added: dict[str, list[Tensor]] = {"time": [], "frequency": [], "frame": []}
        singer = ops.reshape(self.embedding(inputs["singer"]), (1, 1, -1, self.hidden)) if self.singers else None
        if self.context_input:
            features = self.context_input(ops.expand_dims(ops.transpose(inputs["context"], (1, 2, 0)), -1))
            if singer is not None:
                features = features + project["singer_to_features"](singer)
            for layer in self.features:
                features = layer(features)
            for stack in ("time", "frequency"):
                added[stack].append(project[f"features_to_{stack}"](features))
        if singer is not None:
            for stack in ("time", "frequency"):
                added[stack].append(project[f"singer_to_{stack}"](singer))
            if self.frame_input:
                added["frame"].append(project["singer_to_frame"](singer)[0])
        return {stack: sum(terms[1:], terms[0]) for stack, terms in added.items() if terms}

    @staticmethod
    def at_frame(condition: dict[str, Tensor], t: int) -> dict[str, Tensor]:
        """What :meth:`frame_step` takes for frame t, of what :meth:`condition` gives for all frames."""
        return {stack: added[t if added.shape[0] > 1 else 0] for stack, added in condition.items()}

    def _time_input(self, one_frame_back: Tensor, condition: dict[str, Tensor]) -> Tensor:
        """Layer 0 of the time-delayed stack: (..., bands, batch) to (..., bands, batch, hidden)."""
        x = self.time_input(ops.expand_dims(one_frame_back, -1))
        return x + condition["time"] if "time" in condition else x

    def _frequency_input(self, one_band_down: Tensor, condition: dict[str, Tensor]) -> Tensor:
        """Layer 0 of the frequency-delayed stack: (..., batch) to (..., batch, hidden)."""
        x = self.frequency_input(ops.expand_dims(one_band_down, -1))
        return x + condition["frequency"] if "frequency" in condition else x

    def _frame_input(self, one_frame_back: Tensor, condition: dict[str, Tensor]) -> Tensor | None:
        """Layer 0 of the centralised stack: (..., batch, bands) to (..., batch, hidden); None in later tiers."""
        if self.frame_input is None:
            return None
        whole = self.frame_input(one_frame_back)
        return whole + condition["frame"] if "frame" in condition else whole

    def initial(self, batch: int) -> Carried:
        """What is carried into the first frame of a batch of spectrograms."""
        return Carried(
            frame=ops.zeros((batch, self.bands), self.compute_dtype),
            time_delayed=[layer.time.initial_state(self.bands * batch) for layer in self.time_delayed],
            centralised=[layer.time.initial_state(batch) for layer in self.centralised],
        )

    def warm(self, x: Tensor, condition: dict[str, Tensor]) -> Carried:
        """What is carried on after the known frames x (batch, frames, bands), in one pass over all of them.

        ``condition`` is as for those frames; frame for frame equal to going on by :meth:`frame_step`.
        """
        batch = ops.shape(x)[0]
        initial = self.initial(batch)
        frames = ops.transpose(x, (1, 2, 0))  # (frames, bands, batch)
        one_frame_back = ops.pad(frames[:-1], ((1, 0), (0, 0), (0, 0)))
        time_states, frame_states = [], []
        by_time = self._time_input(one_frame_back, condition)
        for layer, state in zip(self.time_delayed, initial.time_delayed, strict=True):
            by_time, state = layer.warm(by_time, swap_axes(by_time), state)
            time_states.append(state)
        whole = self._frame_input(ops.transpose(one_frame_back, (0, 2, 1)), condition)
        for layer, state in zip(self.centralised, initial.centralised, strict=True):
            whole, state = layer.warm(whole, state)
            frame_states.append(state)
        return Carried(x[:, -1], time_states, frame_states)

    def frame_step(
        self, carried: Carried, choose: Choose, condition: dict[str, Tensor] | None = None
    ) -> tuple[Carried, Tensor]:
        """Go on by one frame, whose values ``choose`` picks band by band.

        ``condition`` is that of the frame: ``time`` and ``frequency`` (bands or 1, batch, hidden), ``frame``
        (batch, hidden).

        Returns
        -------
        what is carried on, its ``frame`` the one chosen, and the frame's mixture parameters (batch, bands, 3 K)
        """
        condition = condition or {}
        time_states, frame_states = [], []
        delayed = self._time_input(ops.transpose(carried.frame), condition)  # (bands, batch, hidden)
        whole = self._frame_input(carried.frame, condition)  # (batch, hidden)
        contexts = []
        for i, (layer, state) in enumerate(zip(self.time_delayed, carried.time_delayed, strict=True)):
            delayed, state = layer.step(delayed, state)
            time_states.append(state)
            context = delayed
            if whole is not None:
                whole, state = self.centralised[i].step(whole, carried.centralised[i])
                frame_states.append(state)
                context = delayed + whole
            contexts.append(context)
        frame, parameters = self._bands(ops.stack(contexts, axis=1), choose, condition.get("frequency"))
        return Carried(frame, time_states, frame_states), parameters

    def _bands(self, contexts: Tensor, choose: Choose, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Go up one frame: contexts (bands, layers, batch, hidden) to values (batch, bands) and their parameters."""
        batch = contexts.shape[2]
        if condition is not None:
            condition = ops.broadcast_to(condition, (self.bands, batch, self.hidden))

        def step(f: Tensor, value: Tensor, states: list[State], values: Tensor, parameters: Tensor) -> tuple:
            x = self._frequency_input(value, {} if condition is None else {"frequency": row(condition, f)})
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
            "cell": self.cell,
            "feature_layers": len(self.features),
            "singers": self.singers,
            "recompute": self.recompute,
        }
