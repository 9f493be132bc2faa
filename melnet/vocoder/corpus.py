"""Training data of a vocoder: runs of neighbouring slices of one split, with their audio and pitch."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from melnet.audio.files import read_mono
from melnet.audio.integrity import UnusableAudio
from melnet.audio.mel import MelSpec
from melnet.audio.pitch import FRAME_SECONDS, pitch_at
from melnet.audio.spectrogram import log_mel_frames
from melnet.data.dataset import Stretch
from melnet.vocoder.config import VocoderConfig
from melnet.vocoder.source import PulseSource

PITCH_SEGMENT, ENVELOPE_SEGMENT = 64, 40  # frames
PITCH_BATCH, ENVELOPE_BATCH = 24, 8
SHIFT_SEMITONES = 5.0
MOST_SHIFTS = 8
SHIFTED_SECONDS = 2 * 3600.0  # of recordings and their shifted copies together, a bound on memory and on time


def choose(found: Sequence[Stretch], mel: MelSpec, minutes: float, seed: int) -> list[Stretch]:
    """Random stretches of so many minutes, or all if there are fewer.

    >>> song = Stretch("song.wav", "", first=0, frames=2000)
    >>> len(choose([song, song, song], MelSpec(), minutes=1.0, seed=1))
    2
    """
    chosen, seconds = [], 0.0
    for i in np.random.default_rng(seed).permutation(len(found)):
        if seconds >= 60 * minutes:
            break
        chosen.append(found[i])
        seconds += found[i].frames * mel.seconds_per_frame
    return chosen


@dataclass(frozen=True)
class Run:
    """A stretch of a recording in memory, or a copy of it at another pitch."""

    log_mel: np.ndarray
    """(frames, bands)"""
    log_pitch: np.ndarray
    """(frames,), natural logarithm of Hz"""
    voiced: np.ndarray
    """(frames,), 0 or 1"""
    singer_id: int
    samples: np.ndarray
    """the frames' audio, from ``n_fft`` samples before the centre of the first to as many after that of the last"""


def read_runs(
    found: Sequence[Stretch],
    config: VocoderConfig,
    files: Mapping[str, Path],
    tracks: Mapping[str, np.ndarray],
) -> list[Run]:
    """Read the audio of stretches into memory, and compute their spectrograms and pitch.

    Parameters
    ----------
    files, tracks
        Mono files and pitch tracks of the recordings by their names.

    Raises
    ------
    UnusableAudio
        A recording has no file or no pitch track, or cannot be read; the message names it.
    """
    mel = config.mel

    def run(stretch: Stretch) -> Run:
        name, first = stretch.recording, stretch.first * mel.hop_length - mel.n_fft
        if name not in files or name not in tracks:
            raise UnusableAudio(
                f"{name}: in the shards, but without {'audio' if name not in files else 'a pitch track'}"
            )
        samples = _read(files[name], first, first + (stretch.frames - 1) * mel.hop_length + 2 * mel.n_fft)
        frames = np.arange(stretch.first, stretch.first + stretch.frames)
        half = mel.n_fft // 2
        singer_id = config.singers.index(stretch.singer) if config.singers else 0
        pitch = _pitch(tracks[name], frames * mel.seconds_per_frame)
        return Run(log_mel_frames(samples[half : len(samples) - half], mel), *pitch, singer_id, samples)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(run, found))


def _read(file: Path, start: int, stop: int) -> np.ndarray:
    """Samples [start, stop) of a file; zeros before its beginning and after its end."""
    first = max(start, 0)
    samples = read_mono(file, first, max(0, stop - first))
    return np.pad(samples, (first - start, stop - first - len(samples)))


def _pitch(track: np.ndarray, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """:func:`melnet.audio.pitch.pitch_at` for neighbouring times, from the part of the track that is near them."""
    first = max(0, int(seconds[0] / FRAME_SECONDS) - 64)
    last = int(seconds[-1] / FRAME_SECONDS) + 64
    return pitch_at(track[first:last] if first < len(track) else track[-1:], seconds - first * FRAME_SECONDS)


def shifted(runs: Sequence[Run], mel: MelSpec, seed: int) -> list[Run]:
    """The runs and copies of them at other pitches, resampled by random numbers of semitones; without audio.

    Few notes are sung in a small corpus; the pitch network is to know those in between and beyond as well.
    """
    seconds = sum(len(run.log_mel) for run in runs) * mel.seconds_per_frame
    copies = int(np.clip(SHIFTED_SECONDS / max(seconds, 1.0) - 1, 0, MOST_SHIFTS))
    rng = np.random.default_rng([seed, 1])
    semitones = rng.uniform(-SHIFT_SEMITONES, SHIFT_SEMITONES, (len(runs), copies))

    def copied(run: Run, shift: float) -> Run:
        factor = 2 ** (shift / 12)
        samples = soxr.resample(run.samples, mel.sample_rate * factor, mel.sample_rate).astype(np.float32)
        log_mel = log_mel_frames(samples, mel)
        # Where the frames lie in the original run, counted in its frames.
        centres = (mel.n_fft // 2 + np.arange(len(log_mel)) * mel.hop_length) * factor - mel.n_fft
        position = centres / mel.hop_length
        inside = (position >= 0) & (position <= len(run.log_mel) - 1)
        position = position[inside]
        original = np.arange(len(run.log_mel))
        log_pitch = np.interp(position, original, run.log_pitch) + np.log(factor)
        voiced = run.voiced[np.rint(position).astype(int)]
        return Run(log_mel[inside], log_pitch.astype(np.float32), voiced, run.singer_id, run.samples[:0])

    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(copied, run, shift) for run, row in zip(runs, semitones, strict=True) for shift in row]
        return [*runs, *(job.result() for job in jobs)]


def segment_frames(runs: Sequence[Run], wanted: int) -> int:
    """Frames of the segments that are drawn from runs: as many as wanted, or as the longest run has."""
    return min(wanted, max(len(run.log_mel) for run in runs))


Batch = tuple[Any, np.ndarray, np.ndarray]
"""inputs, target and weights of a training step"""


def pitch_batches(runs: Sequence[Run], config: VocoderConfig, frames: int, seed: Sequence[int]) -> Iterator[Batch]:
    """Endless batches of random segments for the pitch network, with random level, tilt and noise."""
    rng = np.random.default_rng(seed)
    drawn = _Segments(runs, frames)
    bands = config.mel.n_mels
    while True:
        segments = [drawn(rng) for _ in range(PITCH_BATCH)]
        x = np.stack([run.log_mel[first : first + frames] for run, first in segments])
        x = x + rng.normal(0, 0.8, (PITCH_BATCH, 1, 1))
        x += _sometimes(rng, 0.5) * rng.normal(0, 0.3, (PITCH_BATCH, 1, 1)) * np.linspace(-1, 1, bands)
        x += _sometimes(rng, 0.5) * rng.uniform(0, 0.5, (PITCH_BATCH, 1, 1)) * rng.standard_normal(x.shape)
        y = np.stack(
            [np.stack([run.log_pitch, run.voiced], axis=-1)[first : first + frames] for run, first in segments]
        )
        singers = np.array([run.singer_id for run, _ in segments], np.int32)
        yield (_normalised(x, config), singers), y.astype(np.float32), np.ones(PITCH_BATCH, np.float32)


def _sometimes(rng: np.random.Generator, share: float) -> np.ndarray:
    return rng.random((PITCH_BATCH, 1, 1)) < share


def envelope_batches(runs: Sequence[Run], config: VocoderConfig, frames: int, seed: Sequence[int]) -> Iterator[Batch]:
    """Endless batches of random segments for the envelope network, at random levels.

    Inputs are those of the network, the pulses and two noises; the target is the audio. All signals begin half a
    subframe's window before the centre of the segment's first frame.
    """
    rng = np.random.default_rng(seed)
    drawn = _Segments(runs, frames)
    mel, hop, lead = config.mel, config.subframe_hop, config.window // 2
    length = (frames * config.subframes + 3) * hop
    while True:
        segments = [drawn(rng) for _ in range(ENVELOPE_BATCH)]
        gains = rng.normal(0, 0.5, (ENVELOPE_BATCH, 1))
        x = np.stack([run.log_mel[first : first + frames] for run, first in segments]) + 2 * gains[:, :, None]
        starts = [first * mel.hop_length + mel.n_fft - lead for _, first in segments]
        y = np.stack(
            [run.samples[start : start + length - 3 * hop] for (run, _), start in zip(segments, starts, strict=True)]
        )
        # Pulses begin up to two frames before the segment.
        around = [np.clip(np.arange(first - 2, first + frames + 2), 0, len(run.log_mel) - 1) for run, first in segments]
        log_pitch, voiced = (
            np.stack([getattr(run, name)[at] for (run, _), at in zip(segments, around, strict=True)])
            for name in ("log_pitch", "voiced")
        )
        pulses = PulseSource(mel.sample_rate, mel.hop_length, ENVELOPE_BATCH)(log_pitch, voiced)
        begin = 2 * mel.hop_length - lead
        noises = rng.standard_normal((ENVELOPE_BATCH, 2, length), np.float32)
        singers = np.array([run.singer_id for run, _ in segments], np.int32)
        heard = log_pitch + rng.normal(0, 0.01, log_pitch.shape)
        inputs = (
            _normalised(x, config),
            singers,
            heard[:, 2:-2].astype(np.float32),
            voiced[:, 2:-2],
            pulses[:, begin : begin + length],
            noises,
        )
        yield inputs, (y * np.exp(gains)).astype(np.float32), np.ones(ENVELOPE_BATCH, np.float32)


class _Segments:
    """Draws segments of runs, each position equally likely."""

    def __init__(self, runs: Sequence[Run], frames: int) -> None:
        self.runs = [run for run in runs if len(run.log_mel) >= frames]
        self._ends = np.cumsum([len(run.log_mel) - frames + 1 for run in self.runs])

    def __call__(self, rng: np.random.Generator) -> tuple[Run, int]:
        at = int(rng.integers(self._ends[-1]))
        number = int(np.searchsorted(self._ends, at, side="right"))
        return self.runs[number], at - (int(self._ends[number - 1]) if number else 0)


def _normalised(x: np.ndarray, config: VocoderConfig) -> np.ndarray:
    return config.normalisation.normalise(np.maximum(x, config.mel.log_floor)).astype(np.float32)
