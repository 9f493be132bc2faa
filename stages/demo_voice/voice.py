"""The singer: phrases (a breath, then the notes with their syllables), songs of many phrases, and their files."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile as sf

from melnet.data.labels.htk import write_htk
from melnet.data.labels.label import Label
from stages.demo_voice.controls import CONTROL_HZ, held, pitch_hz, smoothed, vocal_effort, wander
from stages.demo_voice.melody import Note, compose
from stages.demo_voice.phones import BREATH, CONSONANTS, REST, VOWELS, Phone
from stages.demo_voice.room import noise_floor, reverberate
from stages.demo_voice.source import FRICATION_BANDS, aspiration, frication, oscillate, voice_spectrum
from stages.demo_voice.tract import TRACT_STEP, tract_shapes

HOLD = 0.14  # s between the breath and the first note, in which its consonant is sung
PEAK = 0.8  # largest sample before the noise floor is added, full scale is 1
SILENT, INHALED = "pau", "br"  # names of silence and of breath among the phonemes


class Phrase(NamedTuple):
    """A phrase of a song."""

    samples: np.ndarray
    """float64 (samples,), within ±1"""
    labels: list[Label]
    """from the beginning of the phrase to its end"""


def sing(notes: Sequence[Note], sample_rate: int, rng: np.random.Generator, breath: float, rest: float) -> np.ndarray:
    """Sing one phrase: ``breath`` seconds of inhaling, ``HOLD`` seconds, the notes, ``rest`` seconds of dying away.

    Returns float64 of shape (samples,), at no particular level, without a noise floor.
    """
    seconds = np.array([breath + HOLD, *(note.seconds for note in notes), rest])
    spans, phones, _ = _phones(notes, breath, rest)
    samples = round(seconds.sum() * sample_rate)
    at = np.arange(samples) * (CONTROL_HZ / sample_rate)  # time of each sample, in control frames

    def sampled(track: np.ndarray) -> np.ndarray:
        return np.interp(at, np.arange(len(track)), track)

    effort = vocal_effort(notes, seconds)
    pitch = pitch_hz(notes, seconds, rng)
    gains = np.array([(phone.voice, phone.aspiration, *phone.frication) for phone in phones])
    # Lips and larynx take some 30 ms to move; the burst of a plosive is much shorter.
    voice, breathiness = smoothed(held(gains[:, :2], spans), 0.03).T
    hiss = smoothed(held(gains[:, 2:], spans), 0.006)
    # 18 dB lie between the softest and the loudest voice; shimmer is 3 %.
    voice = voice * 10 ** (-18 * (1 - effort) / 20) * (1 + 0.03 * wander(rng, len(effort), 0.004))
    tract = tract_shapes(phones, spans, pitch[::TRACT_STEP])

    cycles = np.cumsum(sampled(pitch)) / sample_rate
    spectrum = voice_spectrum(tract, pitch[::TRACT_STEP], effort[::TRACT_STEP], sample_rate)
    sound = oscillate(spectrum, cycles, at / TRACT_STEP) * sampled(voice)
    # Air streams out while the glottis is open, so the noise of a sung vowel pulses with the voice.
    pulse = 1 + 0.6 * np.minimum(sampled(voice), 1.0) * np.cos(2 * np.pi * cycles)
    sound += aspiration(tract, samples, sample_rate, rng) * sampled(breathiness) * pulse
    for band, gain in zip(FRICATION_BANDS, hiss.T, strict=True):
        sound += frication(band, samples, sample_rate, rng) * sampled(gain)
    return reverberate(sound, sample_rate, rng)


def _phones(notes: Sequence[Note], breath: float, rest: float) -> tuple[np.ndarray, list[Phone], list[str]]:
    """Seconds, phones and names of a phrase, in order; a consonant is sung at the end of what precedes it.

    A sound of several phones has one name.
    """
    # The breath swells and dies down in six steps, which the control tracks smooth.
    swell = np.sin(np.pi * (np.arange(6) + 0.5) / 6)
    timeline = [(breath / 6, replace(BREATH, aspiration=BREATH.aspiration * float(gain)), INHALED) for gain in swell]
    timeline.append((HOLD, REST, SILENT))
    for note in notes:
        consonant = CONSONANTS[note.consonant] if note.consonant else ()
        seconds, before, name = timeline[-1]
        timeline[-1] = (seconds - sum(part for part, _ in consonant), before, name)
        timeline += [(part, phone, note.consonant) for part, phone in consonant]
        timeline.append((note.seconds, VOWELS[note.vowel], note.vowel))
    timeline.append((rest, replace(VOWELS[notes[-1].vowel], voice=0.0, aspiration=0.0), SILENT))
    spans, phones, names = zip(*timeline, strict=True)
    return np.array(spans), list(phones), list(names)


def _labels(notes: Sequence[Note], breath: float, rest: float) -> list[Label]:
    """The phonemes of a phrase; a vowel that goes on over several notes is one label."""
    spans, _, names = _phones(notes, breath, rest)
    ends = np.cumsum(spans).tolist()
    labels, start = [], 0.0
    for name, group in groupby(zip(names, ends, strict=True), key=lambda named: named[0]):
        *_, (_, end) = group
        labels.append(Label(start, end, name))
        start = end
    return labels


def song(rng: np.random.Generator, seconds: float, sample_rate: int) -> Iterator[np.ndarray]:
    """Yield the samples of the phrases of one song; see :func:`phrases`."""
    return (phrase.samples for phrase in phrases(rng, seconds, sample_rate))


def phrases(rng: np.random.Generator, seconds: float, sample_rate: int) -> Iterator[Phrase]:
    """Yield the phrases of one song.

    The song lasts at least ``seconds``; it ends with the phrase in which that time is reached. Each phrase is made when
    it is asked for, so a song of any length fits in memory. Equal states of ``rng`` give equal samples.
    """
    level = PEAK * 10 ** (-rng.uniform(0, 3) / 20)
    missing = math.ceil(seconds * sample_rate)
    for notes in compose(rng):
        # A softly sung phrase has a lower peak, as in a recording made in one go.
        peak = level * 10 ** (-12 * (1 - max(note.loudness for note in notes)) / 20)
        breath, rest = rng.uniform(0.3, 0.45), rng.uniform(0.35, 0.8)
        samples = sing(notes, sample_rate, rng, breath, rest)
        samples *= peak / np.abs(samples).max()
        yield Phrase(samples + noise_floor(rng, len(samples)), _labels(notes, breath, rest))
        missing -= len(samples)
        if missing <= 0:
            return


class SongTask(NamedTuple):
    """A song to be written."""

    path: Path
    seed: int
    number: int
    seconds: float
    sample_rate: int


def write_song(task: SongTask) -> float:
    """Write a song as 16-bit mono WAV, and its phonemes beside it, as ``.lab``; its length in seconds.

    It lasts at least as long as asked for. Its samples depend on seed and number, not on other songs. An
    :class:`OSError` names the file that cannot be written.
    """
    labels: list[Label] = []
    try:
        with sf.SoundFile(task.path, "w", task.sample_rate, channels=1, subtype="PCM_16") as file:
            for phrase in phrases(np.random.default_rng((task.seed, task.number)), task.seconds, task.sample_rate):
                begin = file.frames / task.sample_rate
                labels += [Label(begin + start, begin + end, name) for start, end, name in phrase.labels]
                file.write(phrase.samples)
            seconds: float = file.frames / task.sample_rate
    except sf.LibsndfileError as error:
        raise OSError(f"{task.path}: cannot be written: {error.error_string}") from error
    write_htk(task.path.with_suffix(".lab"), labels)
    return seconds
