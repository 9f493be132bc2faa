"""Time-varying filters given by spectral envelopes: one minimum phase, one zero phase.

An envelope is the natural logarithm of a filter's gain at some points on the mel scale from 0 Hz to the Nyquist
frequency, linearly interpolated in between. The harmonic part's filter has minimum phase, as a vocal tract nearly has;
the phase of the filter of white noise does not matter.
"""

from functools import cached_property

import numpy as np
from keras import ops

from melnet.audio.spectrogram import overlap_add
from melnet.backend import Tensor
from melnet.vocoder.config import HARMONIC_POINTS, NOISE_POINTS, VocoderConfig

GAIN_LIMITS = -14.0, 6.0  # nats


def interpolation_matrix(points: int, n_fft: int, sample_rate: int) -> np.ndarray:
    """Matrix from an envelope (points,) to the log gain of each bin of a transform; float32 (points, bins).

    The points are spaced evenly on O'Shaughnessy's mel scale.

    >>> interpolation_matrix(points=3, n_fft=4, sample_rate=8000).sum(axis=0).tolist()
    [1.0, 1.0, 1.0]
    """
    top = np.log1p(sample_rate / 2 / 700)
    hz = 700 * np.expm1(np.linspace(0, top, points))
    bins = np.arange(n_fft // 2 + 1) * sample_rate / n_fft
    return np.stack([np.interp(bins, hz, unit) for unit in np.eye(points)]).astype(np.float32)


def minimum_phase_matrix(log_gains: np.ndarray) -> np.ndarray:
    """Phases of the minimum-phase filters with given log gains (filters, bins), in radians, of the same shape.

    The phase is linear in the log gain: it is the Fourier transform of the cepstrum folded onto positive quefrencies
    (Oppenheim and Schafer, Discrete-Time Signal Processing, section 13.5).

    >>> minimum_phase_matrix(np.zeros((1, 5))).any()
    np.False_
    """
    cepstrum = np.fft.irfft(log_gains, axis=1)
    n_fft = cepstrum.shape[1]
    fold = np.zeros(n_fft)
    fold[0] = fold[n_fft // 2] = 1
    fold[1 : n_fft // 2] = 2
    return np.fft.rfft(cepstrum * fold, axis=1).imag.astype(np.float32)


class SubframeFilters:
    """The filters of a vocoder, applied to windowed subframes of pulses and noise."""

    def __init__(self, config: VocoderConfig) -> None:
        self.config = config

    @cached_property
    def _matrices(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n_fft, rate = self.config.n_fft, self.config.mel.sample_rate
        harmonic = interpolation_matrix(HARMONIC_POINTS, n_fft, rate)
        return harmonic, minimum_phase_matrix(harmonic), interpolation_matrix(NOISE_POINTS, n_fft, rate)

    def frame(self, signals: Tensor) -> Tensor:
        """Cut signals (items, (subframes + 3) * subframe_hop) into overlapping (items, subframes, window)."""
        hops = ops.reshape(signals, (-1, signals.shape[1] // self.config.subframe_hop, self.config.subframe_hop))
        count = hops.shape[1] - 3
        return ops.concatenate([hops[:, part : part + count] for part in range(4)], axis=-1)

    def apply(self, envelopes: Tensor, pulses: Tensor, *noises: Tensor) -> list[Tensor]:
        """Filter and add: for each of ``noises`` the subframes (items, subframes, n_fft) of harmonic part and noise.

        Parameters
        ----------
        envelopes : (items, subframes, HARMONIC_POINTS + NOISE_POINTS)
            Log gains.
        pulses, *noises : (items, (subframes + 3) * subframe_hop)
            Signals that begin half a window before the centre of the first subframe.
        """
        harmonic, phase, noise = self._matrices
        envelopes = ops.clip(envelopes, *GAIN_LIMITS)
        tract, breath = envelopes[..., :HARMONIC_POINTS], envelopes[..., HARMONIC_POINTS:]
        gain, angle = ops.exp(ops.matmul(tract, harmonic)), ops.matmul(tract, phase)
        real, imag = self._transform(pulses)
        cosine, sine = gain * ops.cos(angle), gain * ops.sin(angle)
        real, imag = real * cosine - imag * sine, real * sine + imag * cosine
        noise_gain = ops.exp(ops.matmul(breath, noise))
        sums = []
        for signal in noises:
            noise_real, noise_imag = self._transform(signal)
            total = real + noise_gain * noise_real, imag + noise_gain * noise_imag
            # Four Hann windows overlap, which add up to 2.
            sums.append(0.5 * ops.irfft(total, fft_length=self.config.n_fft))
        return sums

    def _transform(self, signals: Tensor) -> tuple[Tensor, Tensor]:
        window = self.config.window
        hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
        return ops.rfft(ops.pad(self.frame(signals) * hann, ((0, 0), (0, 0), (0, self.config.n_fft - window))))

    def overlap_add(self, subframes: Tensor) -> Tensor:
        """Sum of subframes (items, subframes, n_fft), each a hop after the last; (items, samples).

        The sum begins where the first subframe does and has as many hops as there are subframes: the tails of the last
        ones are cut off.
        """
        hop = self.config.subframe_hop
        parts = -(-self.config.n_fft // hop)
        _, count, length = subframes.shape
        padded = ops.pad(subframes, ((0, 0), (0, 0), (0, parts * hop - length)))
        pieces = ops.reshape(padded, (-1, count, parts, hop))
        total = pieces[:, :, 0]
        for part in range(1, min(parts, count)):
            total = total + ops.pad(pieces[:, : count - part, part], ((0, 0), (part, 0), (0, 0)))
        return ops.reshape(total, (-1, count * hop))


class OverlapAdd:
    """Overlap-add of a stream of frames, whose tails it keeps for the next call."""

    def __init__(self, items: int, hop_length: int, length: int) -> None:
        self.hop_length, self.length = hop_length, length
        self._tail = np.zeros((items, length), np.float32)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Add frames (items, frames, length); give the samples (items, frames * hop_length) that are complete.

        >>> add = OverlapAdd(items=1, hop_length=1, length=2)
        >>> add(np.ones((1, 3, 2), np.float32)).tolist(), add(np.ones((1, 1, 2), np.float32)).tolist()
        ([[1.0, 2.0, 2.0]], [[2.0]])
        """
        done, added = frames.shape[1] * self.hop_length, overlap_add(frames, self.hop_length)
        total = np.pad(added, ((0, 0), (0, done + self.length - added.shape[1])))
        total[:, : self.length] += self._tail
        self._tail = total[:, done:]
        return total[:, :done]
