"""The sources of sound: the glottal pulse, and the noise of air (aspiration in the glottis, frication in the mouth).

The pulse is KLGLOTT88 (Klatt & Klatt 1990), from its Fourier series: all harmonics are exact, and none is aliased.
"""

import numpy as np
import scipy.fft
import scipy.signal

from stages.demo_voice.controls import CONTROL_HZ
from stages.demo_voice.tract import TRACT_STEP, VOICE_LIMIT_HZ, response

PERIOD = 2048  # samples of one stored period of the voice
# Noise of the consonants, as (centre in Hz, width in octaves): the burst of the velar /k/, the postalveolar /ʃ/ and the
# alveolar /s/, near the spectral peaks of Jongman, Wayland & Wong (2000).
FRICATION_BANDS = ((1900.0, 0.35), (3800.0, 0.4), (7000.0, 0.35))


def voice_spectrum(tract: np.ndarray, pitch_hz: np.ndarray, effort: np.ndarray, sample_rate: int) -> np.ndarray:
    """Complex amplitudes (shapes, harmonics) of the sung sound, from the fundamental upwards."""
    limit_hz = min(VOICE_LIMIT_HZ, 0.48 * sample_rate)
    harmonic = np.arange(1, int(limit_hz / pitch_hz.min()) + 1)
    frequency_hz = harmonic * pitch_hz[:, None]
    # A loud voice closes the glottis sooner and more abruptly: a smaller open quotient, less spectral tilt.
    source = glottal_series(harmonic, 0.8 - 0.3 * effort[:, None])
    tilt_db = 6 - 6 * effort[:, None]  # at 3 kHz, the parameter TL of Klatt & Klatt (1990)
    source = source / (1 + 1j * frequency_hz * np.sqrt(10 ** (tilt_db / 10) - 1) / 3000)
    # Harmonics fade out before they reach the limit with a rising pitch.
    fade = np.clip((limit_hz - frequency_hz) / (0.1 * limit_hz), 0.0, 1.0)
    return source * response(tract, frequency_hz) * fade


def glottal_series(harmonic: np.ndarray, open_quotient: np.ndarray) -> np.ndarray:
    """Fourier coefficients (shapes, harmonics) of the radiated KLGLOTT88 pulse, whose peak at closure is 1.

    ``harmonic`` is (harmonics,), ``open_quotient`` (shapes, 1). Over one period, x from 0 to 1, the flow is
    ``x² - x³ / O`` while x is below the open quotient O, and then 0. Radiation from the lips differentiates it to
    ``2 x - 3 x² / O``, whose series has the closed form below.
    """
    s = 2j * np.pi * harmonic
    decay = np.exp(-s * open_quotient)
    first = (1 - decay * (1 + s * open_quotient)) / s**2
    second = (2 - decay * (2 + 2 * s * open_quotient + (s * open_quotient) ** 2)) / s**3
    return (2 * first - 3 * second / open_quotient) / open_quotient


def oscillate(spectrum: np.ndarray, cycles: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Sum of harmonics (samples,) at phase ``cycles`` (samples,) and row ``shape`` (samples,) of ``spectrum``.

    An inverse FFT stores one period for each row of ``spectrum`` (shapes, harmonics). The periods are read with
    bilinear interpolation: along the oversampled period, and from row to row, which interpolates every harmonic.
    """
    padded = np.pad(spectrum, ((0, 0), (1, 0)))  # no mean flow
    periods = scipy.fft.irfft(padded, PERIOD, axis=1, norm="forward")
    shape, sample = np.minimum(shape, len(periods) - 1), (cycles % 1.0) * PERIOD
    i, j = np.minimum(shape.astype(int), len(periods) - 2), np.minimum(sample.astype(int), PERIOD - 1)
    u, v = shape - i, sample - j
    table = np.column_stack([periods, periods[:, :1]]).ravel()
    start = i * (PERIOD + 1) + j
    here = table[start] * (1 - v) + table[start + 1] * v
    start += PERIOD + 1
    return here * (1 - u) + (table[start] * (1 - v) + table[start + 1] * v) * u


def aspiration(tract: np.ndarray, samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """White noise (samples,) through the moving vocal tract."""
    hop = round(0.01 * sample_rate)
    stft = scipy.signal.ShortTimeFFT(scipy.signal.windows.hann(2 * hop, sym=False), hop, sample_rate)
    frames = stft.stft(rng.standard_normal(samples))  # (frequencies, frames)
    rows = np.clip(np.rint(stft.t(samples) * CONTROL_HZ / TRACT_STEP), 0, len(tract) - 1).astype(int)
    return stft.istft(frames * np.abs(response(tract[rows], stft.f[None])).T, k1=samples)


def frication(band: tuple[float, float], samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Noise (samples,) in a band given by its centre in Hz and its width in octaves, bell-shaped over log frequency."""
    length = scipy.fft.next_fast_len(samples, real=True)
    frequency_hz = scipy.fft.rfftfreq(length, 1 / sample_rate)
    distance = np.log2(np.maximum(frequency_hz, 1.0) / band[0]) / band[1]
    return scipy.fft.irfft(scipy.fft.rfft(rng.standard_normal(length)) * np.exp(-0.5 * distance**2), length)[:samples]
