"""Windows of spectrograms, and features of them that classifiers, kernels and neighbours compare."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.fft import dctn
from sklearn.preprocessing import StandardScaler

MAX_WINDOWS = 2000
COEFFICIENTS = 12  # of the cosine transform, along either axis: the slow course and the broad shape
MAGNITUDES = 16  # the same for log magnitudes, which say how much a window moves, whatever the phase
MAGNITUDE_FLOOR = 0.1
BLOCK = 256  # windows transformed at a time


class Windows(NamedTuple):
    """Windows of normalised log-mel."""

    values: np.ndarray
    """(n, frames, bands) float32"""
    group: np.ndarray
    """(n,) int: windows of equal group are of one recording or of one sample"""


def windows(
    sequences: Sequence[np.ndarray],
    frames: int,
    hop: int,
    groups: Sequence[Hashable] | None = None,
    *,
    limit: int = MAX_WINDOWS,
    seed: int = 0,
) -> Windows:
    """Cut windows of ``frames`` frames, one every ``hop`` frames; sequences that are too short have none.

    Parameters
    ----------
    sequences
        Normalised log-mel (frames_i, bands): samples, or uninterrupted stretches of recordings.
    groups
        What each sequence is a part of, such as the name of its recording; by default each is a group of its own.
    limit
        Of more windows than this, a random draw without replacement is kept, in their order.

    >>> cut = windows([np.zeros((5, 2)), np.zeros((3, 2)), np.zeros((4, 2))], 4, 1, ["a", "a", "b"])
    >>> cut.values.shape, cut.group.tolist()
    ((3, 4, 2), [0, 0, 1])
    """
    names = range(len(sequences)) if groups is None else groups
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    starts = window_starts(sequences, frames, hop)
    if len(starts) > limit:
        starts = starts[np.sort(np.random.default_rng(seed).permutation(len(starts))[:limit])]
    group_of = np.array([numbers[name] for name in names], int)
    return Windows(window_values(sequences, starts, frames), group_of[starts[:, 0]])


def window_starts(sequences: Sequence[np.ndarray], frames: int, hop: int) -> np.ndarray:
    """Index of the sequence and first frame of every window, (n, 2) int.

    >>> window_starts([np.zeros((5, 2)), np.zeros((4, 2))], 4, 1).tolist()
    [[0, 0], [0, 1], [1, 0]]
    """
    firsts = [np.arange(0, len(sequence) - frames + 1, hop) for sequence in sequences]
    index = np.repeat(np.arange(len(firsts)), [len(first) for first in firsts])
    return np.stack([index, np.concatenate([np.empty(0, int), *firsts])], axis=1)


def window_values(sequences: Sequence[np.ndarray], starts: np.ndarray, frames: int) -> np.ndarray:
    """The windows at :func:`window_starts`, float32 (n, frames, bands)."""
    values = np.empty((len(starts), frames, sequences[0].shape[-1] if len(sequences) else 0), np.float32)
    for value, (index, first) in zip(values, starts, strict=True):
        value[:] = sequences[index][first : first + frames]
    return values


def features(values: np.ndarray) -> np.ndarray:
    """Smooth features of windows (n, frames, bands), n ≥ 1, of 2 or more frames and bands; float64 (n, features).

    They are the lowest coefficients of the orthonormal two-dimensional cosine transform, log magnitudes of some more,
    the mean absolute difference from frame to frame, and the mean root of the absolute difference from band to band,
    which is small where harmonics are blurred.

    >>> features(np.zeros((3, 48, 32))).shape
    (3, 402)
    """
    return np.concatenate([_features(values[start : start + BLOCK]) for start in range(0, len(values), BLOCK)])


def _features(values: np.ndarray) -> np.ndarray:
    x = values.astype(np.float64)
    coefficients = dctn(x, axes=(1, 2), norm="ortho")
    magnitudes = np.abs(coefficients[:, :MAGNITUDES, :MAGNITUDES])
    parts = [
        coefficients[:, :COEFFICIENTS, :COEFFICIENTS],
        np.log(magnitudes + MAGNITUDE_FLOOR),
        np.abs(np.diff(x, axis=1)).mean((1, 2)),
        np.sqrt(np.abs(np.diff(x, axis=2))).mean((1, 2)),
    ]
    return np.concatenate([part.reshape(len(x), -1) for part in parts], axis=1)


def standardised_features(generated: Windows, reference: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Features of both in units of the reference's standard deviations, from its means; constant features only centred.

    >>> ones = Windows(np.ones((2, 8, 8)), np.arange(2))
    >>> [float(np.abs(x).max()) for x in standardised_features(ones, ones)]
    [0.0, 0.0]
    """
    scaler = StandardScaler().fit(y := features(reference.values))
    return scaler.transform(features(generated.values)), scaler.transform(y)
