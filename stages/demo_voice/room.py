"""The room in which the singer is recorded: its reverberation and the noise of its air."""

import numpy as np
import scipy.signal

FLOOR = 10 ** (-66 / 20)  # RMS of the noise of a quiet room and its microphone, full scale is 1


def reverberate(sound: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """The sound (samples,) in a small, dampened room, with 0.25 s of diffuse reverberation 20 dB below it."""
    time = np.arange(round(0.25 * sample_rate)) / sample_rate
    impulse = rng.standard_normal(len(time)) * 10 ** (-3 * time / 0.3)
    impulse *= 0.1 / np.sqrt(np.sum(impulse**2))
    impulse[0] = 1.0
    return scipy.signal.oaconvolve(sound, impulse)[: len(sound)]


def noise_floor(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Room noise (samples,): a low hum of air under a white hiss."""
    white = rng.standard_normal((2, samples))
    hum = scipy.signal.lfilter([np.sqrt(1 - 0.9**2)], [1.0, -0.9], white[0])  # unit variance
    return FLOOR * (0.9 * hum + np.sqrt(1 - 0.9**2) * white[1])
