"""A trained model, to sing with: spectrograms, audio, likelihoods, and audio without end.

Everything comes from one folder, ``models/`` of a finished run; see :mod:`melnet.saved` for its files.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
import soxr
from keras import ops

from melnet.audio.griffin_lim import mel_to_audio
from melnet.audio.integrity import UnusableAudio
from melnet.audio.spectrogram import log_mel
from melnet.backend import Tensor, compiled
from melnet.data.dataset import UnknownSinger, ids_of
from melnet.data.texts import TextsError
from melnet.data.tracks import CONDITIONS, FrameTracks
from melnet.likelihood import Likelihood
from melnet.model.multiscale import TierIndex, divisors, frame_rows, inputs_and_target
from melnet.model.precision import Precision
from melnet.model.tier import Inputs, Tier
from melnet.prime import PRIME_SECONDS, Prime, read_prime
from melnet.sampling import DEFAULT_TEMPERATURE, OnFrame, Sampler, SamplingSettings
from melnet.saved import ModelConfig
from melnet.saved import load as load_tiers
from melnet.score import Score, ScoreError, range_warning, read_score, with_loudness_of
from melnet.streaming import GriffinLimStream, Stream
from melnet.vocoder.saved import GRIFFIN_LIM, VOCODER, Inversion, load_vocoder
from melnet.vocoder.synthesis import Vocoder

GRIFFIN_LIM_ITERATIONS = 32
STREAMED_FRAMES = 4  # that a model of one tier draws at a time for a stream
TEXT_MARGIN = 1.5  # times the frames that a text takes on average; what is sung after its end is silenced
FADE_HOPS = 4
READ_SECONDS = 0.3  # for which the last symbol of a text is read, the silence after it
SCORED_SLICES = 16  # whose likelihood is computed at a time

Singers: TypeAlias = str | Sequence[str] | None
"""a singer, or several who take turns from item to item; None: all that the model knows"""
WantedInversion: TypeAlias = Inversion | Literal["auto"]
"""``auto`` is the one that did better on the validation split, and Griffin-Lim without a vocoder"""
Sung: TypeAlias = str | Path | Score | Sequence[Score]
"""what is to be sung: a score, the path of one, or several that samples take in turn"""
Text: TypeAlias = str | Sequence[str]
"""what is to be sung, without times: phonemes separated by spaces, or characters (:class:`melnet.data.texts.Alphabet`);
several texts are taken in turn"""


class Invert(Protocol):
    """Turns spectrograms into audio."""

    def __call__(self, log_mels: np.ndarray, singer_ids: np.ndarray, melody: np.ndarray | None = None) -> np.ndarray:
        """From log-mel (items, frames, bands) and singer ids (items,) to audio (items, (frames - 1) * hop_length).

        ``melody`` is what the spectrograms were asked to sing, if anything; see
        :meth:`melnet.vocoder.synthesis.Vocoder.__call__`.
        """


class Model:
    """A trained model and, if there is one, its vocoder; :func:`load` reads it.

    Equal arguments give equal results on one kind of processor. The first use of each kind compiles some functions,
    which takes seconds; :meth:`warm_up` does so in advance.

    >>> from melnet.audio.mel import MelSpec
    >>> from melnet.data.dataset import Normalisation
    >>> from melnet.saved import TierConfig, build_tier
    >>> config = ModelConfig(
    ...     MelSpec(),
    ...     frames=10,
    ...     cell="lstm",
    ...     num_components=1,
    ...     min_sigma=0.02,
    ...     tiers=["tier-1"],
    ...     singers=[],
    ...     normalisation=Normalisation.identity(32),
    ... )
    >>> model = Model(config, [build_tier(config, "tier-1", TierConfig(layers=1, hidden=4), seed=1)])
    >>> audio = model.sing(seconds=1.5, count=2)
    >>> audio.shape, model.sample(frames=20, count=2, temperature=0.9).shape
    ((2, 36000), (2, 20, 32))
    >>> len(next(model.stream(chunk_seconds=0.1)))
    2400
    >>> bool(model.score(audio[0], model.sample_rate) > 0)
    True
    """

    def __init__(
        self,
        config: ModelConfig,
        tiers: Sequence[Tier],
        vocoder: Vocoder | None = None,
        preferred: Inversion = GRIFFIN_LIM,
    ) -> None:
        self.config, self.tiers, self.vocoder, self.preferred = config, tiers, vocoder, preferred

    @property
    def sample_rate(self) -> int:
        """Sample rate of all audio, in Hz."""
        return self.config.mel.sample_rate

    @property
    def singers(self) -> list[str]:
        """Names of the singers that the model knows; none if it was trained without."""
        return self.config.singers

    def sing(
        self,
        seconds: float | None = None,
        *,
        count: int = 1,
        temperature: float = DEFAULT_TEMPERATURE,
        top_components: int | None = None,
        seed: int = 1,
        singer: Singers = None,
        prime: str | Path | Prime | None = None,
        prime_seconds: float = PRIME_SECONDS,
        score: Sung | None = None,
        text: Text | None = None,
        inversion: WantedInversion = "auto",
        on_frame: OnFrame = lambda: None,
    ) -> np.ndarray:
        """Audio of new samples, float32 (count, samples), not limited to ±1.

        Where a recording is followed, each sample also has its loudness. After the end of a text there is silence.

        Parameters
        ----------
        seconds
            Of each sample; None: those of the score, or what the text takes.
        inversion
            ``vocoder``, ``griffin-lim`` or ``auto``.
        count, temperature, top_components, seed, singer, prime, prime_seconds, score, text, on_frame
            See :meth:`sample`, which also has the errors.
        """
        invert = self.inverter(inversion, seed)
        samples = None if seconds is None else round(seconds * self.sample_rate)
        if samples is not None and samples < 1:
            raise ValueError(f"seconds: {seconds} is less than one sample")
        scores = None if score is None else self._scores(score)
        log_mels = self.sample(
            None if seconds is None else self.frames(seconds),
            count=count,
            temperature=temperature,
            top_components=top_components,
            seed=seed,
            singer=singer,
            prime=prime,
            prime_seconds=prime_seconds,
            score=scores,
            text=text,
            on_frame=on_frame,
        )
        melody = self.tracks(scores, count).melody if scores else None
        audio = invert(log_mels, self.singer_ids(singer, count), melody)[:, :samples]
        if text is not None:
            audio = self.silenced(audio, self.read_frames(log_mels, text, singer=singer))
        return with_loudness_of(scores, audio, self.config.mel) if scores else audio

    def sample(
        self,
        frames: int | None = None,
        *,
        count: int = 1,
        temperature: float = DEFAULT_TEMPERATURE,
        top_components: int | None = None,
        seed: int = 1,
        singer: Singers = None,
        prime: str | Path | Prime | None = None,
        prime_seconds: float = PRIME_SECONDS,
        score: Sung | None = None,
        text: Text | None = None,
        on_frame: OnFrame = lambda: None,
    ) -> np.ndarray:
        """New log-mel spectrograms, float32 (count, frames, bands), in nats of mel power.

        Parameters
        ----------
        frames
            Of each sample; None: those of the longest score, or more than the text takes on average.
        temperature, top_components
            See :func:`melnet.model.mixture.sample`: lower values are more conservative, 1 is the model's own
            distribution.
        seed
            A sample depends on it and on its own number, not on the samples drawn with it.
        singer
            Name of the singer, or several who take turns; None: all that the model knows.
        prime
            A recording, or the path of one, whose end every sample continues.
        prime_seconds
            How much of its end is listened to.
        score
            What is to be sung, see :data:`Sung`; after its end, and without one, that is left to the model.
        text
            What is to be sung, without times, see :data:`Text`. The model finds the times.
        on_frame
            Called for each of :meth:`steps`, from several threads.

        Raises
        ------
        UnknownSinger
            The model does not know the singer.
        UnusableAudio
            The prime cannot be read, is too short or silent.
        ScoreError
            The model was trained without melody and phonemes, and cannot be given a score. Reading one from a path has
            the errors of :meth:`read_score`.
        TextsError
            The model was trained without texts, or does not know a symbol.
        ValueError
            A number is out of range, there are neither frames nor a score nor a text, or a text is to continue a prime.
        """
        normalisation = self.config.normalisation
        scores = [] if score is None else self._scores(score)
        symbols = None if text is None else self.symbols(text, count)
        if symbols is not None and prime is not None:
            raise ValueError("a text begins with a sample, which cannot continue a prime then")
        if frames is None:
            if not scores and symbols is None:
                raise ValueError("a number of frames, a score or a text is needed")
            # One frame has no duration.
            frames = max(2, *(score.frames for score in scores), self.text_frames(text) if text else 2)
        sampled = self._sampler.sample(
            count,
            frames,
            seed,
            SamplingSettings(temperature, top_components),
            singers=self.singer_ids(singer, count),
            prime=self._known(prime, prime_seconds),
            tracks=self.tracks(scores, count) if scores else None,
            text=symbols,
            on_frame=on_frame,
        )
        return normalisation.denormalise(sampled)

    def read_score(
        self,
        path: str | Path,
        *,
        transpose: float = 0.0,
        tempo: float = 1.0,
        on_warning: Callable[[str], object] = lambda message: warnings.warn(message, stacklevel=3),
    ) -> Score:
        """Read a score for this model; see :func:`melnet.score.read_score`, which also has the errors.

        Parameters
        ----------
        transpose, tempo
            See :func:`melnet.score.read_score`.
        on_warning
            Takes one line if the score leaves the range of the recordings that the model learned from; it can be sung
            all the same.

        Raises
        ------
        ScoreError
            The model was trained without melody.
        """
        told = self.config.frame_conditioning
        if told is None or "melody" not in told.conditions:
            raise ScoreError(f"{path}: the model was trained without melody, and takes no score")
        vocabulary = told.vocabulary if "phonemes" in told.conditions else None
        score = read_score(Path(path), self.config.mel, vocabulary, transpose=transpose, tempo=tempo)
        if told.range_hz and (warning := range_warning(score, told.range_hz)):
            on_warning(f"{path}: {warning}")
        return score

    def text_frames(self, text: Text) -> int:
        """Frames of a spectrogram in which a text is almost always sung; see :meth:`sample` for the errors."""
        symbols, alphabet = self.symbols(text, 1 if isinstance(text, str) else len(text)), self.config.alphabet
        assert alphabet
        return self.frames(TEXT_MARGIN * symbols.shape[1] / alphabet.symbols_per_second)

    def alignment(self, log_mels: np.ndarray, text: Text, *, singer: Singers = None) -> np.ndarray:
        """How much each symbol of a text is read at each frame of spectrograms that sing it; each frame's sum is one.

        Parameters
        ----------
        log_mels : (items, frames, bands)
        text, singer
            As in :meth:`sample`, which also has the errors.

        Returns
        -------
        float32 (items, frames, symbols)
        """
        tiers, (count, frames) = len(self.tiers), log_mels.shape[:2]
        x = self.config.normalisation.normalise(log_mels[:, : frames - frames % divisors(tiers)[0]])
        index, symbols = TierIndex(1, tiers), self.symbols(text, count)
        inputs, _ = inputs_and_target(x, self.singer_ids(singer, count), index, None, symbols)
        weights = ops.convert_to_numpy(self._alignment(self.tiers[0].unknown(count) | inputs))
        return np.repeat(weights, frame_rows(*index).step, axis=1)

    def read_frames(self, log_mels: np.ndarray, text: Text, *, singer: Singers = None) -> np.ndarray:
        """Frames after which a text has been sung in each spectrogram, int (items,); all of them where it has not.

        Parameters are those of :meth:`alignment`.
        """
        read = np.argmax(self.alignment(log_mels, text, singer=singer), axis=-1)
        last = np.count_nonzero(self.symbols(text, len(log_mels)), axis=1) - 1
        # After the last frame that is read otherwise, since a belief can be given up again.
        before = read.shape[1] - np.argmax(read[:, ::-1] != last[:, None], axis=1)
        frames = before + round(READ_SECONDS / self.config.mel.seconds_per_frame)
        return np.where(read[:, -1] == last, np.minimum(frames, log_mels.shape[1]), log_mels.shape[1])

    def silenced(self, audio: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Audio (items, samples), faded to silence within the hops after so many frames of each."""
        hop = self.config.mel.hop_length
        after = np.arange(audio.shape[1]) - hop * frames[:, None]
        return (audio * np.clip(1 - after / (FADE_HOPS * hop), 0, 1)).astype(np.float32)

    def steps(self, count: int, frames: int) -> int:
        """How often :meth:`sample` calls ``on_frame``."""
        return self._sampler.steps(count, frames)

    def frames(self, seconds: float) -> int:
        """Frames of a spectrogram whose audio is as long or, since it is whole hops, less than a hop longer."""
        return 1 + max(1, -(-round(seconds * self.sample_rate) // self.config.mel.hop_length))

    def invert(
        self,
        log_mels: np.ndarray,
        *,
        singer: Singers = None,
        seed: int = 1,
        inversion: WantedInversion = "auto",
    ) -> np.ndarray:
        """Audio of spectrograms (items, frames, bands), float32 (items, (frames - 1) * hop_length).

        Raises
        ------
        UnknownSinger
            The model does not know the singer.
        ValueError
            A spectrogram holds values that are not finite or too large; or the model has no vocoder, but one is wanted.
        """
        return self.inverter(inversion, seed)(log_mels, self.singer_ids(singer, len(log_mels)))

    def inverter(
        self, inversion: WantedInversion = "auto", seed: int = 1, iterations: int = GRIFFIN_LIM_ITERATIONS
    ) -> Invert:
        """The function that turns spectrograms into audio; ``iterations`` are those of Griffin-Lim."""
        vocoder = self._vocoder(inversion)
        if vocoder is None:
            return lambda log_mels, singer_ids, melody=None: mel_to_audio(log_mels, self.config.mel, iterations, seed)
        return lambda log_mels, singer_ids, melody=None: vocoder(log_mels, singer_ids.tolist(), seed, melody)

    def inversion(self, wanted: WantedInversion = "auto") -> Inversion:
        """The inversion that is used where this one is wanted."""
        return GRIFFIN_LIM if self._vocoder(wanted) is None else VOCODER

    def stream(
        self,
        *,
        temperature: float = DEFAULT_TEMPERATURE,
        top_components: int | None = None,
        seed: int = 1,
        singer: str | None = None,
        prime: str | Path | Prime | None = None,
        prime_seconds: float = PRIME_SECONDS,
        score: str | Path | Score | None = None,
        inversion: WantedInversion = "auto",
        chunk_seconds: float = 0.25,
    ) -> Stream:
        """Audio without end, in chunks of float32 (chunk_seconds * sample_rate,); the memory it takes does not grow.

        After a score it goes on as the model likes. It has the loudness of no recording.

        ``stream.settings.temperature`` and ``stream.settings.top_components`` can be changed at any time. Chunks join
        without a seam: the vocoder carries its state on, and Griffin-Lim's blocks are crossfaded.

        With one tier and the vocoder, the stream begins like :meth:`sing` with the same arguments, up to rounding and
        to the last second of that, which knows that silence follows. With Griffin-Lim the spectrograms are equal, the
        phases are not. With several tiers the stream continues itself in blocks of as many frames as the slices that
        the model was trained on, and only the first block is that of :meth:`sample`.

        Parameters are those of :meth:`sing`; without a singer, the first one sings. The errors are the same.
        """
        config = self.config
        mel, chunk_samples = config.mel, round(chunk_seconds * self.sample_rate)
        if chunk_samples < 1:
            raise ValueError(f"chunk_seconds: {chunk_seconds} is less than one sample")
        [singer_id] = self.singer_ids(singer, 1).tolist()
        settings = SamplingSettings(temperature, top_components)
        tracks = None if score is None else self.tracks(self._scores(score), 1)
        normalised = self._sampler.stream(
            settings,
            seed,
            STREAMED_FRAMES if len(self.tiers) == 1 else config.frames,
            singer=singer_id,
            prime=self._known(prime, prime_seconds),
            tracks=tracks,
        )
        frames = map(config.normalisation.denormalise, normalised)
        if (vocoder := self._vocoder(inversion)) is None:
            push = GriffinLimStream(mel, GRIFFIN_LIM_ITERATIONS, seed).push
        else:
            voice = vocoder.stream(1, [singer_id], seed, tracks and tracks.melody)

            def push(log_mel: np.ndarray) -> np.ndarray:
                return voice.push(log_mel[None])[0]

        return Stream(frames, push, settings, chunk_samples)

    def score(self, audio: np.ndarray, rate: float, *, singer: str | None = None) -> float:
        """Negative log-likelihood of a recording in nats per element of its normalised log-mel spectrogram.

        It is comparable with ``nll`` in ``metrics/evaluate.json``: the recording is cut into slices as long as those
        that the model was trained on, and a shorter rest is left out. Lower is more like the train split.

        Parameters
        ----------
        audio : (samples,)
            One channel, full scale ±1.
        rate
            Its sample rate in Hz.
        singer
            Name of the singer; None: the first that the model knows.

        Raises
        ------
        UnknownSinger
            The model does not know the singer.
        UnusableAudio
            The audio is shorter than a slice, or has another shape or values that are not finite.
        """
        audio = np.asarray(audio)
        if audio.ndim != 1 or not np.isfinite(audio).all():
            raise UnusableAudio(f"samples of shape {audio.shape} are not one channel of finite numbers")
        config = self.config
        signal = soxr.resample(audio.astype(np.float64), rate, self.sample_rate, quality="VHQ")
        mels = config.normalisation.normalise(log_mel(signal.astype(np.float32), config.mel))
        count = len(mels) // config.frames
        if not count:
            least = (config.frames - 1) * config.mel.seconds_per_frame
            raise UnusableAudio(f"{len(audio) / rate:.2f} s are too short; at least {least:.2f} s are needed, a slice")
        slices = mels[: count * config.frames].reshape(count, config.frames, -1)
        # Batches of one size, so that the likelihood is compiled once.
        padded = np.zeros((-(-count // SCORED_SLICES) * SCORED_SLICES, *slices.shape[1:]), np.float32)
        padded[:count] = slices
        singers = np.repeat(self.singer_ids(singer, 1), SCORED_SLICES)
        nats = [self._likelihood.nats(batch, singers) for batch in np.split(padded, len(padded) // SCORED_SLICES)]
        return float(np.concatenate(nats)[:count].mean(dtype=np.float64))

    def warm_up(self) -> None:
        """Compile what singing needs, so that the first sound comes at once."""
        # So much that a model of several tiers also continues its first block.
        next(self.stream(chunk_seconds=2 * self.config.frames * self.config.mel.seconds_per_frame))
        if self._sampler.chunked:  # a stream has smaller groups
            self.sample(self.config.frames)

    def singer_ids(self, singer: Singers, count: int) -> np.ndarray:
        """Singer ids of ``count`` items, which take turns; (count,) int32, all 0 for a model without singers.

        Raises
        ------
        UnknownSinger
            The model does not know the singer.
        """
        names = [singer] if isinstance(singer, str) else singer or self.singers
        for name in names:
            if name not in self.singers:
                known = f"it knows {', '.join(self.singers)}" if self.singers else "it was trained without singers"
                raise UnknownSinger(f"the model does not know {name!r}; {known}")
        return np.resize(ids_of(names or [""], self.singers), count)

    def _scores(self, score: Sung) -> Sequence[Score]:
        if self.config.frame_conditioning is None:
            raise ScoreError("the model was trained without melody and phonemes, and takes no score")
        if isinstance(score, str | Path):
            score = self.read_score(score)
        return [score] if isinstance(score, Score) else score

    def symbols(self, text: Text, count: int) -> np.ndarray:
        """Indices of the symbols of a text, or of texts in turn, for so many samples: int32 (count, symbols).

        See :class:`melnet.data.texts.Alphabet`; :meth:`sample` has the errors.
        """
        if self.config.alphabet is None:
            raise TextsError("the model was trained without texts, and takes none")
        return self.config.alphabet.batch([text] if isinstance(text, str) else text, count)

    def tracks(self, scores: Sequence[Score], count: int) -> FrameTracks:
        """Condition tracks of ``count`` samples, which take the scores in turn: (count, frames of the longest, ...)."""
        told = self.config.frame_conditioning
        assert told
        frames = max(score.frames for score in scores)
        nothing = {"melody": np.zeros((1, 0, 2), np.float32), "phonemes": np.zeros((1, 0), np.int32)}

        def tracks(score: Score) -> FrameTracks:
            given = nothing | {name: track[None] for name, track in score.tracks.inputs().items()}
            return FrameTracks(*(given[name] if name in told.conditions else None for name in CONDITIONS)).span(
                0, frames
            )

        return FrameTracks.joined([tracks(scores[i % len(scores)]) for i in range(count)], np.concatenate)

    def _known(self, prime: str | Path | Prime | None, seconds: float) -> np.ndarray | None:
        """Normalised log-mel of a prime."""
        if prime is None:
            return None
        if not isinstance(prime, Prime):
            prime = read_prime(Path(prime), seconds, self.config.mel, self.config.frames)
        return self.config.normalisation.normalise(prime.log_mel)

    def _vocoder(self, inversion: WantedInversion) -> Vocoder | None:
        """The vocoder if it is the one to use, None for Griffin-Lim."""
        if inversion not in ("auto", VOCODER, GRIFFIN_LIM):
            raise ValueError(f"inversion: {inversion} is none of auto, {VOCODER}, {GRIFFIN_LIM}")
        if inversion == VOCODER and self.vocoder is None:
            raise ValueError(f"inversion: {inversion}: the model has none; it sings with {GRIFFIN_LIM}")
        return self.vocoder if VOCODER in (inversion, self.preferred) and inversion != GRIFFIN_LIM else None

    @cached_property
    def _sampler(self) -> Sampler:
        """Its values stay in the range of each band in the train split."""
        normalisation = self.config.normalisation
        low, high = normalisation.normalise(normalisation.low), normalisation.normalise(normalisation.high)
        floor = normalisation.normalise(np.full_like(normalisation.low, self.config.mel.log_floor))
        return Sampler(self.tiers, low, high, floor)

    @cached_property
    def _alignment(self) -> Callable[[Inputs], Tensor]:
        return compiled(self.tiers[0].alignment, self.tiers[0].weights)

    @cached_property
    def _likelihood(self) -> Likelihood:
        return Likelihood(self.tiers)


def load(
    folder: str | os.PathLike[str],
    *,
    vocoder: bool = True,
    warm_up: bool = True,
    precision: Precision = "float32",
) -> Model:
    """Read a model from its folder, ``models/`` of a finished run.

    Parameters
    ----------
    vocoder
        Read the vocoder too, if there is one.
    warm_up
        Compile what singing needs, which takes some seconds; without it, the first singing does.
    precision
        ``bfloat16``: round the operands of matrix products in sampling, which is faster on accelerators; the likelihood
        stays in float32.

    Raises
    ------
    ModelError
        A file is missing, damaged, of another format version or of another model; the message names it.
    """
    folder = Path(folder)
    config, tiers = load_tiers(folder, precision)
    model = Model(config, tiers)
    # Weights without their settings are an incomplete folder, which `load_vocoder` reports.
    if vocoder and any(folder.glob("vocoder.*")):
        model = Model(config, tiers, *load_vocoder(folder, config.mel, config.singers))
    if warm_up:
        model.warm_up()
    return model
