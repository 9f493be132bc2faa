"""Control tracks at ``CONTROL_HZ`` frames per second: the pitch with its vibrato, the vocal effort.

A track holds one target value for as long as a note or phone lasts; then the steps between targets are smoothed.
"""

from collections.abc import Sequence

import numpy as np
import scipy.ndimage
import scipy.signal

from stages.demo_voice.melody import Note

CONTROL_HZ = 1000


def held(values: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Hold each of ``values`` (n, ...) for its ``seconds`` (n,); returns a track of shape (frames, ...)."""
    # The first rounding makes equal totals give equal numbers of frames, whatever parts they are the sum of.
    borders = np.rint(np.round(np.cumsum(seconds) * CONTROL_HZ, 6)).astype(int)
    return np.repeat(values, np.diff(borders, prepend=0), axis=0)


def smoothed(track: np.ndarray, seconds: float) -> np.ndarray:
    """Spread each step of a track over ``seconds``, in the shape of a raised cosine; same shape."""
    window = scipy.signal.windows.hann(round(seconds * CONTROL_HZ) // 2 * 2 + 3)[1:-1]
    return scipy.ndimage.convolve1d(track, window / window.sum(), axis=0, mode="nearest")


def wander(rng: np.random.Generator, frames: int, seconds: float) -> np.ndarray:
    """Gaussian noise (frames,) of unit variance, smoothed over ``seconds``."""
    window = scipy.signal.windows.hann(round(seconds * CONTROL_HZ) + 2)[1:-1]
    noise = rng.standard_normal(frames + len(window) - 1)
    return scipy.signal.oaconvolve(noise, window / np.sqrt(np.sum(window**2)), mode="valid")


def vocal_effort(notes: Sequence[Note], seconds: np.ndarray) -> np.ndarray:
    """Vocal effort (frames,), 0 to 1; ``seconds`` are those of the onset, of each note and of the rest."""
    loudness = [note.loudness for note in notes]
    return smoothed(held(np.array([0.6 * loudness[0], *loudness, 0.2 * loudness[-1]]), seconds), 0.25)


def pitch_hz(notes: Sequence[Note], seconds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fundamental frequency (frames,) in Hz: the written notes with portamento, vibrato, drift and jitter."""
    pitches = [note.pitch for note in notes]
    semitones = smoothed(held(np.array([pitches[0], *pitches, pitches[-1]], dtype=float), seconds), 0.09)
    # The vibrato begins 0.25 s into a note: 40 to 60 cents to either side at 5 to 6 Hz (Prame 1994, 1997).
    spans, depth = [seconds[0]], [0.0]
    for note in notes:
        plain = min(note.seconds, 0.25)
        spans += [plain, note.seconds - plain]
        depth += [0.0, rng.uniform(0.4, 0.6)]
    vibrato = smoothed(held(np.array([*depth, depth[-1]]), np.array([*spans, seconds[-1]])), 0.25)
    rate_hz = np.clip(5.5 + 0.2 * wander(rng, len(semitones), 0.5), 5.0, 6.0)
    semitones += vibrato * np.sin(2 * np.pi * np.cumsum(rate_hz) / CONTROL_HZ)
    semitones += 0.04 * wander(rng, len(semitones), 0.3) + 0.05 * wander(rng, len(semitones), 0.003)
    return 440.0 * 2 ** ((semitones - 69) / 12)
