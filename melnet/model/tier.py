"""One tier of MelNet: the stacks and the mixtures they give (arXiv 1906.01083, sections 4 and 6).

A tier models a spectrogram element by element: frame by frame, and from the lowest band up inside a frame. The same
weights serve three passes:

- ``call`` gives the mixtures of all elements of known spectrograms at once, for training and likelihoods;
- ``frame_step`` draws one frame and carries the recurrent state on, for sampling;
- ``prefill`` reads known frames at once and gives the recurrent state after them, for sampling that continues them.

Each tier after the first is conditioned on the earlier ones: the feature-extraction network reads their values, and its
features are added to the inputs of the time-delayed and the frequency-delayed stack. A tier that knows singers embeds
the singer and adds a projection of the embedding to the input of every stack. What is to be sung, melody and phonemes,
is added in the same way, frame by frame (:mod:`melnet.model.conditions`). A first tier can also read a text, whose
place at each frame it finds by itself (:mod:`melnet.model.text`).

Unlike the paper's, a tier also has an embedding of each band, added to the inputs of the time-delayed and the
frequency-delayed stack. Without it the stacks could tell bands apart only by counting steps.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
from keras import ops

from melnet import backend
from melnet.backend import Tensor
from melnet.data.tracks import ABSENT, UNKNOWN
from melnet.model import kernel_choice
from melnet.model.conditions import BAND_FEATURES, FrameConditions
from melnet.model.precision import Dense, Precision, float32
from melnet.model.recurrent import State, put_row, row
from melnet.model.stacks import (
    CELLS,
    CentralisedLayer,
    FeatureExtractionLayer,
    FrequencyDelayedLayer,
    TimeDelayedLayer,
    run_all,
    shift_frames,
    swap_axes,
)
from melnet.model.text import PADDING, ReadingState, TextReader, lengths

SampleFn: TypeAlias = Callable[[Tensor, Any], Tensor]
"""gives the values (batch,) of a band, from its mixture parameters (batch, 3 K) and its index"""
FrameStep: TypeAlias = Callable[["DecoderState", SampleFn, dict[str, Tensor]], tuple["DecoderState", Tensor]]
"""draws a frame, as :meth:`Tier.frame_step` does"""
Inputs: TypeAlias = dict[str, Tensor]
"""``x`` (batch, frames, bands), which the tier models; for a tier with context also ``context``, shaped like ``x``, the
interleaved values of the earlier tiers; for a tier with singers also ``singer``, int32 (batch,); for a tier that is
told what to sing ``melody`` and ``phonemes``, see :class:`melnet.model.conditions.FrameConditions`; for a tier that
reads a text ``text``, int32 (batch, symbols), symbols counted from 1 and then zeros"""


class DecoderState(NamedTuple):
    """Values and recurrent states that sampling carries from one frame to the next."""

    frame: Tensor
    """the last frame, (batch, bands); zeros before the first"""
    time_delayed: list[State]
    """for each layer the state of the RNN over time, each tensor (bands * batch, hidden)"""
    centralised: list[State]
    """for each layer its state, each tensor (batch, hidden); empty in a tier without this stack"""
    reading: list[ReadingState]
    """how far the text has been read; empty in a tier that reads none"""


@keras.saving.register_keras_serializable("melnet")
class Tier(backend.Model):
    """A tier for spectrograms of ``bands`` bands, and of any number of frames and any batch size.

    Parameters
    ----------
    layers, hidden
        Number of layers in each stack, and of features and RNN units in each layer.
    num_components, min_sigma
        Number K of Gaussians per element, and their smallest standard deviation in units of the normalised values.
    cell
        ``lstm`` or ``gru``.
    feature_layers
        Layers of the feature-extraction network. 0 makes a first tier: without context, and with the centralised stack,
        which later tiers do not have.
    singers
        Number of singers that the tier knows; 0 if it is not conditioned on the singer.
    melody, phonemes, lookahead
        Whether the tier is told the melody; the number of phoneme indices, 0 if it is told none; and how many frames
        ahead it is told both.
    text, text_speed
        Number of symbol indices of the text that a first tier reads, 0 if it reads none; and the symbols per frame that
        it begins to learn with, which should be what texts have on average.
    recompute
        See :class:`melnet.model.recurrent.Recurrent`: it changes memory and time of training, not its results.
    precision
        Of the operands of matrix products inside the stacks, see :mod:`melnet.model.precision`.

    >>> import numpy as np
    >>> tier = Tier(bands=3, layers=1, hidden=4, num_components=2, min_sigma=0.01)
    >>> tuple(backend.compiled(tier)({"x": np.zeros((1, 5, 3), "float32")}).shape)
    (1, 5, 3, 6)
    """

    def __init__(
        self,
        *,
        bands: int,
        layers: int,
        hidden: int,
        num_components: int,
        min_sigma: float,
        cell: str = "lstm",
        feature_layers: int = 0,
        singers: int = 0,
        melody: bool = False,
        phonemes: int = 0,
        lookahead: int = 0,
        text: int = 0,
        text_speed: float = 0.2,
        recompute: bool = False,
        precision: Precision = "float32",
        **kwargs: Any,
    ) -> None:
        super().__init__(**float32(kwargs))
        self.bands, self.hidden, self.num_components, self.min_sigma = bands, hidden, num_components, min_sigma
        self.cell, self.singers, self.recompute = cell, singers, recompute
        self.melody, self.phonemes, self.lookahead = melody, phonemes, lookahead
        self.text, self.text_speed = text, text_speed
        self.precision: Precision = precision
        if text and feature_layers:
            raise ValueError("text: only a first tier reads one, without feature_layers")
        kind: Any = CELLS[cell]
        kernel_choice.accelerated(kind)  # decided here, since it cannot be while a function is traced
        rnn, dense = partial(kind, recompute=recompute, precision=precision), Dense
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
        # Without a bias, because the layers that they are added to have one.
        condition = [] if first else ["features_to_time", "features_to_frequency"]
        stacks = ["time", "frequency", "frame" if first else "features"]
        if singers:
            condition += [f"singer_to_{stack}" for stack in stacks]
            # Zeros, so that a singer who is absent from the train split keeps a neutral embedding.
            self.embedding = keras.layers.Embedding(
                singers, hidden, embeddings_initializer="zeros", dtype="float32", name="singer"
            )
        self.sung, self.band_conditions = None, {}
        if melody or phonemes:
            self.sung = FrameConditions(
                hidden, bands, melody=melody, phonemes=phonemes, lookahead=lookahead, name="sung"
            )
            condition += [f"sung_to_{stack}" for stack in stacks]
            names = ("bands_to_time", "bands_to_frequency")
            self.band_conditions = {name: dense(hidden, use_bias=False, name=name) for name in names}
        self.reader = None
        if text:
            self.reader = TextReader(hidden, bands, text, text_speed, rnn, name="text")
            self.reader.trainable = False  # it learns by itself, see melnet/training/alignment.py
            condition += [f"text_to_{stack}" for stack in stacks]
        self.conditions = {name: dense(hidden, precision=precision, use_bias=False, name=name) for name in condition}
        self.head = dense(3 * num_components, name="head")
        self.build((None, None, bands))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        # By hand, because Keras would build by a call, and the recurrent layers run only in compiled functions.
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
        if self.sung:
            self.sung.build(None)
        if self.reader:
            self.reader.build(None)
        for layer in self.band_conditions.values():
            layer.build((None, BAND_FEATURES))
        self.band_embedding = self.add_weight(
            name="band_embedding",
            shape=(2, self.bands, 1, self.hidden),  # of the time-delayed and of the frequency-delayed stack
            initializer=keras.initializers.RandomNormal(stddev=0.1),
        )
        if self.singers:
            self.embedding.build()
        self.built = True

    def call(self, inputs: Inputs) -> Tensor:
        """Unconstrained mixture parameters (batch, frames, bands, 3 K) of every element of x.

        The parameters of element (t, f) depend on the frames of x before t, on the bands below f in frame t, on the
        whole context, on the singer, on what is sung up to frame t + ``lookahead`` and on the text, and on nothing
        else.
        """
        condition = self.condition(inputs)
        x = ops.transpose(inputs["x"], (1, 2, 0))  # (frames, bands, batch)
        one_frame_back = shift_frames(x)
        if self.reader:
            condition = self._told(condition, self.reader(one_frame_back, *_of_text(condition))[0])
        by_time, whole = self._time_inputs(one_frame_back, condition)
        one_band_down = ops.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0)))
        by_frequency = swap_axes(self._frequency_input(one_band_down, self._frequency_condition(condition)))
        delayed = swap_axes(by_time)  # (bands, frames, batch, hidden)
        layers, context = len(self.time_delayed), delayed
        # The frequency-delayed stack is a layer behind the others, so that its RNNs run beside theirs.
        for i in range(layers + 1):
            upper = self.frequency_delayed[i - 1].jobs(by_frequency, context) if i > 0 else []
            lower = self.time_delayed[i].jobs(by_time, delayed) if i < layers else []
            frames = self.centralised[i].jobs(whole) if i < layers and whole is not None else []
            hidden = run_all([*lower, *frames, *upper])
            if upper:
                by_frequency = self.frequency_delayed[i - 1].combine(by_frequency, hidden[-1:])
            if lower:
                by_time = self.time_delayed[i].combine(by_time, hidden[: len(lower)])
                context = delayed = swap_axes(by_time)
            if frames:
                whole = self.centralised[i].combine(whole, hidden[len(lower) :])
                context = delayed + ops.expand_dims(whole, 0)
        return ops.transpose(self.head(by_frequency), (2, 1, 0, 3))  # from (bands, frames, batch, 3 K)

    def alignment(self, inputs: Inputs) -> Tensor:
        """Attention weights (batch, frames, symbols) of the text at each frame; each frame's sum to one.

        Raises
        ------
        ValueError
            The tier reads no text.
        """
        if not self.reader:
            raise ValueError("alignment: the tier reads no text")
        one_frame_back = shift_frames(ops.transpose(inputs["x"], (1, 2, 0)))
        return ops.transpose(self.reader(one_frame_back, *_of_text(self.condition(inputs)))[1], (1, 0, 2))

    def condition(self, inputs: Inputs) -> dict[str, Tensor]:
        """Features of all inputs but ``x`` that are added to the inputs of the stacks, by stack.

        Returns
        -------
        ``time`` and ``frequency`` for the time-delayed and the frequency-delayed stack, each (frames or 1, bands or 1,
        batch, hidden); ``frame`` for the centralised stack, (frames or 1, batch, hidden). For a tier that reads a text
        also the features of its ``symbols``, (1, symbols, batch, hidden), and their number ``length``, (1, batch): what
        they add depends on the frames.
        """
        added: dict[str, list[Tensor]] = {"time": [], "frequency": [], "frame": [], "features": []}

        def add(source: str, features: Tensor) -> None:
            for stack, terms in added.items():
                if project := self.conditions.get(f"{source}_to_{stack}"):
                    terms.append(project(features))

        if self.singers:
            add("singer", ops.reshape(self.embedding(inputs["singer"]), (1, 1, -1, self.hidden)))
        if self.sung:
            of_frames, of_bands = self.sung(inputs)
            add("sung", of_frames)
            for stack in ("time", "frequency"):
                added[stack].append(self.band_conditions[f"bands_to_{stack}"](of_bands))
        if self.context_input:
            features = self.context_input(ops.expand_dims(ops.transpose(inputs["context"], (1, 2, 0)), -1))
            features = sum(added["features"], features)
            for layer in self.features:
                features = layer(features)
            add("features", features)
        sums: dict[str, Tensor] = {
            stack: sum(terms[1:], terms[0]) for stack, terms in added.items() if terms and stack != "features"
        }
        if "frame" in sums:
            sums["frame"] = sums["frame"][:, 0]
        if self.reader:
            symbols, length = self.reader.encode(inputs["text"]), lengths(inputs["text"])
            sums |= {"symbols": ops.expand_dims(symbols, 0), "length": ops.expand_dims(length, 0)}
        return sums

    def _told(self, condition: dict[str, Tensor], contexts: Tensor) -> dict[str, Tensor]:
        """Add projections of the contexts of a text, (frames, batch, hidden), to what the stacks are told."""
        added = {stack: self.conditions[f"text_to_{stack}"](contexts) for stack in ("time", "frequency", "frame")}
        added |= {stack: ops.expand_dims(added[stack], 1) for stack in ("time", "frequency")}
        return condition | {stack: condition.get(stack, 0.0) + terms for stack, terms in added.items()}

    def unknown(self, batch: int) -> dict[str, np.ndarray]:
        """Inputs that say that what is sung is not known: one frame, which stands for any number of them."""
        frames, inputs = 1 + self.lookahead, {}
        if self.melody:
            inputs["melody"] = np.tile(np.array([0, UNKNOWN], np.float32), (batch, frames, 1))
        if self.phonemes:
            inputs["phonemes"] = np.full((batch, frames), ABSENT, np.int32)
        if self.text:
            inputs["text"] = np.full((batch, 1), PADDING, np.int32)
        return inputs

    @staticmethod
    def condition_at(condition: dict[str, Tensor], first: int, last: int) -> dict[str, Tensor]:
        """The part of what :meth:`condition` gave that concerns the frames from ``first`` to before ``last``."""
        return {stack: added[first:last] if added.shape[0] > 1 else added for stack, added in condition.items()}

    def _time_inputs(self, one_frame_back: Tensor, condition: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Layer 0 of the time-delayed stack and, in the first tier, of the centralised stack.

        From (frames, bands, batch) to (frames, bands, batch, hidden) and (frames, batch, hidden).
        """
        by_time = self.time_input(ops.expand_dims(one_frame_back, -1)) + condition.get("time", 0.0)
        by_time = by_time + ops.convert_to_tensor(self.band_embedding)[0]
        if self.frame_input is None:
            return by_time, None
        return by_time, self.frame_input(ops.transpose(one_frame_back, (0, 2, 1))) + condition.get("frame", 0.0)

    def _frequency_condition(self, condition: dict[str, Tensor]) -> Tensor:
        """Features added to the input of the frequency-delayed stack, (frames or 1, bands, batch or 1, hidden)."""
        return ops.expand_dims(ops.convert_to_tensor(self.band_embedding)[1], 0) + condition.get("frequency", 0.0)

    def _frequency_input(self, one_band_down: Tensor, condition: Tensor) -> Tensor:
        """Layer 0 of the frequency-delayed stack: (..., batch) to (..., batch, hidden)."""
        return self.frequency_input(ops.expand_dims(one_band_down, -1)) + condition

    def initial(self, batch: int, condition: dict[str, Tensor] | None = None) -> DecoderState:
        """The decoder state before the first frame of a batch of spectrograms.

        ``condition`` is that of its frames; it is needed by a tier that reads a text.
        """
        return DecoderState(
            frame=ops.zeros((batch, self.bands), self.compute_dtype),
            time_delayed=[layer.time.initial_state(self.bands * batch) for layer in self.time_delayed],
            centralised=[layer.time.initial_state(batch) for layer in self.centralised],
            reading=[self.reader.initial(batch, (condition or {})["symbols"].shape[1])] if self.reader else [],
        )

    def prefill(self, x: Tensor, condition: dict[str, Tensor]) -> DecoderState:
        """The decoder state after the known frames x (batch, frames, bands), computed in one pass over them.

        It equals the state that :meth:`frame_step` reaches frame by frame. ``condition`` is :meth:`condition_at` these
        frames.
        """
        one_frame_back = shift_frames(ops.transpose(x, (1, 2, 0)))
        state = self.initial(ops.shape(x)[0], condition)
        condition, reading = self._read(one_frame_back, state, condition)
        _, time_delayed, centralised = self._advance(one_frame_back, state, condition)
        return DecoderState(x[:, -1], time_delayed, centralised, reading)

    def frame_step(
        self,
        state: DecoderState,
        sample_fn: SampleFn,
        condition: dict[str, Tensor] | None = None,
    ) -> tuple[DecoderState, Tensor]:
        """Draw one frame with ``sample_fn``, band by band; ``condition`` is :meth:`condition_at` this frame.

        Returns
        -------
        the new decoder state, whose ``frame`` is the one drawn, and the mixture parameters (batch, bands, 3 K) it was
        drawn from
        """
        condition = condition or {}
        last_frame = ops.expand_dims(ops.transpose(state.frame), 0)  # (1, bands, batch)
        condition, reading = self._read(last_frame, state, condition)
        contexts, time_delayed, centralised = self._advance(last_frame, state, condition)
        by_band = ops.stack([context[0] for context in contexts], axis=1)
        frame, parameters = self._bands(by_band, sample_fn, self._frequency_condition(condition))
        return DecoderState(frame, time_delayed, centralised, reading), parameters

    def _read(
        self, one_frame_back: Tensor, state: DecoderState, condition: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], list[ReadingState]]:
        """Read on over the next frames; gives their condition with the contexts added, and the state after them."""
        if not self.reader:
            return condition, state.reading
        contexts, reading = self.reader.advance(one_frame_back, *_of_text(condition), state.reading[0])
        return self._told(condition, contexts), [reading]

    def _advance(
        self, one_frame_back: Tensor, state: DecoderState, condition: dict[str, Tensor]
    ) -> tuple[list[Tensor], list[State], list[State]]:
        """Run the time-delayed and the centralised stack on from a state, over (frames, bands, batch).

        Returns what each layer adds to the frequency-delayed stack, (frames, bands, batch, hidden), and the new states.
        """
        delayed, whole = self._time_inputs(one_frame_back, condition)
        contexts, time_delayed, centralised = [], [], []
        for i, layer in enumerate(self.time_delayed):
            delayed, after = layer.advance(delayed, state.time_delayed[i])
            time_delayed.append(after)
            context = delayed
            if whole is not None:
                whole, after = self.centralised[i].advance(whole, state.centralised[i])
                centralised.append(after)
                context = delayed + ops.expand_dims(whole, 1)
            contexts.append(context)
        return contexts, time_delayed, centralised

    def _bands(self, contexts: Tensor, sample_fn: SampleFn, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Draw a frame from the lowest band up.

        contexts (bands, layers, batch, hidden) and ``condition`` (1, bands, batch or 1, hidden) give the values (batch,
        bands) and their mixture parameters (batch, bands, 3 K).
        """
        batch = contexts.shape[2]

        def step(f: Tensor, value: Tensor, states: list[State], values: Tensor, parameters: Tensor) -> tuple:
            x = self._frequency_input(value, row(condition[0], f))
            context = row(contexts, f)
            after = []
            for i, layer in enumerate(self.frequency_delayed):
                x, state = layer.step(x, context[i], states[i])
                after.append(state)
            mixtures = self.head(x)
            value = sample_fn(mixtures, f)
            return f + 1, value, after, put_row(values, f, value), put_row(parameters, f, mixtures)

        dtype = self.compute_dtype
        start = (
            ops.convert_to_tensor(0, "int32"),
            ops.zeros((batch,), dtype),
            [layer.up.initial_state(batch) for layer in self.frequency_delayed],
            ops.zeros((self.bands, batch), dtype),
            ops.zeros((self.bands, batch, 3 * self.num_components), dtype),
        )
        _, _, _, values, parameters = ops.while_loop(lambda f, *_: f < self.bands, step, start)
        return ops.transpose(values), ops.transpose(parameters, (1, 0, 2))

    def get_config(self) -> dict[str, Any]:
        stored = ["bands", "hidden", "num_components", "min_sigma", "cell", "singers", "recompute", "precision"]
        stored += ["melody", "phonemes", "lookahead", "text", "text_speed"]
        counts = {"layers": len(self.time_delayed), "feature_layers": len(self.features)}
        return {**super().get_config(), **counts, **{name: getattr(self, name) for name in stored}}


def _of_text(condition: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return condition["symbols"][0], condition["length"][0]
