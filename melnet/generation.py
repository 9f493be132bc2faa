"""Generation: spectrograms sampled from a model, the audio made of them, and how far both are from recordings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from melnet.audio.crossfade import crossfade
from melnet.audio.griffin_lim import mel_to_audio
from melnet.audio.mel import MelSpec
from melnet.audio.pitch import FRAME_SECONDS, pitch_of
from melnet.audio.spectrogram import log_mel, log_mel_error
from melnet.audio.voice_metrics import voice_statistics
from melnet.baselines import Baselines
from melnet.data.dataset import batches, ids_of, passages, stretches
from melnet.data.shards import Shards
from melnet.metrics import FrameStatistics, Gaussian, frame_statistics, frechet_distance
from melnet.model.tier import Tier
from melnet.prime import Prime
from melnet.sampling import Sampler
from melnet.saved import ModelConfig

JOINT_FRAMES = 8  # last frames of a prime that are turned into audio again, together with the sample that follows


@dataclass(frozen=True)
class GenerationConfig:
    """What is sampled.

    >>> GenerationConfig(count=16, frames=200).temperature
    1.0
    """

    count: int
    """spectrograms"""
    frames: int
    """of each"""
    temperature: float = 1.0
    """see :func:`melnet.model.mixture.sample`"""
    top_components: int | None = None
    """draw from so many of the heaviest Gaussians only; None: from all"""
    seed: int = 1
    griffin_lim_iterations: int = 32


Invert = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""log-mel (items, frames, bands) and singer ids (items,) -> audio (items, (frames - 1) * hop_length)"""


def griffin_lim(mel: MelSpec, generation: GenerationConfig) -> Invert:
    """The inversion that needs no training; singers make no difference to it."""
    return lambda log_mels, _: mel_to_audio(log_mels, mel, generation.griffin_lim_iterations, generation.seed)


@dataclass(frozen=True)
class Generated:
    """Samples of a model."""

    log_mels: np.ndarray
    """(count, frames, bands), natural log of mel power"""
    singer_ids: np.ndarray
    """(count,)"""
    audio: np.ndarray
    """(count, samples), not limited to ±1"""
    joined: list[np.ndarray]
    """the prime and each sample as one signal; empty without a prime"""


def singer_ids(names: Sequence[str], known: Sequence[str], count: int) -> np.ndarray:
    """Singer ids of ``count`` samples, which take turns; (count,) int32.

    Parameters
    ----------
    names
        Singers in the order of their turns; none: all that the model knows.
    known
        Names in the order of the singer ids; none: a model without singers, whose ids are 0.

    Raises
    ------
    KeyError
        A name that the model does not know.

    >>> singer_ids(["bo", "anna"], known=["anna", "bo"], count=3).tolist()
    [1, 0, 1]
    """
    return np.resize(ids_of(names or known, known) if known else [0], count).astype(np.int32)


def sampler(config: ModelConfig, tiers: Sequence[Tier], generation: GenerationConfig) -> Sampler:
    """A sampler whose values stay in the range of each band in the train split."""
    normalisation = config.normalisation
    low, high = normalisation.normalise(normalisation.low), normalisation.normalise(normalisation.high)
    return Sampler(tiers, low, high, generation.temperature, generation.top_components)


def generate(
    config: ModelConfig,
    sampler: Sampler,
    generation: GenerationConfig,
    invert: Invert,
    singers: np.ndarray,
    prime: Prime | None = None,
    on_frame: Callable[[], object] | None = None,
) -> Generated:
    """Sample spectrograms and turn them into audio.

    Parameters
    ----------
    invert
        :func:`griffin_lim`, or a vocoder.
    singers : (count,)
        Singer ids, see :func:`singer_ids`.
    prime
        A recording whose end every sample continues.
    on_frame
        See :meth:`melnet.sampling.Sampler.sample`.
    """
    normalisation = config.normalisation
    sampled = sampler.sample(
        generation.count,
        generation.frames,
        generation.seed,
        singers=singers,
        prime=None if prime is None else normalisation.normalise(prime.log_mel),
        on_frame=on_frame,
    )
    log_mels = normalisation.denormalise(sampled)
    joined = _joined(log_mels, singers, config.mel, invert, prime) if prime else []
    return Generated(log_mels, singers, invert(log_mels, singers), joined)


def _joined(log_mels: np.ndarray, singers: np.ndarray, mel: MelSpec, invert: Invert, prime: Prime) -> list[np.ndarray]:
    """The prime followed by each sample, crossfaded where the audio of the sample begins."""
    end = prime.log_mel[-JOINT_FRAMES:]
    with_end = np.concatenate([np.broadcast_to(end, (len(log_mels), *end.shape)), log_mels], axis=1)
    # The last frame of the prime is centred on its last sample, which is so many hops after the first sample made here.
    overlap = (len(end) - 1) * mel.hop_length
    fade = min(2 * mel.hop_length, overlap // 2)
    signals = invert(with_end, singers)
    return [crossfade(prime.signal, signal, overlap=overlap, fade=fade) for signal in signals]


def measure(
    config: ModelConfig,
    generation: GenerationConfig,
    generated: Generated,
    invert: Invert,
    baselines: Baselines,
    train: Shards,
    test: Shards,
    tracks: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Metrics of samples beside the test split, as ``metrics/generate.json`` holds them (docs/formats.md).

    Parameters
    ----------
    tracks
        Pitch tracks of the recordings by their names, see :mod:`melnet.audio.pitch`.
    """
    sampled = config.normalisation.normalise(generated.log_mels)
    reference, by_singer = recorded_statistics(config, test)
    band_samples = baselines.band.sample(sampled.shape[:2], np.random.default_rng(0))
    metrics: dict[str, Any] = {
        "frechet": frechet_distance(frame_statistics(sampled), reference),
        "frechet_train": frechet_distance(recorded_statistics(config, train)[0], reference),
        "frechet_band_baseline": frechet_distance(frame_statistics(band_samples), reference),
    }
    if config.singers:
        metrics["frechet_by_singer"] = frechet_by_singer(config.singers, sampled, generated.singer_ids, by_singer)
    found = passages(test, generation.count, generation.frames)
    recorded = np.stack([passage.log_mel for passage in found])
    copies = invert(recorded, ids_of([passage.singer for passage in found], config.singers))
    metrics["log_mel_error_copy"] = _inversion_error(recorded, copies, config.mel)
    metrics["log_mel_error_generated"] = _inversion_error(generated.log_mels, generated.audio, config.mel)
    sung = [pitch_of(signal, config.mel.sample_rate) for signal in generated.audio]
    for name, voices in (("voice", sung), ("voice_recorded", split_tracks(test, tracks))):
        statistics = asdict(voice_statistics(voices))
        metrics[name] = {key: value for key, value in statistics.items() if value is not None}
    return metrics


def split_tracks(shards: Shards, tracks: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The parts of pitch tracks that belong to the slices of a split, one for each run of neighbouring slices."""
    seconds = shards.spec.mel.seconds_per_frame
    spans = [
        (stretch.recording, stretch.first * seconds, (stretch.first + stretch.frames) * seconds)
        for stretch in stretches(shards)
    ]
    return [tracks[name][round(start / FRAME_SECONDS) : round(stop / FRAME_SECONDS)] for name, start, stop in spans]


def frechet_by_singer(
    names: Sequence[str], sampled: np.ndarray, singer_ids: np.ndarray, recorded: dict[int, Gaussian]
) -> dict[str, dict[str, float]]:
    """Fréchet distance of the samples of each singer from the recordings of each, by the names of both.

    Parameters
    ----------
    sampled : (count, frames, bands)
        Normalised log-mel.
    recorded
        See :func:`recorded_statistics`.
    """
    return {
        names[sung]: {
            names[other]: frechet_distance(frame_statistics(sampled[singer_ids == sung]), recordings)
            for other, recordings in sorted(recorded.items())
        }
        for sung in np.unique(singer_ids).tolist()
    }


def recorded_statistics(config: ModelConfig, *splits: Shards) -> tuple[Gaussian, dict[int, Gaussian]]:
    """Statistics of the frames of some splits together, and of those of each singer by singer id."""
    whole = FrameStatistics(config.mel.n_mels)
    by_singer: dict[int, FrameStatistics] = {}
    for batch in (batch for split in splits for batch in batches(split, config.normalisation, 512, config.singers)):
        x, singers = batch.x[batch.weights > 0], batch.singers[batch.weights > 0]
        whole.update(x)
        for singer_id in np.unique(singers).tolist() if config.singers else []:
            by_singer.setdefault(singer_id, FrameStatistics(config.mel.n_mels)).update(x[singers == singer_id])
    return whole.gaussian(), {singer_id: found.gaussian() for singer_id, found in by_singer.items()}


def _inversion_error(log_mels: np.ndarray, audio: np.ndarray, mel: MelSpec) -> float:
    """Mean absolute difference in nats between log-mels and those of the audio made from them."""
    return log_mel_error(np.stack([log_mel(signal, mel) for signal in audio]), log_mels)
