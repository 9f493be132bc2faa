"""The mel scale: how a log-mel spectrogram is made, its bands and its filter bank."""

import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import librosa  # cheap: it loads its parts, which take a second or more, when they are first used
import numpy as np


@dataclass(frozen=True)
class MelSpec:
    """How log-mel spectrograms are made from audio, and so all that is needed to make audio of them again.

    Parameters
    ----------
    sample_rate
        Of the audio, in Hz.
    n_fft, hop_length
        Samples of a Hann window, and between the centres of two windows.
    n_mels
        Mel bands, from ``fmin`` to ``fmax`` Hz.
    floor
        Mel power that counts as silence; the spectrogram is bounded below by its natural logarithm.

    Raises
    ------
    ValueError
        If the values contradict each other; the message begins with the name of the field and has its value.

    >>> round(MelSpec().seconds_per_frame, 4)
    0.0213
    """

    sample_rate: int = 24000
    n_fft: int = 2048
    hop_length: int = 512
    n_mels: int = 32
    fmin: float = 300.0
    fmax: float = 8000.0
    floor: float = 1e-5

    # Read by pydantic, which checks files that hold a spectrogram's settings.
    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}

    def __post_init__(self) -> None:
        if self.hop_length > self.n_fft:
            raise ValueError(f"hop_length: {self.hop_length} is longer than n_fft {self.n_fft}, which leaves gaps")
        if self.fmin >= self.fmax:
            raise ValueError(f"fmin: {self.fmin} is not below fmax {self.fmax}")
        if self.fmax > self.sample_rate / 2:
            raise ValueError(
                f"fmax: {self.fmax} is above the Nyquist frequency {self.sample_rate / 2} "
                f"of sample rate {self.sample_rate}"
            )
        edges = self.edges_hz
        bins = np.arange(self.n_fft // 2 + 1) * self.sample_rate / self.n_fft
        # A triangle is zero at its edges: a bin counts only strictly inside.
        inside = np.searchsorted(bins, edges[2:], side="left") - np.searchsorted(bins, edges[:-2], side="right")
        if (inside < 1).any():
            band = int(np.argmax(inside < 1))
            raise ValueError(
                f"n_mels: {self.n_mels} is more than n_fft {self.n_fft} resolves: "
                f"band {band} ({edges[band]:.0f} to {edges[band + 2]:.0f} Hz) holds no FFT bin"
            )

    @property
    def seconds_per_frame(self) -> float:
        """Hop length in seconds."""
        return self.hop_length / self.sample_rate

    @property
    def edges_hz(self) -> np.ndarray:
        """Edges of the triangular bands in Hz on Slaney's mel scale, as librosa lays them; shape (n_mels + 2,)."""
        linear, log_step, knee = 200.0 / 3, math.log(6.4) / 27, 1000.0

        def to_mel(hz: float) -> float:
            return hz / linear if hz < knee else knee / linear + math.log(hz / knee) / log_step

        # Written out, since librosa's own function takes a second to load, and parameters are checked at every start.
        mels = np.linspace(to_mel(self.fmin), to_mel(self.fmax), self.n_mels + 2)
        return np.where(mels < knee / linear, mels * linear, knee * np.exp(log_step * (mels - knee / linear)))

    @property
    def log_floor(self) -> np.float32:
        """The least value of a log-mel spectrogram, in nats."""
        return np.float32(natural_log(np.float32(self.floor)))


class Filterbank(NamedTuple):
    """Mel filters, without the FFT bins that no band covers."""

    weights: np.ndarray
    """float32 (bands, covered bins), read-only"""
    bins: slice
    """the covered bins among all ``1 + n_fft // 2``"""

    @property
    def shares(self) -> np.ndarray:
        """Share of each band in each covered bin, float32 (bands, covered bins); 0 in a bin between two bands."""
        return self.weights / np.maximum(self.weights.sum(axis=0), np.finfo(np.float32).tiny)


@functools.lru_cache(maxsize=8)
def filterbank(spec: MelSpec) -> Filterbank:
    """Slaney's area-normalised triangular mel filters.

    Each triangle has area 1 in Hz, as in Slaney's Auditory Toolbox (1998) and ``librosa.filters.mel``.

    >>> spec = MelSpec(sample_rate=24000, n_fft=512, hop_length=128, n_mels=8, fmin=300.0, fmax=8000.0, floor=1e-5)
    >>> filterbank(spec).weights.shape, filterbank(spec).bins
    ((8, 164), slice(7, 171, None))
    """
    weights = librosa.filters.mel(
        sr=spec.sample_rate, n_fft=spec.n_fft, n_mels=spec.n_mels, fmin=spec.fmin, fmax=spec.fmax, dtype=np.float32
    )
    covered = np.flatnonzero(weights.any(axis=0))
    bins = slice(int(covered[0]), int(covered[-1]) + 1)
    weights = np.ascontiguousarray(weights[:, bins])
    weights.setflags(write=False)
    return Filterbank(weights, bins)


def natural_log(x: np.ndarray | np.float32) -> np.ndarray:
    """Natural logarithm of positive normal numbers to 1e-9, the same to the last bit on every processor; float64.

    The logarithms of numpy and of the C library differ in the last bit from one kind of processor to another. This one
    consists of IEEE 754 operations that do not: log(2^e m) = e log 2 + 2 artanh((m − 1) / (m + 1)).

    >>> natural_log(np.array([1.0, 10.0])).round(6).tolist()
    [0.0, 2.302585]
    """
    mantissa, exponent = np.frexp(np.asarray(x, np.float64))  # mantissa in [0.5, 1)
    low = mantissa < math.sqrt(0.5)
    mantissa = np.where(low, 2 * mantissa, mantissa)  # in [√½, √2)
    ratio = (mantissa - 1) / (mantissa + 1)
    square = ratio * ratio
    series = 1 / 13
    for divisor in (11, 9, 7, 5, 3, 1):
        series = series * square + 1 / divisor
    return (exponent - low) * math.log(2) + 2 * ratio * series
