"""Log-mel spectrograms (frames, bands) of float32 mono audio: of a whole recording, or of any run of its frames.

The values are those of ``librosa.feature.melspectrogram``; a block of frames at a time takes two fifths of its time.
"""

import functools

import librosa  # cheap: it loads its parts, which take a second or more, when they are first used
import numpy as np
import scipy.fft

from stages.parameters import Mel

TRANSFORMED = 128  # frames at a time, so that all that is made of them stays in the cache


@functools.lru_cache(maxsize=8)
def filterbank(mel: Mel, sample_rate: int) -> np.ndarray:
    """Slaney's area-normalised triangular mel filters; float32 (bands, 1 + n_fft // 2), read-only.

    Each triangle has area 1 in Hz, as in Slaney's Auditory Toolbox (1998) and ``librosa.filters.mel``.
    """
    filters = librosa.filters.mel(
        sr=sample_rate, n_fft=mel.n_fft, n_mels=mel.n_mels, fmin=mel.fmin, fmax=mel.fmax, dtype=np.float32
    )
    filters.setflags(write=False)
    return filters


@functools.lru_cache(maxsize=8)
def _window(n_fft: int) -> np.ndarray:
    window = librosa.filters.get_window("hann", n_fft).astype(np.float32)
    window.setflags(write=False)
    return window


def frame_count(samples: int, mel: Mel) -> int:
    """Number of frames of a recording of so many samples: one every ``hop_length``, the first at sample 0."""
    return 1 + samples // mel.hop_length


def frame_span(first: int, last: int, mel: Mel) -> tuple[int, int]:
    """Range [start, stop) of the samples that the frames [first, last) see.

    Frame ``t`` is centred on sample ``t * hop_length``, so ``start`` may be negative and ``stop`` may lie behind the
    end of the recording; samples outside the recording count as zero.
    """
    start = first * mel.hop_length - mel.n_fft // 2
    return start, start + (last - first - 1) * mel.hop_length + mel.n_fft


def log_mel_frames(samples: np.ndarray, mel: Mel, sample_rate: int) -> np.ndarray:
    """Natural log of the mel power of the frames that lie wholly inside ``samples`` (n,); float32 (frames, bands).

    Given the samples of :func:`frame_span`, these are the frames [first, last) of the recording. Power is that of the
    Hann-windowed FFT, unscaled, and bounded below by ``mel.floor``. Bands run from low to high frequency.
    """
    filters = filterbank(mel, sample_rate)
    covered = np.flatnonzero(filters.any(axis=0))
    bins = slice(int(covered[0]), int(covered[-1]) + 1)
    weights = np.ascontiguousarray(filters[:, bins].T)
    frames = np.lib.stride_tricks.sliding_window_view(samples, mel.n_fft)[:: mel.hop_length]
    mel_power = np.empty((len(frames), mel.n_mels), np.float32)
    for first in range(0, len(frames), TRANSFORMED):
        part = slice(first, first + TRANSFORMED)
        spectrum = scipy.fft.rfft(frames[part] * _window(mel.n_fft))[:, bins]
        mel_power[part] = (np.square(spectrum.real) + np.square(spectrum.imag)) @ weights
    return np.log(np.maximum(mel_power, np.float32(mel.floor)))


def log_mel(samples: np.ndarray, mel: Mel, sample_rate: int) -> np.ndarray:
    """Log-mel spectrogram of a whole recording (n,), float32 (frames, bands); see :func:`log_mel_frames`."""
    start, stop = frame_span(0, frame_count(len(samples), mel), mel)
    return log_mel_frames(np.pad(samples, (-start, max(0, stop - len(samples)))), mel, sample_rate)


def log_mel_error(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference in nats of two log-mel spectrograms of one shape."""
    return float(np.mean(np.abs(a - b), dtype=np.float64))
