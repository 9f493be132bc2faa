"""Score the model and two baselines on the test split: metrics/evaluate.json, models/baselines.json.

All figures are negative log-likelihoods in nats per element of the normalised log-mel, over the same elements:
nll of the model, all its tiers together; baseline_band_nll of a mixture of model.mixture Gaussians per band;
baseline_previous_frame_nll of a Gaussian regression on the frame before. The baselines are fitted on the train split.
`floored` is the share of elements on the log floor (mel.floor), where any density can be made large; ..._above_floor
are the figures over the others. tiers.TIER is the nll over the elements that one tier models.
"""

import time

import numpy as np

from melnet.baselines import BandMixture, PreviousFrame, floored
from melnet.data.dataset import UnknownSinger, batches, draw, steps_per_epoch
from melnet.data.shards import ShardError, Shards
from melnet.likelihood import Likelihood
from melnet.metrics import MeanNll
from melnet.model.multiscale import interleave
from melnet.saved import ModelError, load
from stages.command import METRICS, MODELS, SHARDS, StageError, main, write_json
from stages.parameters import Params
from stages.progress import progress


def evaluate(params: Params) -> None:
    """Write the metrics; raise :class:`StageError` if the model or the shards cannot be used."""
    started = time.monotonic()
    try:
        description, tiers = load(MODELS)
        train, test = Shards(SHARDS / "train"), Shards(SHARDS / "test")
        steps = steps_per_epoch(len(test), params.evaluate.batch_size)
        print(
            f"{len(test)} slices of the test split, in {steps} steps, under {', '.join(description.tiers)} and two "
            "baselines; fitting and compiling take up to a minute",
            flush=True,
        )
        normalisation = description.normalisation
        fitted_on = draw(train, -(-params.evaluate.baseline_frames // description.frames), seed=0)
        x = normalisation.normalise(fitted_on)
        min_sigma, most = description.min_sigma, params.evaluate.baseline_frames
        band = BandMixture.fit(x, mixture=description.mixture, min_sigma=min_sigma, max_frames=most, seed=0)
        previous = PreviousFrame.fit(x, min_sigma=min_sigma, max_frames=most, seed=0)
        likelihood = Likelihood(tiers)
        floor = normalisation.normalise(np.full(description.mel.n_mels, np.log(description.mel.floor), np.float32))
        means, by_tier = MeanNll(), {name: MeanNll() for name in description.tiers}
        scored = batches(test, normalisation, params.evaluate.batch_size, description.singers)
        for batch in progress(scored, total=steps, label="evaluate", unit="steps"):
            real = batch.x[batch.weights > 0]
            parts = [part[batch.weights > 0] for part in likelihood.by_tier(batch.x, batch.singers)]
            nats = {
                "nll": interleave(parts),
                "baseline_band_nll": band.nll(real),
                "baseline_previous_frame_nll": previous.nll(real),
            }
            means.update(floored(real, floor), nats)
            for mean, part in zip(by_tier.values(), parts, strict=True):
                mean.update(np.zeros(part.shape, bool), {"nll": part})
    except (ShardError, ModelError, UnknownSinger) as error:
        raise StageError(str(error)) from error
    summary = means.summary()
    tier_nlls = {name: mean.summary()["nll"] for name, mean in by_tier.items()}
    write_json(METRICS / "evaluate.json", {**summary, "tiers": tier_nlls})
    write_json(MODELS / "baselines.json", {"band": band.to_dict(), "previous_frame": previous.to_dict()})
    figures = ", ".join(f"{name} {value:.4f}" for name, value in summary.items())
    print(f"{METRICS / 'evaluate.json'}: {len(test)} slices, {figures}; {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main(evaluate, __doc__)
