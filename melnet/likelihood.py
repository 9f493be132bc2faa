"""The likelihood of whole spectrograms under all tiers of a model (arXiv 1906.01083, section 6)."""

from collections.abc import Callable, Sequence

import numpy as np
from keras import ops

from melnet.backend import compiled
from melnet.data.dataset import Batch
from melnet.model.mixture import negative_log_likelihood
from melnet.model.multiscale import interleave
from melnet.model.recurrent import Tensor
from melnet.model.tier import Inputs, Tier
from melnet.training.fit import Place, inputs_and_target


class Likelihood:
    """Nats of each element of a spectrogram, whichever tier models it.

    The tiers' parts are disjoint and together everything, and each is conditioned on the earlier ones: the sum over
    all elements is the negative log-likelihood of the whole, comparable between one tier and many.
    """

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self.tiers = tiers
        self._scores = [self._score(tier) for tier in tiers]

    @staticmethod
    def _score(tier: Tier) -> Callable[[Inputs, Tensor], Tensor]:
        return compiled(lambda inputs, x: negative_log_likelihood(x, tier(inputs), tier.min_sigma))

    def by_tier(self, batch: Batch) -> list[np.ndarray]:
        """Nats (batch, frames, bands) of each tier's part, the first tier's first."""
        nats = []
        for number, score in enumerate(self._scores, start=1):
            inputs, target = inputs_and_target(batch, Place(number, len(self.tiers)))
            nats.append(ops.convert_to_numpy(score(inputs, target)))
        return nats

    def nats(self, batch: Batch) -> np.ndarray:
        """Nats of every element, (batch, frames, bands)."""
        return interleave(self.by_tier(batch))
