"""Autoregressive sampling of spectrograms: tier by tier, frame by frame and band by band.

One compiled function for each tier advances a group of spectrograms by one frame, and the recurrent state is carried
from frame to frame. So the time is linear in the number of frames, and the code is compiled once for any number; only
the feature-extraction network of later tiers, which sees all frames at once, is compiled anew for another number.

Groups always hold :data:`GROUP` spectrograms, padded if fewer are asked for, so that a sample is bit-identical whatever
is drawn with it. Groups run in parallel.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

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


def noise(seed: int, samples: range, frames: int, bands: int, tier: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Uniform and normal draws for some samples, each (frames, bands, len(samples)) float32.

    The draws of a sample depend on the seed, the tier and the sample's number alone: neither on the samples beside it
    nor on the number of frames.

    >>> uniform, normal = noise(0, range(2), frames=5, bands=3)
    >>> uniform.shape, bool((noise(0, range(1), frames=1, bands=3)[0] == uniform[:1, :, :1]).all())
    ((5, 3, 2), True)
    """
    pairs = [[np.random.default_rng([seed, n, kind, tier]) for kind in range(2)] for n in samples]
    uniform = np.stack([pair[0].random((frames, bands), np.float32) for pair in pairs], axis=-1)
    normal = np.stack([pair[1].standard_normal((frames, bands), np.float32) for pair in pairs], axis=-1)
    return uniform, normal


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
    temperature, top_components
        See :func:`melnet.model.mixture.sample`.

    >>> bound = np.full(2, 3, np.float32)
    >>> sampler = Sampler([Tier(bands=2, layers=1, hidden=4, num_components=2, min_sigma=0.01)], -bound, bound)
    >>> sampler.sample(3, frames=5, seed=0).shape
    (3, 5, 2)
    """

    def __init__(
        self,
        tiers: Sequence[Tier],
        low: np.ndarray,
        high: np.ndarray,
        temperature: float = 1.0,
        top_components: int | None = None,
        floor: np.ndarray | None = None,
    ) -> None:
        self.tiers = tiers
        count = len(tiers)
        width = FLOOR_SIGMAS * tiers[0].min_sigma
        silence = low if floor is None else np.where(low <= floor + FLOOR_TOLERANCE, low + width, low)
        limits = np.stack([low, high, silence]).astype(np.float32)
        ranges = np.broadcast_to(limits[:, None], (3, divisors(count)[0], len(low)))  # of every frame
        bounds = [target_and_context(ranges, number, count)[0][:, 0] for number in range(1, count + 1)]
        self._frame_step = [
            self._compiled_step(tier, limits, temperature, top_components)
            for tier, limits in zip(tiers, bounds, strict=True)
        ]
        self._condition = [compiled(tier.condition) for tier in tiers]
        self._prefill = [compiled(tier.prefill) for tier in tiers]

    @staticmethod
    def _compiled_step(
        tier: Tier, limits: np.ndarray, temperature: float, top_components: int | None
    ) -> Callable[..., DecoderState]:
        low, high, silence = (ops.convert_to_tensor(limit) for limit in limits)

        def step(state: DecoderState, condition: dict[str, Tensor], uniform: Tensor, normal: Tensor) -> DecoderState:
            def sample_fn(parameters: Tensor, f: Tensor) -> Tensor:
                drawn = mixture.sample(
                    parameters,
                    row(uniform, f),
                    row(normal, f),
                    min_sigma=tier.min_sigma,
                    temperature=temperature,
                    top_components=top_components,
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
        *,
        singers: np.ndarray | None = None,
        prime: np.ndarray | None = None,
        on_frame: OnFrame | None = None,
    ) -> np.ndarray:
        """Draw ``count`` spectrograms of ``frames`` frames; equal seeds give equal samples.

        Parameters
        ----------
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
        divisor, band_divisor = divisors(len(self.tiers))
        known = np.zeros((0, self.tiers[0].bands * band_divisor), np.float32) if prime is None else prime
        known = known[len(known) % divisor :]
        total = len(known) + _round_up(frames, divisor)
        singers = np.zeros(count, np.int32) if singers is None else np.asarray(singers, np.int32)

        def draw(first: int) -> np.ndarray:
            group = np.resize(singers[first : first + GROUP], GROUP)
            return self._draw(range(first, first + GROUP), known, total, seed, group, on_frame or (lambda: None))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            drawn = list(pool.map(draw, range(0, count, GROUP)))
        return np.concatenate(drawn)[:count, len(known) : len(known) + frames]

    def _draw(
        self, samples: range, known: np.ndarray, total: int, seed: int, singers: np.ndarray, on_frame: OnFrame
    ) -> np.ndarray:
        """Spectrograms (samples, total, bands) that begin with the known frames."""
        parts: list[np.ndarray] = []
        for i, (tier, part) in enumerate(zip(self.tiers, split(known, len(self.tiers)), strict=True)):
            frames, bands = shape(i + 1, len(self.tiers), total, known.shape[1])
            x = np.empty((GROUP, frames, bands), np.float32)
            x[:, : len(part)] = part
            inputs: Inputs = {"singer": singers}
            if parts:
                inputs["context"] = interleave(parts)
            condition = self._condition[i](inputs) if parts or tier.singers else {}
            state = tier.initial(GROUP)
            if len(part):
                state = self._prefill[i](x[:, : len(part)], tier.condition_at(condition, 0, len(part)))
            draws = zip(*noise(seed, samples, frames - len(part), bands, i + 1), strict=True)
            for t, (uniform, normal) in enumerate(draws, start=len(part)):
                state = self._frame_step[i](state, tier.condition_at(condition, t, t + 1), uniform, normal)
                x[:, t] = ops.convert_to_numpy(state.frame)
                on_frame()
            parts.append(x)
        return interleave(parts)


def _round_up(frames: int, divisor: int) -> int:
    return -(-frames // divisor) * divisor
