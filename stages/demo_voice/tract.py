"""The vocal tract: a cascade of resonances (formants), evaluated at any frequencies.

A tract is an array of shape (shapes, 12), one row every ``TRACT_STEP`` control frames. Its columns are five formants
and five bandwidths in Hz, the nasality (0 to 1) and the antiformant of the nose in Hz.
"""

from collections.abc import Sequence

import numpy as np

from stages.demo_voice.controls import held, smoothed
from stages.demo_voice.phones import Phone

TRACT_STEP = 5  # control frames, 5 ms as in Klatt (1980)
VOICE_LIMIT_HZ = 16000.0  # no harmonic lies above
# The formants above the fifth are the same for every vowel: a tract of 14.5 cm resonates every 1200 Hz.
HIGHER_FORMANTS_HZ = np.arange(6150.0, VOICE_LIMIT_HZ, 1200.0)


def tract_shapes(phones: Sequence[Phone], seconds: np.ndarray, pitch_hz: np.ndarray) -> np.ndarray:
    """The tract that glides from phone to phone within 70 ms, each held for its ``seconds``; (shapes, 12)."""
    targets = np.array([(*np.log(p.formants_hz), *p.bandwidths_hz, p.nasality, p.antiformant_hz) for p in phones])
    tract = smoothed(held(targets, seconds), 0.07)[::TRACT_STEP]
    tract[:, :5] = np.exp(tract[:, :5])
    # On high notes a singer opens the mouth until the first formant meets the fundamental (Sundberg 1975).
    tract[:, 0] = np.maximum(tract[:, 0], pitch_hz)
    return tract


def response(tract: np.ndarray, frequency_hz: np.ndarray) -> np.ndarray:
    """Complex transfer function of shape (shapes, n) at frequencies (shapes, n) or (1, n); 1 at 0 Hz."""
    formants_hz, bandwidths_hz, nasality, antiformant_hz = np.split(tract, (5, 10, 11), axis=1)
    product = np.ones_like(frequency_hz, dtype=np.complex128)
    for centre_hz in HIGHER_FORMANTS_HZ:
        product = product * _resonance(frequency_hz, centre_hz, 0.04 * centre_hz)
    for centre_hz, bandwidth_hz in zip(formants_hz.T, bandwidths_hz.T, strict=True):
        product = product * _resonance(frequency_hz, centre_hz[:, None], bandwidth_hz[:, None])
    # Nasals have a formant near 300 Hz and an antiformant (Fujimura 1962).
    nasal = _resonance(frequency_hz, 300.0, 100.0) / _resonance(frequency_hz, antiformant_hz, 150.0)
    return product * (1 + nasality * (nasal - 1))


def _resonance(frequency_hz: np.ndarray, centre_hz: float | np.ndarray, bandwidth_hz: float | np.ndarray) -> np.ndarray:
    return centre_hz**2 / (centre_hz**2 - frequency_hz**2 + 1j * bandwidth_hz * frequency_hz)
