"""Train the vocoder on the train split's recordings: models/vocoder.json, its weights, and metrics/vocoder.json.

Two networks learn one after the other: to read the pitch off the log-mel spectrogram, and to set the spectral envelopes
of pulses at that pitch and of noise. vocoder.pitch_steps and vocoder.envelope_steps are their budgets. An interrupted
training continues from its last finished epoch of 100 steps. metrics/history/vocoder-*.csv have the losses of every
epoch; the stage plots draws them.

metrics/vocoder.json has the copy synthesis of passages of the test split, by the vocoder and by Griffin-Lim: how much
of voicing, pitch and spectrum survives (docs/formats.md). models/vocoder.json says which of the two does better on the
validation split by the error over all frequencies; generate.inversion: auto takes that one.
"""

import time

from melnet.audio.integrity import UnusableAudio
from melnet.data.atomic import write_json
from melnet.data.dataset import Normalisation, stretches
from melnet.data.pitch_tracks import PitchTracksError, read_pitch_tracks
from melnet.data.shards import ShardError, Shards
from melnet.data.split import SPLITS
from melnet.training.checkpoint import Checkpoint
from melnet.training.loop import TrainingDiverged
from melnet.vocoder.config import VocoderConfig
from melnet.vocoder.copy_synthesis import compare
from melnet.vocoder.corpus import Run, choose, read_runs
from melnet.vocoder.networks import FrameNetwork
from melnet.vocoder.saved import GRIFFIN_LIM, VOCODER, Inversion, save_vocoder, settings_path
from melnet.vocoder.synthesis import Vocoder
from melnet.vocoder.training import NETWORKS, fit, prepare
from stages.command import StageError, main
from stages.corpus.manifest import read_manifest
from stages.corpus.singers import known_singers
from stages.epoch_progress import EpochProgress
from stages.execution.gpus import keras_device
from stages.fingerprint import fingerprint
from stages.parameters import Params
from stages.paths import CHECKPOINTS, CLEAN, METRICS, MODELS, PITCH, SHARDS

MEASURED_MINUTES = 2.0  # of each split


def vocoder(params: Params) -> None:
    """Train; raise :class:`StageError` for unusable shards, recordings or pitch, and a loss that is not a number."""
    started, device = time.monotonic(), keras_device()
    try:
        shards = {split: Shards(SHARDS / split) for split in SPLITS}
        mel = shards["train"].spec.mel
        config = VocoderConfig(
            mel,
            Normalisation.read(SHARDS / "normalisation.json"),
            known_singers(params.model),
            params.vocoder.hidden,
            params.vocoder.blocks,
        )
        runs = _runs(config, shards, params)
        trained = [_train(name, config, runs, params, device) for name in NETWORKS]
    except (ShardError, UnusableAudio, PitchTracksError, TrainingDiverged) as error:
        raise StageError(str(error)) from error
    networks = [network for network, _ in trained]
    found = Vocoder(config, *networks)
    measured = {split: compare(found, runs[split], params.vocoder.seed) for split in ("valid", "test")}
    errors = {name: values["full_band_error"] for name, values in measured["valid"].items()}
    preferred: Inversion = VOCODER if errors[VOCODER] < errors[GRIFFIN_LIM] else GRIFFIN_LIM
    save_vocoder(MODELS, found, preferred)
    write_json(METRICS / "vocoder.json", measured)
    for _, checkpoint in trained:
        checkpoint.delete()
    own, other = (measured["test"][name] for name in (VOCODER, GRIFFIN_LIM))
    print(
        f"{settings_path(MODELS)}: preferred {preferred}; copy synthesis of the test split, error over all frequencies "
        f"{own['full_band_error']:.2f} nats (Griffin-Lim {other['full_band_error']:.2f}), voicing right in "
        f"{own['voicing_accuracy']:.0%} of the frames ({other['voicing_accuracy']:.0%}); "
        f"{time.monotonic() - started:.0f} s"
    )


def _runs(config: VocoderConfig, shards: dict[str, Shards], params: Params) -> dict[str, list[Run]]:
    """Recordings of each split in memory: to train on, and passages to validate and test with."""
    files = {row["path"]: CLEAN / row["output"] for row in read_manifest(CLEAN) if row["status"] == "ok"}
    tracks = read_pitch_tracks(PITCH)

    limits = {"train": params.vocoder.max_minutes, "valid": MEASURED_MINUTES, "test": MEASURED_MINUTES}
    return {
        split: read_runs(
            choose(stretches(shards[split]), config.mel, limits[split], params.vocoder.seed), config, files, tracks
        )
        for split in SPLITS
    }


def _train(
    name: str, config: VocoderConfig, runs: dict[str, list[Run]], params: Params, device: str
) -> tuple[FrameNetwork, Checkpoint]:
    """Train one of the two networks; its checkpoint stays until the whole vocoder is saved."""
    settings = params.vocoder
    steps = {"pitch": settings.pitch_steps, "envelopes": settings.envelope_steps}[name]
    label = f"vocoder-{name}"
    digest = f"{fingerprint('vocoder', [settings])} {', '.join(config.singers)}"
    checkpoint = Checkpoint(CHECKPOINTS / f"{label}.npz", digest, metric="loss")
    training = prepare(name, config, runs["train"], runs["valid"], settings.seed)
    minutes = sum(len(run.log_mel) for run in runs["train"]) * config.mel.seconds_per_frame / 60
    print(
        f"{label}: {training.model.network.count_params():,} weights, {minutes:.1f} min, {steps} steps, {device}; "
        "compiling takes up to a minute",
        flush=True,
    )
    if checkpoint.history:
        print(f"continuing after epoch {len(checkpoint.history)}", flush=True)
    fit(training, steps, settings.seed, checkpoint, [EpochProgress(label, "loss")])
    checkpoint.write_history(METRICS / "history" / f"{label}.csv")
    return training.model.network, checkpoint


if __name__ == "__main__":
    main(vocoder, __doc__)
