"""Evaluation of a model on the test split: its likelihood beside that of the baselines."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from melnet.baselines import BandMixture, Baselines, PreviousFrame, floored
from melnet.data.dataset import batches, draw
from melnet.data.shards import Shards
from melnet.likelihood import Likelihood
from melnet.metrics import MeanNll
from melnet.model.multiscale import interleave
from melnet.model.tier import Tier
from melnet.saved import ModelConfig


def fit_baselines(config: ModelConfig, train: Shards, max_frames: int) -> Baselines:
    """Fit the baselines of a model on at most ``max_frames`` random frames of the train split."""
    x = config.normalisation.normalise(draw(train, -(-max_frames // config.frames), seed=0))
    sigma = config.min_sigma
    band = BandMixture.fit(x, num_components=config.num_components, min_sigma=sigma, max_frames=max_frames, seed=0)
    return Baselines(band, PreviousFrame.fit(x, min_sigma=sigma, max_frames=max_frames, seed=0))


def evaluate(
    config: ModelConfig,
    tiers: Sequence[Tier],
    baselines: Baselines,
    test: Shards,
    batch_size: int,
    on_batch: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Mean negative log-likelihoods of the test split, in nats per element of the normalised log-mel.

    Returns
    -------
    ``nll`` of all tiers together and ``baseline_band_nll`` and ``baseline_previous_frame_nll``, over the same elements;
    each ``..._above_floor``, over the elements above the log floor; ``floored``, the share of the others; and by tier
    ``tiers``, over the elements that the tier models.
    """
    normalisation = config.normalisation
    likelihood = Likelihood(tiers)
    floor = normalisation.normalise(np.full(config.mel.n_mels, config.mel.log_floor))
    means, by_tier = MeanNll(), {name: MeanNll() for name in config.tiers}
    for batch in batches(test, normalisation, batch_size, config.singers):
        real = batch.x[batch.weights > 0]
        parts = [part[batch.weights > 0] for part in likelihood.by_tier(batch.x, batch.singers)]
        nats = {
            "nll": interleave(parts),
            "baseline_band_nll": baselines.band.nll(real),
            "baseline_previous_frame_nll": baselines.previous_frame.nll(real),
        }
        means.update(floored(real, floor), nats)
        for mean, part in zip(by_tier.values(), parts, strict=True):
            mean.update(np.zeros(part.shape, bool), {"nll": part})
        on_batch()
    return {**means.summary(), "tiers": {name: mean.summary()["nll"] for name, mean in by_tier.items()}}
