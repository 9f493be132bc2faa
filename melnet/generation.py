"""Generation: spectrograms sampled from a model, and the audio made of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from melnet.audio.crossfade import crossfade
from melnet.audio.griffin_lim import mel_to_audio
from melnet.audio.mel import MelSpec
from melnet.data.dataset import ids_of
from melnet.model.tier import Tier
from melnet.prime import Prime
from melnet.sampling import Sampler
from melnet.saved import ModelConfig

JOINT_FRAMES = 8  # last frames of a prime that are turned into audio again, together with the sample that follows


@dataclass(frozen=True)
class GenerationConfig:
    """How many spectrograms are sampled, and how.

    >>> GenerationConfig(count=16, frames=200).temperature
    1.0
    """

    count: int
    """spectrograms that become audio"""
    frames: int
    """of each"""
    measured: int = 0
    """spectrograms that are drawn at least; those beyond ``count`` only serve to measure the model"""
    temperature: float = 1.0
    """see :func:`melnet.model.mixture.sample`"""
    top_components: int | None = None
    """draw from so many of the heaviest Gaussians only; None: from all"""
    seed: int = 1
    griffin_lim_iterations: int = 32

    @property
    def drawn(self) -> int:
        """Number of spectrograms in all."""
        return max(self.count, self.measured)


Invert = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""log-mel (items, frames, bands) and singer ids (items,) -> audio (items, (frames - 1) * hop_length)"""


def griffin_lim(mel: MelSpec, generation: GenerationConfig) -> Invert:
    """The inversion that needs no training; singers make no difference to it."""
    return lambda log_mels, _: mel_to_audio(log_mels, mel, generation.griffin_lim_iterations, generation.seed)


@dataclass(frozen=True)
class Generated:
    """Samples of a model."""

    drawn: np.ndarray
    """(drawn, frames, bands), natural log of mel power; the first ``count`` of them became audio"""
    drawn_singer_ids: np.ndarray
    """(drawn,)"""
    audio: np.ndarray
    """(count, samples), not limited to ±1"""
    joined: list[np.ndarray]
    """the prime and each sample as one signal; empty without a prime"""

    @property
    def log_mels(self) -> np.ndarray:
        """Spectrograms of the audio, (count, frames, bands)."""
        return self.drawn[: len(self.audio)]

    @property
    def singer_ids(self) -> np.ndarray:
        """Singer ids of the audio, (count,)."""
        return self.drawn_singer_ids[: len(self.audio)]


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
    floor = normalisation.normalise(np.full_like(normalisation.low, config.mel.log_floor))
    return Sampler(tiers, low, high, generation.temperature, generation.top_components, floor)


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
    singers : (drawn,)
        Singer ids, see :func:`singer_ids`.
    prime
        A recording whose end every sample continues.
    on_frame
        See :meth:`melnet.sampling.Sampler.sample`.
    """
    normalisation = config.normalisation
    sampled = sampler.sample(
        generation.drawn,
        generation.frames,
        generation.seed,
        singers=singers,
        prime=None if prime is None else normalisation.normalise(prime.log_mel),
        on_frame=on_frame,
    )
    drawn = normalisation.denormalise(sampled)
    log_mels, audible = drawn[: generation.count], singers[: generation.count]
    joined = _joined(log_mels, audible, config.mel, invert, prime) if prime else []
    return Generated(drawn, singers, invert(log_mels, audible), joined)


def _joined(log_mels: np.ndarray, singers: np.ndarray, mel: MelSpec, invert: Invert, prime: Prime) -> list[np.ndarray]:
    """The prime followed by each sample, crossfaded where the audio of the sample begins."""
    end = prime.log_mel[-JOINT_FRAMES:]
    with_end = np.concatenate([np.broadcast_to(end, (len(log_mels), *end.shape)), log_mels], axis=1)
    # The last frame of the prime is centred on its last sample, which is so many hops after the first sample made here.
    overlap = (len(end) - 1) * mel.hop_length
    fade = min(2 * mel.hop_length, overlap // 2)
    signals = invert(with_end, singers)
    return [crossfade(prime.signal, signal, overlap=overlap, fade=fade) for signal in signals]
