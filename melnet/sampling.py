"""Autoregressive sampling with carried state: a batch of spectrograms, frame by frame and band by band.

One compiled function advances all spectrograms by one frame, so time is linear in frames, memory constant, and any
number of frames runs on the same compiled code.
"""

import numpy as np
from keras import ops

from melnet.backend import compiled
from melnet.model import mixture
from melnet.model.lstm import Tensor, row
from melnet.model.tier import Carried, Tier
from melnet.progress import progress


def noise(seed: int, count: int, frames: int, bands: int) -> tuple[np.ndarray, np.ndarray]:
    """Uniform and normal draws, each (frames, bands, count) float32.

    Those of sample n depend on ``seed`` and n only: not on how many are drawn with it, nor on how many frames follow.
    """
    shape = (frames, bands)
    pairs = [[np.random.default_rng([seed, n, kind]) for kind in range(2)] for n in range(count)]
    uniform = np.stack([pair[0].random(shape, np.float32) for pair in pairs], axis=-1)
    normal = np.stack([pair[1].standard_normal(shape, np.float32) for pair in pairs], axis=-1)
    return uniform, normal


class Sampler:
    """Draws spectrograms from a tier; compiled once per batch size, whatever the number of frames.

    Parameters
    ----------
    temperature
        See :func:`melnet.model.mixture.sample`.
    low, high : (bands,)
        Normalised; draws are clipped to them. A value beyond all that was trained on leads the model further astray: a
        model trained for long drew 15 nats above the loudest recording, in sweeps, without this.
    """

    def __init__(self, tier: Tier, temperature: float, low: np.ndarray, high: np.ndarray) -> None:
        self.tier = tier
        bounds = ops.convert_to_tensor(low), ops.convert_to_tensor(high)

        def step(carried: Carried, uniform: Tensor, normal: Tensor) -> Carried:
            def choose(parameters: Tensor, f: Tensor) -> Tensor:
                drawn = mixture.sample(
                    parameters, row(uniform, f), row(normal, f), min_sigma=tier.min_sigma, temperature=temperature
                )
                return ops.clip(drawn, row(bounds[0], f), row(bounds[1], f))

            return tier.frame_step(carried, choose)[0]

        self._advance = compiled(step)

    def sample(self, count: int, frames: int, seed: int) -> np.ndarray:
        """Draw ``count`` spectrograms of ``frames`` frames at once; equal seeds give equal samples.

        Returns
        -------
        float32 (count, frames, bands)
            Normalised log-mel.
        """
        carried = self.tier.initial(count)
        x = np.empty((count, frames, self.tier.bands), np.float32)
        draws = zip(*noise(seed, count, frames, self.tier.bands), strict=True)
        for t, (uniform, normal) in enumerate(progress(draws, total=frames, label="generate", unit="frames")):
            carried = self._advance(carried, uniform, normal)
            x[:, t] = ops.convert_to_numpy(carried.frame)
        return x
