"""Generation: spectrograms sampled from a model, and the audio made of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from melnet.audio.crossfade import crossfade
from melnet.audio.mel import MelSpec
from melnet.data.dataset import Passage
from melnet.data.tracks import Tracks
from melnet.prime import Prime
from melnet.sampling import DEFAULT_TEMPERATURE, OnFrame
from melnet.score import Score, with_loudness_of
from melnet.singing import Invert, Model, Text

JOINT_FRAMES = 8  # last frames of a prime that are turned into audio again, together with the sample that follows


@dataclass(frozen=True)
class GenerationConfig:
    """How many spectrograms are sampled, and how.

    >>> GenerationConfig(count=16, frames=200).temperature
    0.9
    """

    count: int
    """spectrograms that become audio"""
    frames: int
    """of each"""
    measured: int = 0
    """spectrograms that are drawn at least; those beyond ``count`` only serve to measure the model"""
    temperature: float = DEFAULT_TEMPERATURE
    """see :func:`melnet.model.mixture.sample`"""
    top_components: int | None = None
    """draw from so many of the heaviest Gaussians only; None: from all"""
    seed: int = 1

    @property
    def drawn(self) -> int:
        """Number of spectrograms in all."""
        return max(self.count, self.measured)


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


def generate(
    model: Model,
    generation: GenerationConfig,
    invert: Invert,
    singers: Sequence[str] = (),
    prime: Prime | None = None,
    on_frame: OnFrame = lambda: None,
) -> Generated:
    """Sample spectrograms and turn them into audio.

    Parameters
    ----------
    invert
        See :meth:`melnet.singing.Model.inverter`.
    singers
        Names of the singers, who take turns; none: all that the model knows.
    prime
        A recording whose end every sample continues.
    on_frame
        See :meth:`melnet.singing.Model.sample`.

    Raises
    ------
    UnknownSinger
        The model does not know a singer.
    """
    singer_ids = model.singer_ids(singers, generation.drawn)
    drawn = model.sample(
        generation.frames,
        count=generation.drawn,
        temperature=generation.temperature,
        top_components=generation.top_components,
        seed=generation.seed,
        singer=singers,
        prime=prime,
        on_frame=on_frame,
    )
    log_mels, audible = drawn[: generation.count], singer_ids[: generation.count]
    joined = _joined(log_mels, audible, model.config.mel, invert, prime) if prime else []
    return Generated(drawn, singer_ids, invert(log_mels, audible), joined)


def sing_score(
    model: Model,
    generation: GenerationConfig,
    invert: Invert,
    scores: Sequence[Score],
    singers: Sequence[str] = (),
    on_frame: OnFrame = lambda: None,
) -> Generated:
    """Sing scores, one sample of each; parameters as in :func:`generate`.

    Raises
    ------
    melnet.score.ScoreError
        The model is told nothing of the frames.
    UnknownSinger
        The model does not know a singer.
    """
    frames = max(score.frames for score in scores)
    drawn = model.sample(
        frames,
        count=len(scores),
        temperature=generation.temperature,
        top_components=generation.top_components,
        seed=generation.seed,
        singer=singers,
        score=scores,
        on_frame=on_frame,
    )
    singer_ids = model.singer_ids(singers, len(scores))
    melody = model.tracks(scores, len(scores)).melody
    audio = with_loudness_of(scores, invert(drawn, singer_ids, melody), model.config.mel)
    return Generated(drawn, singer_ids, audio, [])


def sing_texts(
    model: Model,
    generation: GenerationConfig,
    invert: Invert,
    texts: Text,
    count: int,
    singers: Sequence[str] = (),
) -> Generated:
    """Sing texts, which ``count`` samples take in turn; other parameters as in :func:`generate`.

    Raises
    ------
    melnet.data.texts.TextsError
        The model reads no texts, or does not know a symbol.
    UnknownSinger
        The model does not know a singer.
    """
    drawn = model.sample(
        count=count,
        temperature=generation.temperature,
        top_components=generation.top_components,
        seed=generation.seed,
        singer=singers,
        text=texts,
    )
    singer_ids = model.singer_ids(singers, count)
    audio = model.silenced(invert(drawn, singer_ids), model.read_frames(drawn, texts, singer=singers))
    return Generated(drawn, singer_ids, audio, [])


def passage_scores(found: Sequence[Passage], tracks: Tracks) -> list[Score]:
    """The scores of passages of recordings, each longer than its passage by the look-ahead of the tracks."""
    return [Score(tracks.window(item.recording, item.start_frame, len(item.log_mel))) for item in found]


def _joined(log_mels: np.ndarray, singers: np.ndarray, mel: MelSpec, invert: Invert, prime: Prime) -> list[np.ndarray]:
    """The prime followed by each sample, crossfaded where the audio of the sample begins."""
    end = prime.log_mel[-JOINT_FRAMES:]
    with_end = np.concatenate([np.broadcast_to(end, (len(log_mels), *end.shape)), log_mels], axis=1)
    # The last frame of the prime is centred on its last sample, which is so many hops after the first sample made here.
    overlap = (len(end) - 1) * mel.hop_length
    fade = min(2 * mel.hop_length, overlap // 2)
    signals = invert(with_end, singers)
    return [crossfade(prime.signal, signal, overlap=overlap, fade=fade) for signal in signals]
