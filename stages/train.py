"""Train MelNet on data/shards: models/melnet.json, models/tier-1.weights.h5, metrics/train.json, metrics/history.csv.

RMSprop, its learning rate halved every train.halve_every epochs, minimises the negative log-likelihood of the
normalised log-mel in nats per element; the epoch with the lowest validation loss is kept. Training that was interrupted
continues from its last finished epoch, unless something it depends on has changed. While it runs, logs/tensorboard
(tensorboard --logdir logs/tensorboard) and logs/dvclive show the losses.
"""

import time
from pathlib import Path

import keras
import pandas as pd
from dvclive import Live
from dvclive.keras import DVCLiveCallback

from melnet.config import Params
from melnet.dataset import Normalisation, steps_per_epoch
from melnet.figures import curves, save
from melnet.files import written
from melnet.saved import Description, build_tier
from melnet.saved import save as save_model
from melnet.shards import ShardError, Shards
from melnet.training import Progress, TrainingDiverged, fit
from stages.common import METRICS, MODELS, SHARDS, StageError, main, write_json
from stages.fingerprint import fingerprint

TIER = "tier-1"
LOGS = Path("logs")
CHECKPOINT = Path("checkpoints") / f"{TIER}.npz"
CURVES = Path("plots/training.png")


def train(params: Params) -> None:
    """Train the tier; raise :class:`StageError` for unusable shards and for a loss that is not a number."""
    started = time.monotonic()
    try:
        splits = {split: Shards(SHARDS / split) for split in ("train", "valid")}
        description = _description(params, splits["train"])
        keras.utils.set_random_seed(params.train.seed)
        tier = build_tier(params.model, TIER, params.mel.n_mels)
        progress = Progress(CHECKPOINT, fingerprint("train", [params.model, params.train]))
        slices = len(splits["train"])
        steps = steps_per_epoch(slices, params.train.batch_size)
        print(
            f"{TIER}: {tier.count_params():,} weights, {slices} slices, {params.train.epochs} epochs "
            f"of {steps} steps; compiling takes up to a minute",
            flush=True,
        )
        if progress.history:
            print(f"continuing after epoch {len(progress.history)}", flush=True)
        fit(
            tier,
            **splits,
            normalisation=description.normalisation,
            settings=params.train,
            progress=progress,
            callbacks=_logs(progress),
        )
    except (ShardError, TrainingDiverged) as error:
        raise StageError(str(error)) from error
    save_model(MODELS, description, {TIER: tier})
    _write_metrics(progress)
    progress.forget()
    print(
        f"{MODELS}: validation loss {progress.best_epoch['val_loss']:.4f} nats per element in epoch "
        f"{progress.best_epoch['epoch']}; {time.monotonic() - started:.0f} s"
    )


def _description(params: Params, shards: Shards) -> Description:
    settings = shards.settings
    return Description(
        sample_rate=settings.sample_rate,
        mel=settings.mel,
        model=params.model,
        frames=settings.frames,
        normalisation=Normalisation.read(SHARDS / "normalisation.json"),
    )


def _logs(progress: Progress) -> list[keras.callbacks.Callback]:
    """Live logs, continued where a training is; they carry times, so they are no outputs of the stage."""
    live = Live(str(LOGS / "dvclive"), resume=bool(progress.history), save_dvc_exp=False, dvcyaml=None, report=None)
    return [
        DVCLiveCallback(live=live),
        keras.callbacks.TensorBoard(str(LOGS / "tensorboard"), write_graph=False),
    ]


def _write_metrics(progress: Progress) -> None:
    best, history = progress.best_epoch, pd.DataFrame(progress.history)
    write_json(
        METRICS / "train.json", {"best_epoch": best["epoch"], "loss": best["loss"], "val_loss": best["val_loss"]}
    )
    with written(METRICS / "history.csv") as temporary:
        history.to_csv(temporary, index=False, lineterminator="\n")
    save(curves({str(name): column.tolist() for name, column in history.items()}), CURVES)


if __name__ == "__main__":
    main(train, __doc__)
