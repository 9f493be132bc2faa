"""Score the model and two baselines on the test split: metrics/evaluate.json, models/baselines.json.

All figures are negative log-likelihoods in nats per element of the normalised log-mel, over the same elements:
nll of the model; baseline_band_nll of a mixture of model.mixture Gaussians per band; baseline_previous_frame_nll of a
Gaussian regression on the frame before. The baselines are fitted on the train split. `floored` is the share of elements
on the log floor (mel.floor), where any density can be made large; ..._above_floor are the figures over the others.
"""

import time

import numpy as np
from keras import ops

from melnet.backend import compiled
from melnet.baselines import BandMixture, PreviousFrame, floored
from melnet.config import Params
from melnet.dataset import batches, draw
from melnet.metrics import MeanNll
from melnet.model.mixture import negative_log_likelihood
from melnet.saved import ModelError, load
from melnet.shards import ShardError, Shards
from stages.common import METRICS, MODELS, SHARDS, StageError, main, write_json


def evaluate(params: Params) -> None:
    """Write the metrics; raise :class:`StageError` if the model or the shards cannot be used."""
    started = time.monotonic()
    try:
        description, tiers = load(MODELS)
        train, test = Shards(SHARDS / "train"), Shards(SHARDS / "test")
        normalisation, tier = description.normalisation, tiers["tier-1"]
        fitted_on = draw(train, -(-params.evaluate.baseline_frames // description.frames), seed=0)
        x = normalisation.normalise(fitted_on)
        model, most = description.model, params.evaluate.baseline_frames
        band = BandMixture.fit(x, mixture=model.mixture, min_sigma=model.min_sigma, max_frames=most, seed=0)
        previous = PreviousFrame.fit(x, min_sigma=model.min_sigma, max_frames=most, seed=0)
        score = compiled(lambda x: negative_log_likelihood(x, tier(x), tier.min_sigma))
        floor = normalisation.normalise(np.full(description.mel.n_mels, np.log(description.mel.floor), np.float32))
        means = MeanNll()
        for batch, weights in batches(test, normalisation, params.evaluate.batch_size):
            real = batch[weights > 0]
            nats = {
                "nll": ops.convert_to_numpy(score(batch))[weights > 0],
                "baseline_band_nll": band.nll(real),
                "baseline_previous_frame_nll": previous.nll(real),
            }
            means.update(floored(real, floor), nats)
    except (ShardError, ModelError) as error:
        raise StageError(str(error)) from error
    summary = means.summary()
    write_json(METRICS / "evaluate.json", summary)
    write_json(MODELS / "baselines.json", {"band": band.to_dict(), "previous_frame": previous.to_dict()})
    figures = ", ".join(f"{name} {value:.4f}" for name, value in summary.items())
    print(f"{METRICS / 'evaluate.json'}: {len(test)} slices, {figures}; {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main(evaluate, __doc__)
