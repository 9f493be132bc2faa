"""Train the tiers of MelNet on data/shards, one or all: models/TIER.weights.h5 and metrics/train/TIER.json.

RMSprop, its learning rate halved every train.lr_halving_epochs epochs, minimises the negative log-likelihood of the
normalised log-mel in nats per element. An epoch has train.windows_per_epoch windows, which begin at random frames of
the recordings; the epoch with the lowest validation loss is kept. Training ends after train.epochs epochs, or earlier
after train.patience epochs without a lower validation loss. Tiers are independent and may be trained at the same time.
An interrupted training continues from its last finished epoch, unless something that it depends on has changed. While
it runs, logs/TIER/tensorboard (tensorboard --logdir logs) and logs/TIER/dvclive show the losses.
metrics/history/TIER.csv has them for every epoch; the stage plots draws them. Every execution.preview_every epochs the
tier sings: logs/TIER/previews/index.html.

With train.initial_model the weights of another model of the same shape are the start (melnet/training/initial.py).

All visible GPUs (CUDA_VISIBLE_DEVICES) are used, each for a part of every batch; with execution.coordinator also those
of other processes and hosts (docs/distributed.md). A GPU that Keras does not see ends the training (docs/gpu.md).
"""

import argparse
import time
from pathlib import Path

import keras
from tabulate import tabulate

from melnet.data.atomic import write_json
from melnet.data.dataset import Normalisation, ProcessShard, UnknownSinger, WindowTooLong
from melnet.data.shards import ShardError, Shards
from melnet.data.texts import TextsError
from melnet.data.tracks import TracksError
from melnet.saved import (
    ModelConfig,
    ModelError,
    TierConfig,
    build_tier,
    load_config,
    read_texts,
    read_tracks,
    save_tier,
    tier_config_path,
)
from melnet.training import devices
from melnet.training.checkpoint import Checkpoint, finished_epochs
from melnet.training.cost import Cost, costs
from melnet.training.fit import TrainConfig, TrainingData, fit
from melnet.training.initial import start_from
from melnet.training.loop import TrainingDiverged
from stages.command import StageError, main
from stages.epoch_progress import EpochProgress
from stages.execution.gpus import device_memory, keras_device
from stages.fingerprint import fingerprint
from stages.parameters import Params
from stages.paths import CHECKPOINTS, METRICS, MODELS, SHARDS, TRACKS

LOGS = Path("logs")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this stage: the tier, and whether to describe the model instead of training it."""
    parser.add_argument("tier", nargs="?", help="tier-1, tier-2, ...; all of model.tiers if none is named")
    parser.add_argument(
        "--describe",
        action="store_true",
        help="print the shape, weights, memory and work per step of each tier in params.yaml, and train nothing",
    )
    parser.add_argument(
        "--memory",
        type=float,
        metavar="GIB",
        help="with --describe: the memory that train.accumulate is to fit; by default the GPU's, or this machine's",
    )


def train(params: Params, tier: str | None = None, describe: bool = False, memory: float | None = None) -> None:
    """Train; raise :class:`StageError` for an unknown tier, unusable shards or windows, and a loss that is NaN."""
    tiers = params.model.tier_names
    if tier is not None and tier not in tiers:
        raise StageError(f"{tier!r} is no tier of model.tiers: {', '.join(tiers)}")
    if describe:
        print(_described(params, device_memory() if memory is None else memory * 2**30))
        return
    try:
        config = load_config(MODELS)
        if config.tiers != tiers:
            raise StageError(f"{MODELS / 'melnet.json'} has {', '.join(config.tiers)}; run the stage model again")
        _train_tiers(params, config, tiers if tier is None else [tier])
    except WindowTooLong as error:
        raise StageError(f"train.window_frames: {error}") from error
    except (ShardError, ModelError, TextsError, TracksError, TrainingDiverged, UnknownSinger) as error:
        raise StageError(str(error)) from error


def _train_tiers(params: Params, config: ModelConfig, names: list[str]) -> None:
    """Alone, or as one of the processes that train together."""
    from stages.execution import distributed  # here, since no result depends on it, and so no stage does

    launch = distributed.launch(params.execution)
    if launch is None:
        for name in names:
            _train_tier(params, config, name)
        return
    backend = keras.backend.backend()
    if backend != "jax":
        raise StageError(f"execution.coordinator: several processes train under KERAS_BACKEND=jax, not {backend}")
    if launch.processes:
        _check_batch_size(params, launch.processes, f"{launch.processes} processes")
    fingerprints = {name: _fingerprint(params, name) for name in names}
    epochs = [finished_epochs(_checkpoint(name), fingerprint) for name, fingerprint in fingerprints.items()]
    agreed = {
        "list of tiers": ", ".join(names),
        "digest of settings, code, data and libraries": ", ".join(digest[:12] for digest in fingerprints.values()),
        f"number of finished epochs in {CHECKPOINTS}": ", ".join(map(str, epochs)),
    }
    with distributed.joined(launch, agreed) as (index, count):
        for name in names:
            _train_tier(params, config, name, ProcessShard(index, count))


def _checkpoint(name: str) -> Path:
    return CHECKPOINTS / f"{name}.npz"


def _fingerprint(params: Params, name: str) -> str:
    return fingerprint("train", [params.model.tiers[name], params.train], _initial_files(params, name))


def _initial_files(params: Params, name: str) -> list[Path]:
    """The file of the initial model that has the hashes of the others."""
    folder = params.train.initial_folder
    if folder is None:
        return []
    if folder.resolve() == MODELS.resolve():
        raise StageError(f"train.initial_model: {folder} is where training writes; copy it, and name the copy")
    path = tier_config_path(folder, name)
    if not path.is_file():
        raise StageError(f"train.initial_model: {path}: no such file; a folder like {MODELS} is needed")
    return [path]


def _check_batch_size(params: Params, parts: int, of_what: str) -> None:
    if rest := params.train.batch_size % parts:
        below = params.train.batch_size - rest
        nearest = f"{below} or {below + parts}" if below else f"{parts}"
        raise StageError(
            f"train.batch_size: {params.train.batch_size} slices cannot be divided evenly between {of_what}; "
            f"the nearest: {nearest}"
        )


def _train_tier(params: Params, config: ModelConfig, name: str, shard: ProcessShard = ProcessShard()) -> None:  # noqa: B008  # frozen
    started, device = time.monotonic(), keras_device()
    data = TrainingData(
        Shards(SHARDS / "train"),
        Shards(SHARDS / "valid"),
        config.normalisation,
        config.tier_index(name),
        config.singers,
        read_tracks(config, TRACKS),
        read_texts(config, TRACKS),
        shard,
    )
    settings = TrainConfig(**params.train.schedule)
    tier_config = TierConfig(**params.model.tiers[name].model_dump())
    count, micro_batches = devices.device_count(), settings.accumulate
    together = f" in {micro_batches} micro-batches" if micro_batches > 1 else ""
    _check_batch_size(params, count * micro_batches, f"{count} devices{together}")
    first = shard.index == 0  # the only process that writes files and messages
    checkpoint = Checkpoint(_checkpoint(name), _fingerprint(params, name), saves=first)
    previews = _previews(params, config, name, tier_config, checkpoint) if first else []
    with devices.on_all_devices():
        tier = build_tier(
            config,
            name,
            tier_config,
            recompute=settings.recompute,
            precision=settings.precision,
            seed=settings.seed,
        )
        start = _start(params, config, name, tier)
        if first:
            _announce(name, tier, data, settings, count, device)
            print(start, end="", flush=True)
            if tier.reader and settings.alignment_steps and not checkpoint.history:
                print(f"{name}: learns to read its texts in {settings.alignment_steps} steps first", flush=True)
            if checkpoint.history:
                print(f"continuing after epoch {len(checkpoint.history)}", flush=True)
        progress = EpochProgress(name, may_stop_early=settings.patience is not None)
        callbacks = [*_logs(LOGS / name, checkpoint), progress, *previews] if first else []
        fit(tier, data, settings, checkpoint, callbacks)
    if not first:
        return
    save_tier(MODELS, config, name, tier_config, tier)
    metrics = {**checkpoint.metrics(settings.epochs), "device": device}
    write_json(METRICS / "train" / f"{name}.json", metrics)
    checkpoint.write_history(METRICS / "history" / f"{name}.csv")
    checkpoint.delete()
    stopped = f" of {metrics['epochs']}, the last {settings.patience} without a lower one"
    print(
        f"{MODELS}: {name}, validation loss {metrics['val_loss']:.4f} nats per element in epoch {metrics['best_epoch']}"
        f"{stopped if metrics['stopped_early'] else ''}; {time.monotonic() - started:.0f} s"
    )


def _announce(name: str, tier: keras.Model, data: TrainingData, settings: TrainConfig, count: int, device: str) -> None:
    minutes = data.windows(settings).available_frames * data.train.spec.mel.seconds_per_frame / 60
    print(
        f"{name}: {tier.count_params():,} weights, windows of {settings.window_frames} frames from {minutes:.1f} min, "
        f"{settings.epochs} epochs of {settings.windows_per_epoch} windows in {settings.steps_per_epoch} steps"
        f"{f' of {settings.accumulate} micro-batches' if settings.accumulate > 1 else ''}"
        f"{f' on {count} devices' if count > 1 else ''}, {device}; compiling takes up to a minute",
        flush=True,
    )


def _logs(folder: Path, checkpoint: Checkpoint) -> list[keras.callbacks.Callback]:
    """Live logs, continued where a training is. They hold times, so they are not outputs of the stage."""
    # Here, since they import TensorFlow: under JAX that costs seconds and memory in processes that write nothing.
    from dvclive import Live
    from dvclive.keras import DVCLiveCallback

    devices.keep_gpus_for_keras()
    live = Live(str(folder / "dvclive"), resume=bool(checkpoint.history), save_dvc_exp=False, dvcyaml=None, report=None)
    return [DVCLiveCallback(live=live), keras.callbacks.TensorBoard(str(folder / "tensorboard"), write_graph=False)]


def _start(params: Params, config: ModelConfig, name: str, tier: keras.Model) -> str:
    """Set a new tier to the weights of the initial model; a line that says so, empty if there is none."""
    folder = params.train.initial_folder
    if folder is None:
        return ""
    try:
        new = start_from(folder, tier, config, name)
    except ModelError as error:
        raise StageError(f"train.initial_model: {error}") from error
    singers = f"; new singers: {', '.join(new)}" if new else ""
    return f"starting from the weights of {folder}{singers}\n"


def _previews(
    params: Params, config: ModelConfig, name: str, tier_config: TierConfig, checkpoint: Checkpoint
) -> list[keras.callbacks.Callback]:
    """The callback that sings now and then, if it is wanted."""
    from stages.preview import Previews, remove_previews  # here, since only one of several processes needs it

    logs, every = LOGS / name, params.execution.preview_every
    if not checkpoint.history:
        remove_previews(logs)
    if every is None:
        return []
    return [Previews(name, config, tier_config, checkpoint, logs, params.generate, every)]


def model_costs(params: Params) -> dict[str, Cost]:
    """What training each tier of the model takes; with singers, for two of them."""
    config = ModelConfig(
        mel=params.mel_spec,
        frames=params.train.window_frames,
        tiers=params.model.tier_names,
        singers=["first", "second"] if "singer" in params.model.conditions else [],
        normalisation=Normalisation.identity(params.mel.n_mels),
        **params.model.model_dump(include={"cell", "num_components", "min_sigma"}),
    )
    tiers = {name: TierConfig(**tier.model_dump()) for name, tier in params.model.tiers.items()}
    return costs(config, tiers, params.train.batch_size, params.train.recompute, params.train.accumulate)


def _described(params: Params, memory: float) -> str:
    """A table of :func:`model_costs`, with the micro-batches that fit so many bytes and a line for all tiers."""
    found = model_costs(params)
    rows = [
        [
            name,
            f"{tier.shape.frames} x {tier.shape.bands}",
            f"{tier.layers} + {tier.feature_layers}" if tier.feature_layers else f"{tier.layers}",
            f"{tier.hidden}",
            f"{tier.weights:,}",
            f"{tier.peak / 2**30:.1f} GiB",
            f"{tier.flop / 1e9:,.0f} GFLOP",
            tier.fewest_micro_batches(memory) or "does not fit",
        ]
        for name, tier in found.items()
    ]
    if len(found) > 1:
        whole = f"{params.train.window_frames} x {params.mel.n_mels}"
        weights, flop = (sum(getattr(tier, name) for tier in found.values()) for name in ("weights", "flop"))
        most = f"{max(tier.peak for tier in found.values()) / 2**30:.1f} GiB at most"
        fewest = [tier.fewest_micro_batches(memory) for tier in found.values()]
        largest = "does not fit" if None in fewest else max(count for count in fewest if count is not None)
        rows.append(["all", whole, "", "", f"{weights:,}", most, f"{flop / 1e9:,.0f} GFLOP", largest])
    headers = ["tier", "frames x bands", "layers", "hidden", "weights", "memory of training", "work per step"]
    headers.append(f"train.accumulate for {memory / 2**30:.1f} GiB")
    return tabulate(rows, headers, tablefmt="plain", disable_numparse=True)


if __name__ == "__main__":
    main(train, __doc__, arguments)
