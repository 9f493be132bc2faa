"""Train the tiers of MelNet on data/shards, one or all: models/TIER.weights.h5 and metrics/train/TIER.json.

RMSprop, its learning rate halved every train.halve_every epochs, minimises the negative log-likelihood of the
normalised log-mel in nats per element; the epoch with the lowest validation loss is kept. Tiers are independent and may
be trained at the same time. Training that was interrupted continues from its last finished epoch, unless something it
depends on has changed. While it runs, logs/TIER/tensorboard (tensorboard --logdir logs) and logs/TIER/dvclive show the
losses. metrics/history/TIER.csv has them for every epoch, plots/training/TIER.png as a picture.

All GPUs that are visible (CUDA_VISIBLE_DEVICES) are used, each for a part of every batch; with execution.coordinator
those of several processes and hosts (docs/distributed.md).
"""

import argparse
import time
from contextlib import nullcontext
from pathlib import Path

import keras
import pandas as pd

from melnet.data.atomic import written
from melnet.data.dataset import WHOLE, Share, UnknownSinger, steps_per_epoch
from melnet.data.shards import ShardError, Shards
from melnet.saved import Description, ModelError, build_tier, load_description, save_tier
from melnet.training.cost import table
from melnet.training.fit import Progress, TrainingDiverged, finished_epochs, fit
from stages.command import METRICS, MODELS, SHARDS, StageError, main, write_json
from stages.epoch_progress import EpochProgress
from stages.figures import curves, save
from stages.fingerprint import fingerprint
from stages.parameters import Params
from stages.parameters import Tier as TierSettings

LOGS = Path("logs")
CHECKPOINTS = Path("checkpoints")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Which tier, and whether to describe the model instead of training it."""
    parser.add_argument("tier", nargs="?", help="tier-1, tier-2, ...; all of model.tiers if none is named")
    parser.add_argument(
        "--describe",
        action="store_true",
        help="print each tier's shape, weights, memory and work per step for params.yaml, and train nothing",
    )


def train(params: Params, tier: str | None = None, describe: bool = False) -> None:
    """Train; raise :class:`StageError` for an unknown tier, unusable shards and a loss that is not a number."""
    tiers = params.model.tier_names
    if tier is not None and tier not in tiers:
        raise StageError(f"{tier!r} is no tier of model.tiers: {', '.join(tiers)}")
    if describe:
        print(table(params))
        return
    try:
        description = load_description(MODELS)
        if description.tiers != tiers:
            raise StageError(f"{MODELS / 'melnet.json'} has {', '.join(description.tiers)}; run the stage model again")
        _train_tiers(params, description, tiers if tier is None else [tier])
    except (ShardError, ModelError, TrainingDiverged, UnknownSinger) as error:
        raise StageError(str(error)) from error


def _train_tiers(params: Params, description: Description, names: list[str]) -> None:
    """Alone, or as one of the processes that train together."""
    from stages.execution import (
        distributed as processes,  # here, since results do not depend on it, and so no stage of the graph does
    )

    this = processes.processes(params.execution)
    if this is None:
        for name in names:
            _train_tier(params, description, name)
    elif processes.is_training():
        with processes.joined() as (index, count):
            for name in names:
                _train_tier(params, description, name, Share(index, count))
    else:
        if keras.backend.backend() != "jax":
            raise StageError(
                f"execution.coordinator: several processes train under KERAS_BACKEND=jax, not {keras.backend.backend()}"
            )
        _check_batch_size(params, this.count, "processes")
        states = {name: (_checkpoint(name), _fingerprint(params, name)) for name in names}
        agreed: dict[str, object] = {}
        for name, state in states.items():
            agreed[f"training of {name} (settings, code, data or libraries)"] = state[1][:12]
            agreed[f"number of finished epochs in {state[0]}"] = finished_epochs(*state)

        def where() -> str:
            for name, state in reversed(states.items()):
                if done := finished_epochs(*state):
                    now = f"in epoch {done + 1}" if done < params.train.epochs else "after the last epoch"
                    return f"{now} of {name}; the training goes on from epoch {done} when started again"
            return "before the end of the first epoch; the training starts afresh when started again"

        processes.watch(this, agreed, where)


def _checkpoint(name: str) -> Path:
    return CHECKPOINTS / f"{name}.npz"


def _fingerprint(params: Params, name: str) -> str:
    return fingerprint("train", [params.model.tiers[name], params.train])


def _check_batch_size(params: Params, parts: int, of_what: str) -> None:
    if rest := params.train.batch_size % parts:
        below = params.train.batch_size - rest
        nearest = f"{below} or {below + parts}" if below else f"{parts}"
        raise StageError(
            f"train.batch_size: {params.train.batch_size} slices cannot be divided evenly between {parts} {of_what}; "
            f"the nearest: {nearest}"
        )


def _train_tier(params: Params, description: Description, name: str, share: Share = WHOLE) -> None:
    from melnet.training import devices  # here, since results do not depend on how many there are

    started = time.monotonic()
    splits = {split: Shards(SHARDS / split) for split in ("train", "valid")}
    settings = params.model.tiers[name]
    count = devices.device_count()
    _check_batch_size(params, count, "devices")
    first = share.index == 0  # it alone writes and says anything
    progress = Progress(_checkpoint(name), _fingerprint(params, name), saves=first)
    with devices.on_all_devices() if count > 1 else nullcontext():
        keras.utils.set_random_seed(params.train.seed)
        tier = build_tier(description, name, settings, recompute=params.train.recompute)
        if first:
            steps = steps_per_epoch(len(splits["train"]), params.train.batch_size)
            print(
                f"{name}: {tier.count_params():,} weights, {len(splits['train'])} slices, {params.train.epochs} epochs "
                f"of {steps} steps{f' on {count} devices' if count > 1 else ''}; compiling takes up to a minute",
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
            callbacks=[*_logs(LOGS / name, progress), EpochProgress(name)] if first else [],
            place=description.place(name),
            singers=description.singers,
            devices=count,
            share=share,
        )
    if not first:
        return
    _save(description, name, settings, tier, progress)
    progress.forget()
    print(
        f"{MODELS}: {name}, validation loss {progress.best_epoch['val_loss']:.4f} nats per element in epoch "
        f"{progress.best_epoch['epoch']}; {time.monotonic() - started:.0f} s"
    )


def _logs(folder: Path, progress: Progress) -> list[keras.callbacks.Callback]:
    """Live logs, continued where a training is; they carry times, so they are no outputs of the stage."""
    # Here, since they import TensorFlow: seconds and memory that only the process that writes has a use for under JAX.
    from dvclive import Live
    from dvclive.keras import DVCLiveCallback

    live = Live(str(folder / "dvclive"), resume=bool(progress.history), save_dvc_exp=False, dvcyaml=None, report=None)
    return [DVCLiveCallback(live=live), keras.callbacks.TensorBoard(str(folder / "tensorboard"), write_graph=False)]


def _save(description: Description, name: str, settings: TierSettings, tier: keras.Model, progress: Progress) -> None:
    save_tier(MODELS, description, name, settings, tier)
    best, history = progress.best_epoch, pd.DataFrame(progress.history)
    kept = {"best_epoch": best["epoch"], "loss": best["loss"], "val_loss": best["val_loss"]}
    write_json(METRICS / "train" / f"{name}.json", kept)
    with written(METRICS / "history" / f"{name}.csv") as temporary:
        history.to_csv(temporary, index=False, lineterminator="\n")
    save(curves({str(column): history[column].tolist() for column in history}), Path(f"plots/training/{name}.png"))


if __name__ == "__main__":
    main(train, __doc__, arguments)
