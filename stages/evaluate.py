"""Score the model and three baselines on the test split: metrics/evaluate.json, models/baselines.json.

All figures are negative log-likelihoods in nats per element of the normalised log-mel, over the same elements:
nll of the model, all its tiers together; baseline_band_nll of a mixture of model.num_components Gaussians per band;
baseline_previous_frame_nll of a linear regression on the previous frame; baseline_linear_nll of one on three frames
and the lower bands of the same frame. The baselines are fitted on the train split. `floored` is the share of elements
on the log floor (mel.floor), which are easy to predict; ..._above_floor are the figures over the other elements.
..._log_mel are in nats per element of the log-mel before normalisation, in which corpora can be compared. nll_train is
the nll of as many random windows of the train split: far below nll, it shows over-fitting. tiers.TIER is the nll over
the elements that one tier models. For a model that is told what is sung (model.condition_on), nll_without.CONDITION is
the nll of the test split where it is not told: what the condition is worth in nats.
"""

import time

from melnet.data.atomic import write_json
from melnet.data.dataset import steps_per_epoch
from melnet.data.shards import Shards
from melnet.evaluation import evaluate as score
from melnet.evaluation import fit_baselines
from melnet.saved import load, read_texts, read_tracks
from stages.command import main
from stages.execution.gpus import keras_device
from stages.parameters import Params
from stages.paths import METRICS, MODELS, SHARDS, TRACKS
from stages.progress import progress


def evaluate(params: Params) -> None:
    """Write the metrics; raise :class:`MelnetError` if the model or the shards cannot be used."""
    started, device = time.monotonic(), keras_device()
    settings = params.evaluate
    config, tiers = load(MODELS)
    train, test = Shards(SHARDS / "train"), Shards(SHARDS / "test")
    steps = steps_per_epoch(len(test), settings.batch_size)
    print(
        f"{len(test)} slices of the test split and as many of the train split, in {2 * steps} steps, under "
        f"{', '.join(config.tiers)} and three baselines, on {device}; fitting and compiling take up to a minute",
        flush=True,
    )
    baselines = fit_baselines(config, train, settings.baseline_frames)
    with progress(total=2 * steps, label="evaluate", unit="steps") as bar:
        metrics = score(
            config,
            tiers,
            baselines,
            train,
            test,
            settings.batch_size,
            tracks=read_tracks(config, TRACKS),
            texts=read_texts(config, TRACKS),
            on_batch=bar.update,
        )
    write_json(METRICS / "evaluate.json", metrics)
    write_json(MODELS / "baselines.json", baselines.to_dict())
    figures = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if isinstance(value, float))
    print(f"{METRICS / 'evaluate.json'}: {len(test)} slices, {figures}; {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main(evaluate, __doc__)
