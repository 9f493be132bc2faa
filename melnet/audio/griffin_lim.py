"""From log-mel spectrograms back to audio: Griffin-Lim, held to the mel spectrogram itself.

Griffin and Lim (1984) look for a signal with a given magnitude spectrogram: they alternate between the nearest spectrum
with those magnitudes and the nearest signal. A mel spectrogram gives no magnitudes, only ``bands`` weighted sums of
power per frame. Guessing magnitudes first (non-negative least squares) and keeping to that guess is needlessly strict:
few guesses belong to a signal, and the error stays. Here each iteration instead scales the bins of the present spectrum
just so far that its mel power becomes the given one, by the multiplicative update of Lee and Seung (2001) for
non-negative factors. Perraudin, Balazs and Søndergaard (2013), "A fast Griffin-Lim algorithm", add the momentum.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.fft
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # carries no types

from melnet.audio.mel import MelSpec, filterbank
from melnet.audio.spectrogram import frame_signal, hann_window, mel_power, overlap_add

# With mel power as the constraint, 0.9 ends lower than Perraudin's 0.99 for magnitudes (16 to 64 iterations).
MOMENTUM = 0.9


class Stft:
    """Short-time Fourier transform of signals that begin half a window before frame 0, and its inverse."""

    def __init__(self, frames: int, n_fft: int, hop_length: int) -> None:
        self.frames, self.n_fft, self.hop_length = frames, n_fft, hop_length
        self.window = hann_window(n_fft)
        energy = overlap_add(np.broadcast_to(np.square(self.window), (frames, n_fft)), hop_length)
        # Only the output is audible: the half windows before frame 0 and after the last frame stay zero.
        self.audible = slice(n_fft // 2, n_fft // 2 + (frames - 1) * hop_length)
        self.scale = np.zeros_like(energy)
        # Frames that hardly overlap leave gaps where the windows are near zero; there the signal is not blown up.
        self.scale[self.audible] = 1 / np.maximum(energy[self.audible], 0.01)

    def forward(self, signal: np.ndarray) -> np.ndarray:
        """Spectrum (frames, 1 + n_fft // 2) of a signal (n,)."""
        frames = frame_signal(signal, self.n_fft, self.hop_length)[: self.frames]
        return scipy.fft.rfft(frames * self.window, axis=1)

    def inverse(self, spectrum: np.ndarray) -> np.ndarray:
        """Signal (n,) whose spectrum is nearest to ``spectrum`` (frames, 1 + n_fft // 2) in the least-squares sense."""
        frames = scipy.fft.irfft(spectrum, n=self.n_fft, axis=1)
        frames *= self.window
        return overlap_add(frames, self.hop_length) * self.scale


def mel_to_audio(log_mels: np.ndarray, spec: MelSpec, iterations: int, seed: int) -> np.ndarray:
    """Audio whose log-mel spectrogram is near the given one, for a batch.

    Parameters
    ----------
    log_mels : (items, frames, bands)
        As :func:`melnet.audio.spectrogram.log_mel` gives them. Values at or below the floor are taken as silence.
    iterations : at least 1
        The error falls slowly from 16 on.
    seed
        Of the noise that each item starts from. An item's audio depends on its spectrogram, the seed and its index,
        not on the other items.

    Returns
    -------
    float32 (items, (frames - 1) * hop_length)
        Not limited to ±1. Frequencies that no band covers are silent.

    Raises
    ------
    ValueError
        A value is not finite, or too large for its power to be.

    >>> spec = MelSpec()
    >>> mel_to_audio(np.full((2, 10, 32), spec.log_floor), spec, iterations=2, seed=0).shape
    (2, 4608)
    """
    powers = mel_power(log_mels, spec)
    stft = Stft(log_mels.shape[1], spec.n_fft, spec.hop_length)
    audio = np.empty((len(powers), (stft.frames - 1) * spec.hop_length), np.float32)

    def invert(item: int) -> None:
        audio[item] = _invert(powers[item], stft, spec, iterations, np.random.default_rng([seed, item]))

    # One item per core is quicker than every operation of a batch spread over the cores, since an item stays in the
    # cache; and it bounds the memory. BLAS threads on top of ours only wait for each other.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(invert, range(len(powers))))  # taking the results raises what an item raised
    return audio


def _invert(powers: np.ndarray, stft: Stft, spec: MelSpec, iterations: int, rng: np.random.Generator) -> np.ndarray:
    """Signal ((frames - 1) * hop_length,) whose mel power is near ``powers`` (frames, bands)."""
    bank = filterbank(spec)
    filters, bins = bank
    # A bin in two bands follows both, in proportion to its weight in each; a bin between two bands follows none.
    shares = bank.shares
    silence = np.float32(1e-6 * spec.floor)  # keeps the ratio finite where the present signal has no power

    spectrum = np.zeros((stft.frames, 1 + stft.n_fft // 2), np.complex64)
    signal = rng.standard_normal(len(stft.scale), dtype=np.float32)
    previous = None
    for _ in range(iterations):
        present = stft.forward(signal)[:, bins]
        present_powers = (np.square(present.real) + np.square(present.imag)) @ filters.T  # (frames, bands)
        ratios = powers / np.maximum(present_powers, silence)
        spectrum[:, bins] = present * np.sqrt(ratios @ shares)
        fitted = stft.inverse(spectrum)
        # Momentum acts on spectra in the paper; the transform is linear, so it may act on the signals.
        signal = fitted if previous is None else fitted + np.float32(MOMENTUM) * (fitted - previous)
        previous = fitted
    return fitted[stft.audible]
