"""Log-mel spectrograms (frames, bands) of float32 mono audio: of a whole recording, or of any run of its frames.

The values are those of ``librosa.feature.melspectrogram``; a block of frames at a time takes two fifths of its time.
They are the same to the last bit on every x86-64 processor: the sums over bins are taken in a fixed order, where a BLAS
library would choose one by processor.
"""

import functools

import librosa  # cheap: it loads its parts, which take a second or more, when they are first used
import numpy as np
import scipy.fft
import scipy.sparse

from melnet.audio.mel import MelSpec, filterbank, natural_log

BLOCK_FRAMES = 128  # frames computed at a time, so that their intermediate results stay in the cache


@functools.lru_cache(maxsize=8)
def hann_window(n_fft: int) -> np.ndarray:
    """Periodic Hann window, float32 (n_fft,), read-only.

    >>> hann_window(4).tolist()
    [0.0, 0.5, 1.0, 0.5]
    """
    window = librosa.filters.get_window("hann", n_fft).astype(np.float32)
    window.setflags(write=False)
    return window


@functools.lru_cache(maxsize=8)
def _sparse_filters(spec: MelSpec) -> scipy.sparse.csr_array:
    """Mel filters (bands, covered bins). A bin lies in two bands at most, so all but a sixteenth are zeros."""
    return scipy.sparse.csr_array(filterbank(spec).weights)


def frame_signal(samples: np.ndarray, n_fft: int, hop_length: int) -> np.ndarray:
    """Overlapping frames that lie wholly inside a signal; a read-only view (frames, n_fft).

    >>> frame_signal(np.arange(6), n_fft=4, hop_length=2).tolist()
    [[0, 1, 2, 3], [2, 3, 4, 5]]
    """
    return np.lib.stride_tricks.sliding_window_view(samples, n_fft)[::hop_length]


def overlap_add(frames: np.ndarray, hop_length: int) -> np.ndarray:
    """Sum of frames (..., frames, length), each one hop after the last; float32 (..., samples), whole hops.

    >>> overlap_add(np.ones((3, 4)), hop_length=2).tolist()
    [1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0]
    """
    *items, count, length = frames.shape
    parts = -(-length // hop_length)
    padded = np.zeros((*items, count, parts * hop_length), np.float32)
    padded[..., :length] = frames
    pieces = padded.reshape(*items, count, parts, hop_length)
    total = np.zeros((*items, count + parts - 1, hop_length), np.float32)
    for part in range(parts):
        total[..., part : part + count, :] += pieces[..., part, :]
    return total.reshape(*items, -1)


def frame_count(samples: int, spec: MelSpec) -> int:
    """Number of frames of a recording of so many samples: one every ``hop_length``, the first at sample 0.

    >>> frame_count(24000, MelSpec())
    47
    """
    return 1 + samples // spec.hop_length


def frame_span(first: int, last: int, spec: MelSpec) -> tuple[int, int]:
    """Range [start, stop) of the samples that the frames [first, last) see.

    Frame ``t`` is centred on sample ``t * hop_length``, so ``start`` may be negative and ``stop`` may lie behind the
    end of the recording; samples outside the recording count as zero.

    >>> frame_span(0, 2, MelSpec())
    (-1024, 1536)
    """
    start = first * spec.hop_length - spec.n_fft // 2
    return start, start + (last - first - 1) * spec.hop_length + spec.n_fft


def log_mel_frames(samples: np.ndarray, spec: MelSpec) -> np.ndarray:
    """Natural log of the mel power of the frames that lie wholly inside ``samples`` (n,); float32 (frames, bands).

    Given the samples of :func:`frame_span`, these are the frames [first, last) of the recording. Power is that of the
    Hann-windowed FFT, unscaled, and bounded below by ``spec.floor``. Bands run from low to high frequency.

    >>> log_mel_frames(np.zeros(2048 + 2 * 512, np.float32), MelSpec()).shape
    (3, 32)
    """
    frames = frame_signal(samples, spec.n_fft, spec.hop_length)
    window, bins, filters = hann_window(spec.n_fft), filterbank(spec).bins, _sparse_filters(spec)
    mel_power = np.empty((len(frames), spec.n_mels), np.float32)
    for first in range(0, len(frames), BLOCK_FRAMES):
        block = slice(first, first + BLOCK_FRAMES)
        spectrum = scipy.fft.rfft(frames[block] * window)[:, bins]
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        mel_power[block] = (filters @ power.T).T
    return natural_log(np.maximum(mel_power, np.float32(spec.floor))).astype(np.float32)


def log_mel(samples: np.ndarray, spec: MelSpec) -> np.ndarray:
    """Log-mel spectrogram of a whole recording (n,), float32 (frames, bands); see :func:`log_mel_frames`.

    >>> log_mel(np.zeros(24000, np.float32), MelSpec()).shape
    (47, 32)
    """
    start, stop = frame_span(0, frame_count(len(samples), spec), spec)
    return log_mel_frames(np.pad(samples, (-start, max(0, stop - len(samples)))), spec)


def mel_power(log_mels: np.ndarray, spec: MelSpec) -> np.ndarray:
    """Mel power of log-mel spectrograms (items, frames, bands), zero at or below the floor; float32.

    Raises
    ------
    ValueError
        A value is not finite, or too large for its power to be.

    >>> mel_power(np.array([[[MelSpec().log_floor, 0.0]]]), MelSpec()).tolist()
    [[[0.0, 1.0]]]
    """
    with np.errstate(over="ignore"):
        powers = np.where(log_mels > spec.log_floor, np.exp(log_mels, dtype=np.float32), np.float32(0))
    bad = ~np.isfinite(log_mels).all(axis=(1, 2)) | ~np.isfinite(powers).all(axis=(1, 2))
    if bad.any():
        raise ValueError(f"log_mels: item {int(np.argmax(bad))} holds values that are not finite or are far too large")
    return powers


def log_mel_error(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference in nats of two log-mel spectrograms of one shape.

    >>> log_mel_error(np.zeros((2, 3)), np.full((2, 3), 0.5))
    0.5
    """
    return float(np.mean(np.abs(a - b), dtype=np.float64))
