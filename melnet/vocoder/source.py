"""The excitation of the harmonic part: band-limited pulses at a given pitch."""

import numpy as np


class PulseSource:
    """Pulses of unit power whose phase runs on from one call to the next.

    The pulses are a sum of cosines of equal amplitude 2 √(f / rate) at all multiples of the pitch f up to the Nyquist
    frequency, in closed form: Σ cos(k φ) = sin((K + ½) φ) / (2 sin(φ / 2)) − ½ (Dirichlet's kernel).

    Parameters
    ----------
    sample_rate
        In Hz.
    hop_length
        Samples between two values of the pitch, which is interpolated between them.
    items
        Number of signals that are made at a time.

    >>> source = PulseSource(sample_rate=24000, hop_length=512, items=1)
    >>> pulses = source(np.full((1, 4), np.log(200.0)), np.ones((1, 4)))
    >>> pulses.shape, np.flatnonzero(pulses[0] > 1).tolist()[:2]
    ((1, 1536), [119, 239])
    """

    def __init__(self, sample_rate: int, hop_length: int, items: int) -> None:
        self.sample_rate, self.hop_length = sample_rate, hop_length
        self._phase = np.zeros(items)  # of the fundamental, in cycles

    def __call__(self, log_pitch: np.ndarray, voiced: np.ndarray) -> np.ndarray:
        """Pulses between the first and the last frame; float32 (items, (frames - 1) * hop_length).

        Parameters
        ----------
        log_pitch : (items, frames)
            Natural logarithm of Hz.
        voiced : (items, frames)
            Gain of the pulses, from 0 to 1.
        """
        at = np.arange(self.hop_length) / self.hop_length

        def between_frames(values: np.ndarray) -> np.ndarray:
            steps = np.diff(values.astype(np.float64))
            return (values[:, :-1, None] + steps[:, :, None] * at).reshape(len(values), -1)

        pitch = np.exp(between_frames(log_pitch))
        cycles = self._phase[:, None] + np.cumsum(pitch / self.sample_rate, axis=1)
        self._phase = cycles[:, -1] % 1.0
        half = np.pi * (cycles % 1.0)  # half the phase
        harmonics = np.floor(self.sample_rate / 2 / pitch)
        sine = np.sin(half)
        pole = sine < 1e-6
        kernel = np.where(pole, harmonics, np.sin((2 * harmonics + 1) * half) / (2 * np.where(pole, 1, sine)) - 0.5)
        return (2 * np.sqrt(pitch / self.sample_rate) * between_frames(voiced) * kernel).astype(np.float32)
