"""Autoregressive sampling of spectrograms: tier by tier, frame by frame and band by band.

One compiled function for each tier advances a group of spectrograms by one frame, and the recurrent state is carried
from frame to frame. So the time is linear in the number of frames, and the code is compiled once for any number; only
the feature-extraction network of later tiers, which sees all frames at once, is compiled anew for another number.

Groups always hold :data:`GROUP` spectrograms, padded if fewer are asked for, so that a sample is bit-identical whatever
is drawn with it. Groups run in parallel.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from keras import ops

from melnet.backend import Tensor, compiled
from melnet.model import mixture
from melnet.model.multiscale import divisors, interleave, shape, split, target_and_context
from melnet.model.recurrent import row
from melnet.model.tier import DecoderState, Inputs, Tier

OnFrame: TypeAlias = Callable[[], object]
GROUP = 8
"""spectrograms that one compiled call advances"""
FLOOR_SIGMAS = 3.0
FLOOR_TOLERANCE = 1e-4  # rounding of float32, in normalised units
LEAST_UNIFORM = np.float32(2**-25)  # below all other draws: exactly zero would choose a component of no weight


@dataclass
class SamplingSettings:
    """How values are drawn from their distributions; see :func:`melnet.model.mixture.sample`.

    They may be changed while a stream is sampled, and are read anew for each frame.

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

    >>> bound = np.full(2, 3, np.float32)
    >>> sampler = Sampler([Tier(bands=2, layers=1, hidden=4, num_components=2, min_sigma=0.01)], -bound, bound)
    >>> sampler.sample(3, frames=5, seed=0).shape
    (3, 5, 2)
    >>> stream = sampler.stream(SamplingSettings(), seed=0, block=4)
    >>> next(stream).shape, next(stream).shape
    ((4, 2), (4, 2))
    """

    def __init__(
        self, tiers: Sequence[Tier], low: np.ndarray, high: np.ndarray, floor: np.ndarray | None = None
    ) -> None:
        self.tiers = tiers
        count = len(tiers)
        width = FLOOR_SIGMAS * tiers[0].min_sigma
        silence = low if floor is None else np.where(low <= floor + FLOOR_TOLERANCE, low + width, low)
        limits = np.stack([low, high, silence]).astype(np.float32)
        ranges = np.broadcast_to(limits[:, None], (3, divisors(count)[0], len(low)))  # of every frame
        bounds = [target_and_context(ranges, number, count)[0][:, 0] for number in range(1, count + 1)]
        self._frame_step = [self._compiled_step(tier, limits) for tier, limits in zip(tiers, bounds, strict=True)]
        self._condition = [compiled(tier.condition) for tier in tiers]
        self._prefill = [compiled(tier.prefill) for tier in tiers]

    @staticmethod
    def _compiled_step(tier: Tier, limits: np.ndarray) -> Callable[..., DecoderState]:
        low, high, silence = (ops.convert_to_tensor(limit) for limit in limits)

        def step(
            state: DecoderState, condition: dict[str, Tensor], uniform: Tensor, normal: Tensor, tempering: Tensor
        ) -> DecoderState:
            def sample_fn(parameters: Tensor, f: Tensor) -> Tensor:
                drawn = mixture.sample(
                    _tempered(parameters, tempering),
                    row(uniform, f),
                    row(normal, f),
                    min_sigma=tier.min_sigma,
                    temperature=1.0,
                )
                return ops.where(drawn < row(silence, f), row(low, f), ops.clip(drawn, row(low, f), row(high, f)))

            return tier.frame_step(state, sample_fn, condition)[0]

        return compiled(step)

    def steps(self, count: int, frames: int) -> int:
        """How many frames of all tiers and groups :meth:`sample` draws, and so how often it calls ``on_frame``."""
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
        on_frame
            Called after each frame of a group and a tier, :meth:`steps` times, from several threads.

        Returns
        -------
        float32 (count, frames, bands)
            Normalised log-mel, without the prime.
        """
        settings = settings or SamplingSettings()
        known, drawn_frames = self._known(prime), _round_up(frames, divisors(len(self.tiers))[0])
        singers = np.zeros(count, np.int32) if singers is None else np.asarray(singers, np.int32)

        def draw(first: int) -> np.ndarray:
            group = np.resize(singers[first : first + GROUP], GROUP)
            noises = self._noises(seed, range(first, first + GROUP))
            return self._continue(known, drawn_frames, noises, group, settings, on_frame)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            drawn = list(pool.map(draw, range(0, count, GROUP)))
        return np.concatenate(drawn)[:count, :frames]

    def stream(
        self,
        settings: SamplingSettings,
        seed: int,
        block: int,
        *,
        singer: int = 0,
        prime: np.ndarray | None = None,
    ) -> Iterator[np.ndarray]:
        """Draw one spectrogram without end, ``block`` frames at a time; each is float32 (block, bands), normalised.

        With one tier it is the first sample of :meth:`sample` of the same seed, however long that is. Later tiers see
        frames of the earlier ones that are still to come; so with several tiers each block is drawn whole, and
        continues the one before it. The tiers must be able to divide ``block``.
        """
        singers = np.full(GROUP, singer, np.int32)
        noises, known = self._noises(seed, range(GROUP)), self._known(prime)
        if len(self.tiers) == 1:
            condition = self._condition[0]({"singer": singers}) if self.tiers[0].singers else {}
            state = self._start(0, known, condition)
            while True:
                state, x = self._frames(0, state, condition, noises[0](block), settings)
                yield x[0]
        while True:
            x = self._continue(known, block, noises, singers, settings)
            yield x[0]
            known = x

    def _known(self, prime: np.ndarray | None) -> np.ndarray:
        """The frames that a group continues, as many as the tiers can divide; (GROUP, frames, bands)."""
        divisor, band_divisor = divisors(len(self.tiers))
        known = np.zeros((0, self.tiers[0].bands * band_divisor), np.float32) if prime is None else prime
        known = known[len(known) % divisor :]
        return np.broadcast_to(known, (GROUP, *known.shape))

    def _noises(self, seed: int, samples: range) -> list[Noise]:
        tiers = len(self.tiers)
        bands = self.tiers[0].bands * divisors(tiers)[1]
        return [Noise(seed, samples, shape(number, tiers, 0, bands).bands, number) for number in range(1, tiers + 1)]

    def _continue(
        self,
        known: np.ndarray,
        frames: int,
        noises: Sequence[Noise],
        singers: np.ndarray,
        settings: SamplingSettings,
        on_frame: OnFrame = lambda: None,
    ) -> np.ndarray:
        """The ``frames`` frames (GROUP, frames, bands) that follow the known ones of a group."""
        parts: list[np.ndarray] = []
        for i, (tier, part) in enumerate(zip(self.tiers, split(known, len(self.tiers)), strict=True)):
            inputs: Inputs = {"singer": singers}
            if parts:
                inputs["context"] = interleave(parts)
            condition = self._condition[i](inputs) if parts or tier.singers else {}
            state, first = self._start(i, part, condition), part.shape[1]
            draws = noises[i](shape(i + 1, len(self.tiers), frames, 0).frames)
            _, x = self._frames(i, state, condition, draws, settings, on_frame, first)
            parts.append(np.concatenate([part, x], axis=1))
        return interleave(parts)[:, known.shape[1] :]

    def _start(self, i: int, part: np.ndarray, condition: dict[str, Tensor]) -> DecoderState:
        """The state of tier ``i`` after its part (GROUP, frames, bands) of the known frames."""
        frames = part.shape[1]
        if not frames:
            return self.tiers[i].initial(GROUP)
        return self._prefill[i](np.ascontiguousarray(part), self.tiers[i].condition_at(condition, 0, frames))

    def _frames(
        self,
        i: int,
        state: DecoderState,
        condition: dict[str, Tensor],
        draws: tuple[np.ndarray, np.ndarray],
        settings: SamplingSettings,
        on_frame: OnFrame = lambda: None,
        first: int = 0,
    ) -> tuple[DecoderState, np.ndarray]:
        """Draw a frame of tier ``i`` for each of the ``draws``; the new state and the values (GROUP, frames, bands).

        ``first`` is the index of the first of them among the frames of ``condition``.
        """
        tier = self.tiers[i]
        x = np.empty((GROUP, len(draws[0]), tier.bands), np.float32)
        for t, noise in enumerate(zip(*draws, strict=True)):
            at = tier.condition_at(condition, first + t, first + t + 1)
            state = self._frame_step[i](state, at, *_scaled(*noise, settings, tier.num_components))
            x[:, t] = ops.convert_to_numpy(state.frame)
            on_frame()
        return state, x


def _scaled(
    uniform: np.ndarray, normal: np.ndarray, settings: SamplingSettings, num_components: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise for a temperature, and the tempering of the mixtures: temperature of the weights, number of components.

    Compiled code takes them as values, so that it is compiled once for all temperatures. Temperature 0 is the heaviest
    component without its spread.
    """
    temperature, components = settings.temperature, settings.top_components or num_components
    if temperature == 0:
        return np.full_like(uniform, LEAST_UNIFORM), np.zeros_like(normal), np.array([1, 1], np.float32)
    tempering = np.array([temperature, components], np.float32)
    return np.maximum(uniform, LEAST_UNIFORM), normal * np.float32(math.sqrt(temperature)), tempering


def _tempered(parameters: Tensor, tempering: Tensor) -> Tensor:
    """Mixture parameters (..., 3 K) whose weights are those of a temperature, of the heaviest components only."""
    mean, log_sigma, logits = ops.split(parameters, 3, axis=-1)
    heavier = ops.expand_dims(logits, -2) > ops.expand_dims(logits, -1)  # (..., K, others)
    rank = ops.sum(ops.cast(heavier, "float32"), axis=-1)
    logits = ops.where(rank < tempering[1], logits / tempering[0], -float("inf"))
    return ops.concatenate([mean, log_sigma, logits], axis=-1)


def _round_up(frames: int, divisor: int) -> int:
    return -(-frames // divisor) * divisor
