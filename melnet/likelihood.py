"""The likelihood of whole spectrograms under all tiers of a model (arXiv 1906.01083, section 6)."""

from collections.abc import Callable, Sequence

import numpy as np
from keras import ops

from melnet.backend import Tensor, compiled
from melnet.data.tracks import FrameTracks
from melnet.model.mixture import negative_log_likelihood
from melnet.model.multiscale import TierIndex, inputs_and_target, interleave
from melnet.model.precision import exact
from melnet.model.tier import Inputs, Tier


class Likelihood:
    """The negative log-likelihood, in nats, of each element of a spectrogram under the tier that models it.

    The sum over all elements is that of the whole spectrogram, so models with different numbers of tiers can be
    compared. All of it is computed in float32, whatever the precision of the tiers.

    Parameters
    ----------
    tiers
        All tiers of a model, the first tier first.

    >>> tier = Tier(bands=2, layers=1, hidden=4, num_components=1, min_sigma=0.01)
    >>> Likelihood([tier]).nats(np.zeros((1, 3, 2), np.float32), np.zeros(1, np.int32)).shape
    (1, 3, 2)
    """

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self.tiers = tiers
        self._scores = [self._score(tier) for tier in tiers]

    @staticmethod
    def _score(tier: Tier) -> Callable[[Inputs, Tensor], Tensor]:
        def score(inputs: Inputs, x: Tensor) -> Tensor:
            with exact():
                return negative_log_likelihood(x, tier(inputs), tier.min_sigma)

        return compiled(score, tier.weights)

    def by_tier(
        self,
        x: np.ndarray,
        singers: np.ndarray,
        tracks: FrameTracks | None = None,
        text: np.ndarray | None = None,
    ) -> list[np.ndarray]:
        """Nats of each tier's part, the first tier first; arguments as in :meth:`nats`.

        ``text`` int32 (batch, symbols) is what is sung, without times; None if that is not known.
        """
        nats, told = [], tracks.inputs() if tracks else None
        for number, (tier, score) in enumerate(zip(self.tiers, self._scores, strict=True), start=1):
            inputs, target = inputs_and_target(x, singers, TierIndex(number, len(self.tiers)), told, text)
            inputs = tier.unknown(len(x)) | inputs
            nats.append(ops.convert_to_numpy(score(inputs, target)))
        return nats

    def nats(self, x: np.ndarray, singers: np.ndarray, tracks: FrameTracks | None = None) -> np.ndarray:
        """Nats of every element, shaped like x.

        Parameters
        ----------
        x : (batch, frames, bands), float32
            Normalised log-mel.
        singers : (batch,), int32
            Indices of singers; without effect on tiers that know none.
        tracks
            What is sung, (batch, frames + look-ahead, ...); None if that is not known, or the tiers are not told it.
        """
        return interleave(self.by_tier(x, singers, tracks))
