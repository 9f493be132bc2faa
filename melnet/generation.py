"""Generation: spectrograms sampled from a model, the audio made of them, and how far both are from recordings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from melnet.audio.crossfade import crossfade
from melnet.audio.griffin_lim import mel_to_audio
from melnet.audio.mel import MelSpec
from melnet.audio.spectrogram import log_mel, log_mel_error
from melnet.baselines import Baselines
from melnet.data.dataset import batches, passages
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
    ids = {name: singer_id for singer_id, name in enumerate(known)}
    return np.resize([ids[name] for name in names or known] or [0], count).astype(np.int32)


def sampler(config: ModelConfig, tiers: Sequence[Tier], generation: GenerationConfig) -> Sampler:
    """A sampler whose values stay in the range of each band in the train split."""
    normalisation = config.normalisation
    low, high = normalisation.normalise(normalisation.low), normalisation.normalise(normalisation.high)
    return Sampler(tiers, low, high, generation.temperature, generation.top_components)


def generate(
    config: ModelConfig,
    sampler: Sampler,
    generation: GenerationConfig,
    singers: np.ndarray,
    prime: Prime | None = None,
    on_frame: Callable[[], object] | None = None,
) -> Generated:
    """Sample spectrograms and turn them into audio.

    Parameters
    ----------
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
    audio = _invert(log_mels, config.mel, generation)
    return Generated(log_mels, singers, audio, _joined(log_mels, config.mel, generation, prime) if prime else [])


def _invert(log_mels: np.ndarray, mel: MelSpec, generation: GenerationConfig) -> np.ndarray:
    return mel_to_audio(log_mels, mel, generation.griffin_lim_iterations, generation.seed)


def _joined(log_mels: np.ndarray, mel: MelSpec, generation: GenerationConfig, prime: Prime) -> list[np.ndarray]:
    """The prime followed by each sample, crossfaded where the audio of the sample begins."""
    end = prime.log_mel[-JOINT_FRAMES:]
    with_end = np.concatenate([np.broadcast_to(end, (len(log_mels), *end.shape)), log_mels], axis=1)
    # The last frame of the prime is centred on its last sample, which is so many hops after the first sample made here.
    overlap = (len(end) - 1) * mel.hop_length
    fade = min(2 * mel.hop_length, overlap // 2)
    signals = _invert(with_end, mel, generation)
    return [crossfade(prime.signal, signal, overlap=overlap, fade=fade) for signal in signals]


def measure(
    config: ModelConfig,
    generation: GenerationConfig,
    generated: Generated,
    baselines: Baselines,
    train: Shards,
    test: Shards,
) -> dict[str, Any]:
    """Metrics of samples beside the test split, as ``metrics/generate.json`` holds them (docs/formats.md)."""
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
    recorded = np.stack([passage.log_mel for passage in passages(test, generation.count, generation.frames)])
    metrics["log_mel_error_copy"] = _inversion_error(recorded, _invert(recorded, config.mel, generation), config.mel)
    metrics["log_mel_error_generated"] = _inversion_error(generated.log_mels, generated.audio, config.mel)
    return metrics


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
