"""Find the long pauses of a recording while it streams by, and cut them short.

The level of a recording is measured every 10 ms, above 200 Hz: hum and rumble do not hide a pause. A pause is a run of
frames whose level lies more than 45 dB below the loud level of the recording, so it is the same at any gain.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.fft

FRAMES_PER_SECOND = 100
LOWEST_HZ = 200.0
# Of what is cut from singing with rests (PJS) at 45 dB, 1 % is no silence to a mel spectrogram, at 40 dB it is 2 %.
# Breaths and soft consonants are louder; the end of a word that fades lies in the part of the pause that is kept.
DEPTH_DB = 45.0
SMALLEST_POWER = 2.0**-48  # a recording that is not louder has nothing above 200 Hz, but for rounding, and no pauses
FADE_SECONDS = 0.008
BLOCK_FRAMES = 128  # frames transformed at a time, so that their intermediate results stay in the cache
READ = 2**16  # samples read at a time


class Cut(NamedTuple):
    """A stretch of a recording that is left out, in samples."""

    start: int
    stop: int


class LevelMeter:
    """Measures the power of a recording above 200 Hz every 10 ms; the result takes 3 MB per hour of audio.

    >>> meter = LevelMeter(24000)
    >>> for block in np.split(np.sin(np.arange(24000)), 3):
    ...     meter.update(block)
    >>> meter.powers().shape, float(meter.powers()[50].round(2))
    ((100,), 0.5)
    """

    def __init__(self, sample_rate: int) -> None:
        self._hop = _frame_samples(sample_rate)
        size = 2 * self._hop
        self._window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)  # Hann: hum stays in the lowest bins
        self._parts = slice(2 * math.ceil(LOWEST_HZ * size / sample_rate), None)  # real and imaginary, by turns
        self._scale = 2 / (size * np.square(self._window).sum())
        self._rest: np.ndarray | None = None
        self._powers: list[np.ndarray] = []

    def update(self, block: np.ndarray) -> None:
        """Take the next block, shape (samples,), of floats."""
        if not len(block):
            return
        if self._rest is None:  # the first frame is centred on the first 10 ms
            self._rest = np.repeat(block[:1], self._hop // 2)
        signal = np.concatenate([self._rest, block])
        powers = self._measure(signal)
        self._powers.append(powers)
        self._rest = signal[len(powers) * self._hop :]

    def powers(self) -> np.ndarray:
        """Mean square above 200 Hz of each frame so far, shape (frames,).

        A signal of n samples has ``n * 100 / sample_rate`` frames, rounded up; its last sample is held to the end of
        the last one.
        """
        if self._rest is None:
            return np.empty(0)
        frames = -(-(len(self._rest) - self._hop // 2) // self._hop)
        last = self._measure(np.pad(self._rest, (0, (frames + 1) * self._hop - len(self._rest)), mode="edge"))
        return np.concatenate([*self._powers, last])

    def _measure(self, signal: np.ndarray) -> np.ndarray:
        size = len(self._window)
        if len(signal) < size:
            return np.empty(0)
        frames = np.lib.stride_tricks.sliding_window_view(signal, size)[:: self._hop]
        window = self._window.astype(signal.dtype)
        powers = np.empty(len(frames))
        for first in range(0, len(frames), BLOCK_FRAMES):
            block = slice(first, first + BLOCK_FRAMES)
            parts = scipy.fft.rfft(frames[block] * window).view(signal.dtype)[:, self._parts]
            with np.errstate(over="ignore"):  # of samples that `melnet.audio.convert` refuses
                powers[block] = np.einsum("ij,ij->i", parts, parts)
        return powers * self._scale


def find_cuts(powers: np.ndarray, samples: int, sample_rate: int, max_pause_seconds: float) -> list[Cut]:
    """Find the stretches to leave out of a recording, so that no pause is longer than ``max_pause_seconds``.

    A pause keeps half of that length beside each sound that it borders on, and at least the length of a crossfade.
    Silence at the beginning or the end of the recording borders on one sound only.

    Parameters
    ----------
    powers
        Mean square of each frame of a recording of ``samples`` samples, shape (frames,); see :class:`LevelMeter`.

    >>> powers = np.repeat([0.0, 1.0, 0.0, 1.0], [100, 200, 300, 200])
    >>> find_cuts(powers, 192000, 24000, max_pause_seconds=0.5)
    [Cut(start=0, stop=18000), Cut(start=78000, stop=138000)]
    """
    frame, fade = _frame_samples(sample_rate), _fade_samples(sample_rate)
    kept = max(round(max_pause_seconds * sample_rate) // 2, fade)
    loud = loud_power(powers)
    quiet = powers < (loud * 10 ** (-DEPTH_DB / 10) if loud > SMALLEST_POWER else 0)
    borders = np.flatnonzero(np.diff(quiet, prepend=False, append=False)) * frame
    cuts = []
    for start, stop in np.minimum(borders, samples).reshape(-1, 2).tolist():
        cut = Cut(start + kept if start > 0 else 0, stop - kept if stop < samples else samples)
        if cut.stop - cut.start >= fade:
            cuts.append(cut)
    return cuts


def loud_power(powers: np.ndarray) -> float:
    """The power at which half of a recording's energy lies in louder frames; 0 if there is none.

    Neither the share of silence nor a click moves it much.

    >>> loud_power(np.array([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.1]))
    1.0
    """
    ordered = np.sort(powers)
    energy = np.cumsum(ordered)
    return float(ordered[np.searchsorted(energy, energy[-1] / 2)]) if len(ordered) else 0.0


def without_cuts(
    read: Callable[[int, int], np.ndarray], samples: int, cuts: Sequence[Cut], sample_rate: int
) -> Iterator[np.ndarray]:
    """Yield a signal in blocks (samples,), without its ``cuts``, which are those of :func:`find_cuts`.

    All other samples stay as they are, but for a crossfade of 8 ms: the beginning of a cut fades into what follows the
    cut. What begins after a cut fades in, and what ends before a cut fades out.

    Parameters
    ----------
    read
        Returns the samples from the first to before the second number; the signal has ``samples`` of them.

    >>> signal = np.arange(20000.0)
    >>> parts = without_cuts(lambda start, stop: signal[start:stop], 20000, [Cut(4000, 14000)], 24000)
    >>> np.concatenate(list(parts))[[0, 3999, 4192, 9999]].tolist()
    [0.0, 3999.0, 14192.0, 19999.0]
    """
    fade = _fade_samples(sample_rate)
    ramp = (np.arange(fade, dtype=np.float32) + 0.5) / fade
    position = 0
    for start, stop in cuts:
        last = stop == samples
        yield from _blocks(read, position, start - fade if last else start)
        if start == 0:
            yield ramp * read(stop, stop + fade)
        elif last:
            yield (1 - ramp) * read(start - fade, start)
        else:
            yield (1 - ramp) * read(start, start + fade) + ramp * read(stop, stop + fade)
        position = min(stop + fade, samples)
    yield from _blocks(read, position, samples)


def _blocks(read: Callable[[int, int], np.ndarray], start: int, stop: int) -> Iterator[np.ndarray]:
    for first in range(start, stop, READ):
        yield read(first, min(first + READ, stop))


def _frame_samples(sample_rate: int) -> int:
    return max(1, sample_rate // FRAMES_PER_SECOND)


def _fade_samples(sample_rate: int) -> int:
    return max(1, round(FADE_SECONDS * sample_rate))
