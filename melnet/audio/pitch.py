"""The pitch of recordings, by the tracker swift-f0: its model comes in its wheel, and it needs no network."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

FRAME_SECONDS = 0.016
"""between the frames of a pitch track; frame i is centred on sample ``i * FRAME_SECONDS * sample_rate``"""
LOWEST, HIGHEST = 65.0, 1100.0
"""range of pitches in Hz, from C2 to a little above C6"""
PIECE_SECONDS = 120  # of audio that is worked on at a time
CONTEXT_SECONDS = 2  # on either side of it, more than the tracker looks at; both are whole numbers of frames


@cache
def _tracker() -> Any:
    from swift_f0 import SwiftF0  # loads onnxruntime, which not every user of this module's constants needs

    # One thread: several recordings are tracked at a time, and more threads would spin while they wait.
    return SwiftF0(threads=1, spin=False)


def track_pitch(read: Callable[[int, int], np.ndarray], samples: int, sample_rate: int) -> np.ndarray:
    """Pitch track of a recording, which is read in pieces of two minutes.

    Parameters
    ----------
    read
        Gives the samples of the recording from the first argument on, as many as the second says; float32.
    samples
        Length of the recording.
    sample_rate
        In Hz.

    Returns
    -------
    float32 (frames,)
        Hz every ``FRAME_SECONDS``; 0 where the recording is not voiced.

    >>> tone = np.sin(2 * np.pi * 220 * np.arange(24000) / 24000).astype(np.float32)
    >>> track = track_pitch(lambda start, count: tone[start : start + count], len(tone), 24000)
    >>> len(track), bool(abs(track[30] - 220) < 2)
    (62, True)
    """
    tracks = []
    for start in range(0, max(samples, 1), PIECE_SECONDS * sample_rate):
        context = min(start, CONTEXT_SECONDS * sample_rate)
        end = min(start + (PIECE_SECONDS + CONTEXT_SECONDS) * sample_rate, samples)
        track = _track(read(start - context, end - start + context), sample_rate)
        first = round(context / sample_rate / FRAME_SECONDS)
        last = first + round(min(PIECE_SECONDS, (samples - start) / sample_rate + FRAME_SECONDS) / FRAME_SECONDS)
        tracks.append(track[first:last])
    return np.concatenate(tracks)


def pitch_of(signal: np.ndarray, sample_rate: int) -> np.ndarray:
    """Pitch track of a signal (samples,); see :func:`track_pitch`."""
    return track_pitch(lambda start, count: signal[start : start + count], len(signal), sample_rate)


def _track(signal: np.ndarray, sample_rate: int) -> np.ndarray:
    if len(signal) < sample_rate * FRAME_SECONDS:  # shorter than a frame
        return np.zeros(1, np.float32)
    found = _tracker().detect(signal, sample_rate, LOWEST, HIGHEST)
    return np.where(found.confidence >= 0.5, found.pitch_hz, 0).astype(np.float32)


def pitch_at(track: np.ndarray, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pitch at any times, from a pitch track; both float32 in the shape of ``seconds``.

    Returns
    -------
    log_pitch, voiced
        Natural logarithm of Hz, interpolated between voiced frames, over unvoiced ones too; and 1 where the frame that
        is nearest in time is voiced, else 0.

    >>> log_pitch, voiced = pitch_at(np.array([220.0, 0.0, 220.0]), np.array([0.0, 0.016]))
    >>> np.exp(log_pitch).round(1).tolist(), voiced.tolist()
    ([220.0, 220.0], [1.0, 0.0])
    """
    frames = np.flatnonzero(track)
    position = seconds / FRAME_SECONDS
    nearest = np.clip(np.rint(position), 0, len(track) - 1).astype(int)
    inside = (position > -0.5) & (position < len(track) - 0.5)
    voiced = ((track[nearest] > 0) & inside).astype(np.float32)
    if not len(frames):
        return np.full(np.shape(seconds), np.log(LOWEST), np.float32), voiced
    return np.interp(position, frames, np.log(track[frames])).astype(np.float32), voiced
