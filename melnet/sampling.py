"""Autoregressive sampling with carried state: spectrograms tier by tier, frame by frame and band by band.

For each tier one compiled function advances a few spectrograms by one frame, so time is linear in frames, and any
number of frames runs on the same compiled code; only the feature-extraction network of later tiers, which sees all
frames at once, is compiled for their number. The few are as many as always, whatever the number asked for: that a
sample does not depend on what is drawn beside it holds to the last bit. Several such groups run side by side.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from keras import ops

from melnet.backend import compiled
from melnet.model import mixture
from melnet.model.multiscale import divisors, interleave, shape, split, target_and_context
from melnet.model.recurrent import Tensor, row
from melnet.model.tier import Carried, Inputs, Tier
from stages.progress import progress

GROUP = 8  # spectrograms advanced by one compiled call


def noise(seed: int, samples: range, frames: int, bands: int, tier: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Uniform and normal draws, each (frames, bands, len(samples)) float32.

    Those of sample n depend on ``seed``, the tier and n only: not on what is drawn with it, nor on how many frames
    follow.
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
        The first tier first.
    temperature, top_components
        See :func:`melnet.model.mixture.sample`.
    low, high : (bands,)
        Normalised; draws are clipped to them. A value beyond all that was trained on leads the model further astray: a
        model trained for long drew 15 nats above the loudest recording, in sweeps, without this.
    """

    def __init__(
        self,
        tiers: Sequence[Tier],
        low: np.ndarray,
        high: np.ndarray,
        temperature: float = 1.0,
        top_components: int | None = None,
    ) -> None:
        self.tiers = tiers
        whole = np.stack([low, high])[:, None]  # (2, 1, bands): of every frame
        spread = np.broadcast_to(whole, (2, divisors(len(tiers))[0], len(low)))
        bounds = [target_and_context(spread, number, len(tiers))[0][:, 0] for number in range(1, len(tiers) + 1)]
        self._advance = [
            self._compiled_step(tier, limits, temperature, top_components)
            for tier, limits in zip(tiers, bounds, strict=True)
        ]
        self._condition = [compiled(tier.condition) for tier in tiers]
        self._warm = [compiled(tier.warm) for tier in tiers]

    @staticmethod
    def _compiled_step(
        tier: Tier, limits: np.ndarray, temperature: float, top_components: int | None
    ) -> Callable[..., Carried]:
        bounds = ops.convert_to_tensor(limits[0]), ops.convert_to_tensor(limits[1])

        def step(carried: Carried, condition: dict[str, Tensor], uniform: Tensor, normal: Tensor) -> Carried:
            def choose(parameters: Tensor, f: Tensor) -> Tensor:
                drawn = mixture.sample(
                    parameters,
                    row(uniform, f),
                    row(normal, f),
                    min_sigma=tier.min_sigma,
                    temperature=temperature,
                    top_components=top_components,
                )
                return ops.clip(drawn, row(bounds[0], f), row(bounds[1], f))

            return tier.frame_step(carried, choose, condition)[0]

        return compiled(step)

    def sample(
        self,
        count: int,
        frames: int,
        seed: int,
        *,
        singers: np.ndarray | None = None,
        prime: np.ndarray | None = None,
    ) -> np.ndarray:
        """Draw ``count`` spectrograms of ``frames`` frames; equal seeds give equal samples.

        Parameters
        ----------
        singers : (count,), int
            Their places among those the model knows.
        prime : (prime frames, bands)
            Normalised log-mel that each sample continues. Of its beginning, frames are left out that the tiers cannot
            divide.

        Returns
        -------
        float32 (count, frames, bands)
            Normalised log-mel, without the prime.
        """
        bands = self.tiers[0].bands * divisors(len(self.tiers))[1]
        divisor = divisors(len(self.tiers))[0]
        known = np.zeros((0, bands), np.float32) if prime is None else prime[len(prime) % divisor :]
        total = len(known) + -(-frames // divisor) * divisor
        singers = np.zeros(count, np.int32) if singers is None else np.asarray(singers, np.int32)
        groups = [range(first, first + GROUP) for first in range(0, count, GROUP)]
        steps = sum(
            shape(number, len(self.tiers), total - len(known), bands).frames for number in range(1, len(self.tiers) + 1)
        )

        def draw(samples: range) -> np.ndarray:
            mine = np.resize(singers[samples.start : samples.stop], GROUP)
            return self._draw(samples, known, total, seed, mine, bar.update)

        with (
            progress(total=steps * len(groups), label="generate", unit="frames") as bar,
            ThreadPoolExecutor(os.cpu_count()) as pool,
        ):
            drawn = list(pool.map(draw, groups))
        return np.concatenate(drawn)[:count, len(known) : len(known) + frames]

    def _draw(
        self, samples: range, known: np.ndarray, total: int, seed: int, singers: np.ndarray, tick: Callable[[], Any]
    ) -> np.ndarray:
        """Spectrograms (samples, total, bands) that begin with the known frames."""
        known_parts = split(known, len(self.tiers))
        parts: list[np.ndarray] = []
        for number, (tier, part) in enumerate(zip(self.tiers, known_parts, strict=True), start=1):
            frames, bands = shape(number, len(self.tiers), total, known.shape[1])
            x = np.empty((GROUP, frames, bands), np.float32)
            x[:, : len(part)] = part
            inputs: Inputs = {"singer": singers}
            if parts:
                inputs["context"] = interleave(parts)
            condition = self._condition[number - 1](inputs) if parts or tier.singers else {}
            carried = tier.initial(GROUP)
            if len(part):
                beginning = {stack: added[: len(part)] for stack, added in condition.items()}
                carried = self._warm[number - 1](x[:, : len(part)], beginning)
            draws = zip(*noise(seed, samples, frames - len(part), bands, number), strict=True)
            for t, (uniform, normal) in enumerate(draws, start=len(part)):
                carried = self._advance[number - 1](carried, tier.at_frame(condition, t), uniform, normal)
                x[:, t] = ops.convert_to_numpy(carried.frame)
                tick()
            parts.append(x)
        return interleave(parts)
