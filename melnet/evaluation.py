"""Evaluation of a model on the test split: its likelihood beside that of the baselines and of the train split."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # carries no types

from melnet.baselines.band_mixture import BandMixture
from melnet.baselines.linear_autoregression import LinearAutoregression
from melnet.baselines.previous_frame import PreviousFrame
from melnet.baselines.saved import Baselines
from melnet.data.dataset import (
    Normalisation,
    TrainingWindows,
    WindowTooLong,
    batches,
    draw,
    floored,
    steps_per_epoch,
    stretches,
)
from melnet.data.shards import Shards
from melnet.data.texts import Texts
from melnet.data.tracks import Condition, FrameTracks, Tracks
from melnet.likelihood import Likelihood
from melnet.metrics.likelihood import MeanNll
from melnet.model.multiscale import divisors, interleave
from melnet.model.tier import Tier
from melnet.saved import ModelConfig

TEXT_SECONDS = 5.0  # at most, of the windows that texts are judged on


@threadpool_limits.wrap(1, "blas")  # the number of threads can change the last bit
def fit_baselines(config: ModelConfig, train: Shards, max_frames: int) -> Baselines:
    """Fit the baselines of a model on at most ``max_frames`` random frames of the train split."""
    x = config.normalisation.normalise(draw(train, -(-max_frames // config.frames), seed=0))
    sigma = config.min_sigma
    return Baselines(
        BandMixture.fit(x, num_components=config.num_components, min_sigma=sigma, max_frames=max_frames, seed=0),
        PreviousFrame.fit(x, min_sigma=sigma, max_frames=max_frames, seed=0),
        LinearAutoregression.fit(x, min_sigma=sigma, max_frames=max_frames, seed=0),
    )


@threadpool_limits.wrap(1, "blas")
def evaluate(
    config: ModelConfig,
    tiers: Sequence[Tier],
    baselines: Baselines,
    train: Shards,
    test: Shards,
    batch_size: int,
    tracks: Tracks | None = None,
    texts: Texts | None = None,
    on_batch: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Mean negative log-likelihoods of the test split, in nats per element of the normalised log-mel.

    ``tracks`` and ``texts`` are those of all recordings, see :func:`melnet.saved.read_tracks` and
    :func:`melnet.saved.read_texts`. ``on_batch`` is called twice for each
    batch of the test split, since as many batches are drawn from the train split.

    Returns
    -------
    ``nll`` of all tiers together and ``baseline_..._nll``, over the same elements; each ``..._above_floor``, over the
    elements above the log floor; ``floored``, the share of the others; of the model and the best baseline
    ``..._log_mel``, in nats per element of the log-mel before normalisation; ``nll_train``, of the model on random
    windows of the train split; by tier ``tiers``, over the elements that the tier models; and for a model that is told
    what is sung ``nll_without``, by the condition that is left out; for a model that reads texts ``text``, see
    :func:`text_likelihood`.
    """
    normalisation = config.normalisation
    likelihood = Likelihood(tiers)
    floor = normalisation.normalise(np.full(config.mel.n_mels, config.mel.log_floor))
    means, seen, by_tier = MeanNll(), MeanNll(), {name: MeanNll() for name in config.tiers}
    left_out = _left_out(config)
    without = {name: MeanNll() for name in left_out}
    for batch in batches(test, normalisation, batch_size, config.singers, tracks):
        real = batch.x[batch.weights > 0]
        parts = [part[batch.weights > 0] for part in likelihood.by_tier(batch.x, batch.singers, batch.tracks)]
        by_model = {
            "nll": interleave(parts),
            "baseline_band_nll": baselines.band.nll(real),
            "baseline_previous_frame_nll": baselines.previous_frame.nll(real),
            "baseline_linear_nll": baselines.linear.nll(real),
        }
        means.update(floored(real, floor), by_model)
        for mean, part in zip(by_tier.values(), parts, strict=True):
            mean.update(np.zeros(part.shape, bool), {"nll": part})
        for name, conditions in left_out.items():
            nats = likelihood.nats(batch.x, batch.singers, _without(batch.tracks, conditions))[batch.weights > 0]
            without[name].update(np.zeros(nats.shape, bool), {"nll": nats})
        on_batch()
    windows = TrainingWindows(train, test.spec.frames, config.singers, tracks)
    for batch in windows.batches(normalisation, batch_size, steps_per_epoch(len(test), batch_size), seed=0, epoch=0):
        nats = likelihood.nats(batch.x, batch.singers, batch.tracks)
        seen.update(np.zeros(nats.shape, bool), {"nll": nats})
        on_batch()
    metrics: dict[str, Any] = dict(means.summary())
    if without:
        metrics["nll_without"] = {name: mean.summary()["nll"] for name, mean in without.items()}
    if texts:
        metrics["text"] = text_likelihood(config, likelihood, test, batch_size, tracks, texts)
    return {
        **metrics,
        **{f"{name}_log_mel": in_log_mel(metrics[name], normalisation) for name in ("nll", "baseline_linear_nll")},
        "nll_train": seen.summary()["nll"],
        "tiers": {name: mean.summary()["nll"] for name, mean in by_tier.items()},
    }


def text_likelihood(
    config: ModelConfig, likelihood: Likelihood, test: Shards, batch_size: int, tracks: Tracks | None, texts: Texts
) -> dict[str, Any]:
    """Measure how much texts help the first tier: its nats per element of windows that begin with an utterance.

    Returns
    -------
    ``nll`` with the texts, ``nll_shuffled`` with those of other windows, ``nll_without`` without, and the number of
    ``windows``; {} if the test split has no utterance that is long enough
    """
    # Half of the longest stretch leaves room for an utterance to begin after its start.
    longest = max(stretch.frames for stretch in stretches(test))
    frames = min(round(TEXT_SECONDS / config.mel.seconds_per_frame), longest // 2)
    frames -= frames % divisors(len(config.tiers))[0]
    try:
        windows = TrainingWindows(test, frames, config.singers, tracks, texts)
    except WindowTooLong:
        return {}
    means = {name: MeanNll() for name in ("nll", "nll_shuffled", "nll_without")}
    steps = steps_per_epoch(windows.utterances, batch_size)
    for batch in windows.batches(config.normalisation, batch_size, steps, seed=0, epoch=0):
        assert batch.text is not None
        given = (batch.text, np.roll(batch.text, 1, axis=0), np.zeros_like(batch.text))
        for mean, text in zip(means.values(), given, strict=True):
            nats = likelihood.by_tier(batch.x, batch.singers, batch.tracks, text)[0]
            mean.update(np.zeros(nats.shape, bool), {"nll": nats})
    return {name: mean.summary()["nll"] for name, mean in means.items()} | {"windows": steps * batch_size}


def _left_out(config: ModelConfig) -> dict[str, Sequence[Condition]]:
    """The conditions to be left out together, by a name for them."""
    told = config.frame_conditioning.conditions if config.frame_conditioning else ()
    return {name: [name] for name in told} | ({"all": told} if len(told) > 1 else {})


def _without(tracks: FrameTracks | None, conditions: Sequence[Condition]) -> FrameTracks | None:
    for condition in conditions:
        assert tracks
        tracks = tracks.left_out(condition, np.full(len(tracks.inputs()[condition]), True))
    return tracks


def in_log_mel(nll: float, normalisation: Normalisation) -> float:
    """Mean nll per element of the log-mel itself, from that of the normalised log-mel: −log (p/σ) = −log p + log σ.

    Figures of different corpora or normalisations can be compared in this unit only.

    >>> normalisation = Normalisation(*(np.full(2, value) for value in (0.0, np.e, -1.0, 1.0)))
    >>> in_log_mel(-0.5, normalisation)
    0.5
    """
    return nll + float(np.log(normalisation.std, dtype=np.float64).mean())
