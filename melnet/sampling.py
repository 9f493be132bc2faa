"""Autoregressive sampling of spectrograms: tier by tier, frame by frame and band by band.

One compiled function for each tier advances a group of spectrograms, and the recurrent state is carried from call to
call. So the time is linear in the number of frames, and the code is compiled once for any number; only the
feature-extraction network of later tiers, which sees all frames at once, is compiled anew for another number.

On a CPU a call draws one frame for :data:`GROUP` spectrograms, which keeps them in its cache, and groups run in
parallel. An accelerator spends its time on starting kernels, however little each has to do; so a call draws
:data:`CHUNK_FRAMES` frames, and a group is as large as memory allows (:func:`group_size`).

Groups and chunks are padded to one size, which depends on the model and the device, not on how many samples or frames
are asked for. So a sample is bit-identical whatever is drawn with it, but not from one kind of device to another.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from keras import ops

from melnet.backend import Tensor, compiled, device_memory, has_accelerator
from melnet.data.dataset import floored
from melnet.data.tracks import FrameTracks
from melnet.model import mixture
from melnet.model.conditions import LOOK_BACK
from melnet.model.frame_decoder import MOST_LAYERS, FrameDecoder
from melnet.model.multiscale import (
    TierIndex,
    divisors,
    frame_rows,
    interleave,
    shape,
    split,
    target_and_context,
    tier_tracks,
)
from melnet.model.recurrent import put_row, row
from melnet.model.tier import DecoderState, FrameStep, Inputs, Tier

OnFrame: TypeAlias = Callable[[], object]
OnFrames: TypeAlias = Callable[[int], object]
GROUP = 8
"""spectrograms that one compiled call advances on a CPU, and for a stream"""
LARGEST_GROUP = 256  # from about there on an accelerator's time grows with the group
CHUNK_FRAMES = 50
"""frames that one compiled call draws on an accelerator"""
FLOOR_SIGMAS = 3.0
PASS_TENSORS = 24  # as large as its features; the feature-extraction network takes 23, compiled for an H100
DEFAULT_TEMPERATURE = 0.9
"""of all that sings; somewhat below 1, since each unlikely draw leads the next further from the recordings"""


@dataclass
class SamplingSettings:
    """How values are drawn from their distributions; see :func:`melnet.model.mixture.sample`.

    They may be changed while a stream is sampled, and are read anew for each frame, on an accelerator for each chunk.

    Raises
    ------
    ValueError
        A temperature that is negative or not finite, or less than one component.

    >>> settings = SamplingSettings(temperature=0.9)
    >>> settings.temperature = -1
    Traceback (most recent call last):
    ValueError: temperature: -1 is not a finite number of at least 0
    """

    temperature: float = 1.0
    top_components: int | None = None
    """draw from so many of the heaviest Gaussians only; None: from all"""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "temperature" and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"temperature: {value} is not a finite number of at least 0")
        if name == "top_components" and value is not None and value < 1:
            raise ValueError(f"top_components: {value} is not at least 1")
        super().__setattr__(name, value)


Conditioner: TypeAlias = Callable[[int, int, int, np.ndarray | None], dict[str, Tensor]]
"""computes what :meth:`~melnet.model.tier.Tier.condition` gives for a group, from the index of a tier, counted from 0;
the first frame and the one after the last, counted from the first that is drawn; and the context"""


class Noise:
    """Uniform and normal draws for some samples and one tier; each call gives those of the next frames.

    The draws of a sample depend on the seed, the tier and the sample's number alone: neither on the samples beside it
    nor on how many frames are drawn at a time.

    >>> uniform, normal = Noise(0, range(2), bands=3)(frames=5)
    >>> uniform.shape, bool((Noise(0, range(1), bands=3)(frames=1)[0] == uniform[:1, :, :1]).all())
    ((5, 3, 2), True)
    """

    def __init__(self, seed: int, samples: range, bands: int, tier: int = 1) -> None:
        self._bands = bands
        self._uniform, self._normal = (
            [np.random.default_rng([seed, n, kind, tier]) for n in samples] for kind in range(2)
        )

    def __call__(self, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws from U(0, 1) and N(0, 1), each (frames, bands, samples) float32."""
        size = frames, self._bands
        uniform = np.stack([rng.random(size, np.float32) for rng in self._uniform], axis=-1)
        return uniform, np.stack([rng.standard_normal(size, np.float32) for rng in self._normal], axis=-1)


class Sampler:
    """Draws spectrograms from all tiers of a model.

    Parameters
    ----------
    tiers
        All tiers of the model, the first tier first.
    low, high : (bands,)
        Range of each band in normalised values, to which draws are clipped. Without it a well-trained model drew values
        15 nats above the loudest recording, because each value beyond the training data led the next further away.
    floor : (bands,)
        The normalised log floor. Silence lies exactly on it, but a draw from a density never does; where ``low`` is the
        floor, a draw less than :data:`FLOOR_SIGMAS` times the smallest standard deviation above it is set to it.
    chunked
        Whether a compiled call draws many frames of a large group; None: on an accelerator.

    >>> bound = np.full(2, 3, np.float32)
    >>> sampler = Sampler([Tier(bands=2, layers=1, hidden=4, num_components=2, min_sigma=0.01)], -bound, bound)
    >>> sampler.sample(3, frames=5, seed=0).shape
    (3, 5, 2)
    >>> stream = sampler.stream(SamplingSettings(), seed=0, block=4)
    >>> next(stream).shape, next(stream).shape
    ((4, 2), (4, 2))
    """

    def __init__(
        self,
        tiers: Sequence[Tier],
        low: np.ndarray,
        high: np.ndarray,
        floor: np.ndarray | None = None,
        *,
        chunked: bool | None = None,
    ) -> None:
        self.tiers = tiers
        self.chunked = has_accelerator() if chunked is None else chunked
        count = len(tiers)
        width = FLOOR_SIGMAS * tiers[0].min_sigma
        silence = low if floor is None else np.where(floored(low, floor), low + width, low)
        limits = np.stack([low, high, silence]).astype(np.float32)
        ranges = np.broadcast_to(limits[:, None], (3, divisors(count)[0], len(low)))  # of every frame
        bounds = [target_and_context(ranges, number, count)[0][:, 0] for number in range(1, count + 1)]
        self._draw_frames = [
            compiled(frame_drawer(tier, limits), tier.weights) for tier, limits in zip(tiers, bounds, strict=True)
        ]
        self._condition = [compiled(tier.condition, tier.weights) for tier in tiers]
        self._prefill = [compiled(tier.prefill, tier.weights) for tier in tiers]

    def steps(self, count: int, frames: int) -> int:
        """How often :meth:`sample` calls ``on_frame``: for each frame of all tiers and each :data:`GROUP` samples."""
        tiers, groups = len(self.tiers), -(-count // GROUP)
        drawn = _round_up(frames, divisors(tiers)[0])
        return groups * sum(shape(number, tiers, drawn, 0).frames for number in range(1, tiers + 1))

    def sample(
        self,
        count: int,
        frames: int,
        seed: int,
        settings: SamplingSettings | None = None,
        *,
        singers: np.ndarray | None = None,
        prime: np.ndarray | None = None,
        tracks: FrameTracks | None = None,
        text: np.ndarray | None = None,
        on_frame: OnFrame = lambda: None,
    ) -> np.ndarray:
        """Draw ``count`` spectrograms of ``frames`` frames; equal seeds give equal samples.

        Parameters
        ----------
        settings
            Temperature and components; None: those of the model itself.
        singers : (count,), int
            Indices of the singers; index 0 for all if None.
        prime : (prime frames, bands)
            Normalised log-mel that every sample continues. Its first frames are dropped where the tiers cannot divide
            their number.
        tracks
            What each sample is to sing, (count, any number of frames, ...), from its first frame on; None if that is
            left to the model, as it is in all other frames.
        text : (count, symbols), int32
            What each sample is to sing, without times, see :mod:`melnet.model.text`; None if that is left to the model.
        on_frame
            Called :meth:`steps` times, from several threads; on an accelerator after a chunk, for all of its frames.

        Returns
        -------
        float32 (count, frames, bands)
            Normalised log-mel, without the prime.
        """
        settings = settings or SamplingSettings()
        known, drawn_frames = self._known(prime), _round_up(frames, divisors(len(self.tiers))[0])
        singers = np.zeros(count, np.int32) if singers is None else np.asarray(singers, np.int32)

        group, chunk, threads = GROUP, 1, os.cpu_count()
        if self.chunked:
            needed = max(sample_bytes(tier, len(known), drawn_frames) for tier in self.tiers)
            group, chunk, threads = group_size(needed, device_memory()), CHUNK_FRAMES, 1
        known = np.broadcast_to(known, (group, *known.shape))

        def draw(first: int) -> np.ndarray:
            drawn_singers = np.resize(singers[first : first + group], group)
            noises = self._noises(seed, range(first, first + group))
            eights = -(-min(group, count - first) // GROUP)
            sung = tracks and tracks.map(
                lambda track: np.resize(track[first : first + group], (group, *track.shape[1:]))
            )

            def on_frames(number: int) -> None:
                for _ in range(number * eights):
                    on_frame()

            sung_text = None if text is None else np.resize(text[first : first + group], (group, text.shape[1]))
            condition = self._conditioner(drawn_singers, sung, sung_text)
            return self._continue(known, drawn_frames, noises, condition, settings, chunk, on_frames)

        with ThreadPoolExecutor(threads) as pool:
            drawn = list(pool.map(draw, range(0, count, group)))
        return np.concatenate(drawn)[:count, :frames]

    def stream(
        self,
        settings: SamplingSettings,
        seed: int,
        block: int,
        *,
        singer: int = 0,
        prime: np.ndarray | None = None,
        tracks: FrameTracks | None = None,
    ) -> Iterator[np.ndarray]:
        """Draw one spectrogram without end, ``block`` frames at a time; each is float32 (block, bands), normalised.

        With one tier it is the first sample of :meth:`sample` of the same seed, however long that is. Later tiers see
        frames of the earlier ones that are still to come; so with several tiers each block is drawn whole, and
        continues the one before it. The tiers must be able to divide ``block``.

        A stream must not wait. So on an accelerator too its group has only :data:`GROUP` spectrograms, and with one
        tier a call draws one block, after which the audio is made and the settings are read. There a stream equals the
        sample up to rounding, as far as that does not lead to other draws.
        """
        singers = np.full(GROUP, singer, np.int32)
        noises, known = self._noises(seed, range(GROUP)), self._known(prime)
        known = np.broadcast_to(known, (GROUP, *known.shape))
        if tracks:
            tracks = tracks.map(lambda track: np.repeat(track, GROUP, axis=0))
        conditioner = self._conditioner(singers, tracks)
        if len(self.tiers) == 1:
            chunk, told = block if self.chunked else 1, 0
            condition = free = self._conditioner(singers, None)(0, 0, block, None)
            if tracks:
                frames = max(track.shape[1] for track in tracks.inputs().values())
                told = frames + LOOK_BACK  # after which nothing that is told is seen
                if known.shape[1]:
                    condition = conditioner(0, -known.shape[1], 0, None)
            state = self._start(0, known, condition)
            for at in itertools.count(step=block):
                # Block by block: features of a long score take gigabytes, and are compiled anew for each length.
                condition = conditioner(0, at - LOOK_BACK, at + block, None) if at < told else free
                state, x = self._frames(0, state, condition, noises[0](block), settings, chunk, first=LOOK_BACK)
                yield x[0]
        for at in itertools.count(step=block):
            chunk = CHUNK_FRAMES if self.chunked else 1
            known = self._continue(known, block, noises, conditioner, settings, chunk, at=at)
            yield known[0]

    def _conditioner(
        self, singers: np.ndarray, tracks: FrameTracks | None, text: np.ndarray | None = None
    ) -> Conditioner:
        """See :data:`Conditioner`, for the singers (group,), what they sing, (group, frames, ...), and their texts."""
        tiers = len(self.tiers)

        def condition(i: int, first: int, last: int, context: np.ndarray | None) -> dict[str, Tensor]:
            tier, index = self.tiers[i], TierIndex(i + 1, tiers)
            inputs: Inputs = {"singer": singers, **tier.unknown(len(singers))}
            if context is not None:
                inputs["context"] = context
            if text is not None and tier.reader:
                inputs["text"] = text
            if tracks:
                ahead = tier.lookahead * int(frame_rows(*index).step)
                inputs |= tier_tracks(tracks.span(first, last + ahead).inputs(), last - first, index)
            told = tier.singers or tier.sung or tier.reader or context is not None
            return self._condition[i](inputs) if told else {}

        return condition

    def _known(self, prime: np.ndarray | None) -> np.ndarray:
        """The frames that samples continue, as many as the tiers can divide; (frames, bands)."""
        divisor, band_divisor = divisors(len(self.tiers))
        known = np.zeros((0, self.tiers[0].bands * band_divisor), np.float32) if prime is None else prime
        return known[len(known) % divisor :]

    def _noises(self, seed: int, samples: range) -> list[Noise]:
        tiers = len(self.tiers)
        bands = self.tiers[0].bands * divisors(tiers)[1]
        return [Noise(seed, samples, shape(number, tiers, 0, bands).bands, number) for number in range(1, tiers + 1)]

    def _continue(
        self,
        known: np.ndarray,
        frames: int,
        noises: Sequence[Noise],
        conditioner: Conditioner,
        settings: SamplingSettings,
        chunk: int,
        on_frames: OnFrames = lambda number: None,
        at: int = 0,
    ) -> np.ndarray:
        """The ``frames`` frames (group, frames, bands) that follow the known ones of a group.

        ``at`` is the first of them, counted from the first that is drawn.
        """
        parts: list[np.ndarray] = []
        for i, part in enumerate(split(known, len(self.tiers))):
            context = interleave(parts) if parts else None
            condition = conditioner(i, at - known.shape[1], at + frames, context)
            state, first = self._start(i, part, condition), part.shape[1]
            draws = noises[i](shape(i + 1, len(self.tiers), frames, 0).frames)
            _, x = self._frames(i, state, condition, draws, settings, chunk, on_frames, first)
            parts.append(np.concatenate([part, x], axis=1))
        return interleave(parts)[:, known.shape[1] :]

    def _start(self, i: int, part: np.ndarray, condition: dict[str, Tensor]) -> DecoderState:
        """The state of tier ``i`` after its part (group, frames, bands) of the known frames."""
        frames = part.shape[1]
        if not frames:
            return self.tiers[i].initial(len(part), condition)
        return self._prefill[i](np.ascontiguousarray(part), self.tiers[i].condition_at(condition, 0, frames))

    def _frames(
        self,
        i: int,
        state: DecoderState,
        condition: dict[str, Tensor],
        draws: tuple[np.ndarray, np.ndarray],
        settings: SamplingSettings,
        chunk: int,
        on_frames: OnFrames = lambda number: None,
        first: int = 0,
    ) -> tuple[DecoderState, np.ndarray]:
        """Draw a frame of tier ``i`` for each of the ``draws``; the state and the values (group, frames, bands).

        Each call draws ``chunk`` frames; the last ones of the last call are left out, but counted in the state, where
        ``chunk`` does not divide the number of draws. ``first`` is the index of the first frame among those of
        ``condition``.
        """
        tier, frames, values = self.tiers[i], len(draws[0]), []
        for t in range(0, frames, chunk):
            at = tier.condition_at(condition, first + t, first + t + chunk)
            at = {stack: _padded(x, chunk) if condition[stack].shape[0] > 1 else x for stack, x in at.items()}
            uniform, normal = (_padded(noise[t : t + chunk], chunk) for noise in draws)
            tempering = _scalars(settings, tier.num_components)
            state, drawn = self._draw_frames[i](state, at, uniform, normal, *tempering)
            values.append(ops.convert_to_numpy(drawn))
            on_frames(min(chunk, frames - t))
        return state, np.ascontiguousarray(np.concatenate(values)[:frames].swapaxes(0, 1))


def frame_drawer(tier: Tier, limits: np.ndarray) -> Callable[..., tuple[DecoderState, Tensor]]:
    """The function, to be compiled, that draws the next frames of a tier.

    It takes a decoder state; :meth:`~melnet.model.tier.Tier.condition_at` the frames; uniform and normal draws, each
    (frames, bands, batch); temperature and number of components, both scalars. It gives the state after the frames and
    their values (frames, batch, bands).

    Parameters
    ----------
    limits : (3, bands)
        Lowest and highest value of each band, and the value below which a draw is set to the lowest.

    >>> tier = Tier(bands=2, layers=1, hidden=4, num_components=3, min_sigma=0.01)
    >>> draw_frames = compiled(frame_drawer(tier, np.array([[-3, -3], [3, 3], [-3, -3]], np.float32)), tier.weights)
    >>> noise = Noise(0, range(8), bands=2)(frames=5)
    >>> state, x = draw_frames(tier.initial(8), {}, *noise, np.float32(0.9), np.int32(3))
    >>> tuple(x.shape)
    (5, 8, 2)
    """
    of_bands = [ops.convert_to_tensor(limit[:, None]) for limit in limits]

    def draw_frame(
        state: DecoderState,
        condition: dict[str, Tensor],
        uniform: Tensor,
        normal: Tensor,
        temperature: Tensor,
        top_components: Tensor,
        frame_step: FrameStep = tier.frame_step,
    ) -> DecoderState:
        def sample_fn(parameters: Tensor, f: Tensor | None) -> Tensor:
            of_band = [tensor if f is None else row(tensor, f) for tensor in (uniform, normal, *of_bands)]
            uniform_draw, normal_draw, low, high, silence = of_band
            drawn = mixture.sample(
                parameters,
                uniform_draw,
                normal_draw,
                min_sigma=tier.min_sigma,
                temperature=temperature,
                top_components=top_components,
            )
            return ops.where(drawn < silence, low, ops.clip(drawn, low, high))

        return frame_step(state, sample_fn, condition)[0]

    def draw_frames(
        state: DecoderState,
        condition: dict[str, Tensor],
        uniform: Tensor,
        normal: Tensor,
        temperature: Tensor,
        top_components: Tensor,
    ) -> tuple[DecoderState, Tensor]:
        frames = uniform.shape[0]
        if frames == 1:  # a loop would take longer to compile
            state = draw_frame(state, condition, uniform[0], normal[0], temperature, top_components)
            return state, ops.expand_dims(state.frame, 0)

        few_layers = len(tier.frequency_delayed) <= MOST_LAYERS
        frame_step = FrameDecoder(tier, uniform.shape[-1]) if few_layers else tier.frame_step

        def step(t: Tensor, state: DecoderState, x: Tensor) -> tuple[Tensor, DecoderState, Tensor]:
            at = {
                stack: ops.expand_dims(row(added, t), 0) if added.shape[0] > 1 else added
                for stack, added in condition.items()
            }
            draws = row(uniform, t), row(normal, t)
            state = draw_frame(state, at, *draws, temperature, top_components, frame_step)
            return t + 1, state, put_row(x, t, state.frame)

        start = (ops.convert_to_tensor(0, "int32"), state, ops.zeros((frames, *state.frame.shape), state.frame.dtype))
        _, state, x = ops.while_loop(lambda t, *_: t < frames, step, start)
        return state, x

    return draw_frames


def sample_bytes(tier: Tier, known: int, drawn: int) -> int:
    """Bytes, at most about, of what sampling holds for one spectrogram of ``known`` and ``drawn`` frames of a tier.

    Each layer has its state before and after a frame, and what it adds to the gates of all bands. One pass reads the
    known frames and, in later tiers, the context of all frames; drawing reads one frame at a time.
    """
    features = 4 * tier.bands * tier.hidden  # bytes of a frame
    layer = 2 * tier.time_delayed[0].time.states + 1 + tier.time_delayed[0].time.gates
    frames = known + drawn if tier.features or tier.sung else known
    return features * (len(tier.time_delayed) * layer + PASS_TENSORS * (1 + frames))


def group_size(bytes_per_sample: int, memory: int | None) -> int:
    """Spectrograms that an accelerator draws at a time: a power of two from 8 to 256 that takes half of its memory.

    More would take longer in proportion, fewer hardly less long. It does not depend on how many are asked for: another
    size may round differently.

    >>> group_size(100 * 2**20, 40 * 2**30), group_size(1, None)
    (128, 256)
    """
    size = LARGEST_GROUP
    while memory is not None and size > GROUP and size * bytes_per_sample > memory // 2:
        size //= 2
    return size


def _scalars(settings: SamplingSettings, num_components: int) -> tuple[np.ndarray, np.ndarray]:
    """Temperature and number of components as arrays, for which compiled code is compiled once for all values."""
    return np.array(settings.temperature, np.float32), np.array(settings.top_components or num_components, np.int32)


def _padded(x: Tensor, length: int) -> Tensor:
    """``x`` with zeros after it, so that its first axis has ``length`` rows."""
    missing = length - x.shape[0]
    return ops.pad(x, ((0, missing), *((0, 0) for _ in x.shape[1:]))) if missing else x


def _round_up(frames: int, divisor: int) -> int:
    return -(-frames // divisor) * divisor
