"""One synthetic singing voice, a mezzo-soprano: the sound of a mouth that sings a melody with words.

The voice is a source and a filter (Fant 1960). The source is the glottal pulse KLGLOTT88 (Klatt & Klatt 1990), known by
its Fourier series, so that the harmonics of every pitch are exact and none is aliased. The filter is a cascade of
resonances, the formants of the vocal tract, evaluated at those harmonics. Noise is added where air is heard: the
breathiness of the voice, the breath between phrases, the consonants.

Everything that moves is a control track of :data:`CONTROL_HZ` frames per second: targets held for as long as a note or
a sound of speech lasts, then eased into each other.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal

from stages.demo_voice.melody import Note, compose
from stages.demo_voice.phones import BREATH, CONSONANTS, REST, VOWELS, Phone

HOLD = 0.14  # s between breath and first note, the time of its consonant
CONTROL_HZ = 1000  # frames per second of every control track
TRACT_STEP = 5  # control frames between two shapes of the vocal tract: 5 ms, the step of Klatt (1980)
PERIOD = 2048  # samples of one stored period of the voice
VOICE_LIMIT_HZ = 16000.0  # no harmonic above

PEAK = 0.8  # of full scale, the loudest sample there can be but for the noise floor
FLOOR = 10 ** (-66 / 20)  # noise of a quiet room and its microphone, RMS of full scale

# Frication is noise in three fixed bands (centre in Hz, width in octaves): the burst of the velar /k/, the
# postalveolar /ʃ/ and the alveolar /s/, near the spectral peaks of Jongman, Wayland & Wong (2000).
FRICATION_BANDS = ((1900.0, 0.35), (3800.0, 0.4), (7000.0, 0.35))
# A tract of 14.5 cm resonates every 1200 Hz: the formants above the fifth, which no vowel moves.
HIGHER_FORMANTS_HZ = np.arange(6150.0, VOICE_LIMIT_HZ, 1200.0)


@dataclass(frozen=True)
class Tract:
    """Shapes of the vocal tract, one per row: formants and bandwidths (shapes, 5) in Hz, the rest (shapes, 1)."""

    formants_hz: np.ndarray
    bandwidths_hz: np.ndarray
    nasality: np.ndarray
    antiformant_hz: np.ndarray

    def at(self, rows: np.ndarray) -> "Tract":
        return Tract(self.formants_hz[rows], self.bandwidths_hz[rows], self.nasality[rows], self.antiformant_hz[rows])

    def response(self, frequency_hz: np.ndarray) -> np.ndarray:
        """Complex transfer function of shape (shapes, n) at frequencies (shapes, n) or (1, n); 1 at 0 Hz."""
        product = np.ones_like(frequency_hz, dtype=np.complex128)
        for centre_hz in HIGHER_FORMANTS_HZ:
            product = product * _resonance(frequency_hz, centre_hz, 0.04 * centre_hz)
        for i in range(self.formants_hz.shape[1]):
            product = product * _resonance(frequency_hz, self.formants_hz[:, i, None], self.bandwidths_hz[:, i, None])
        # The murmur of a nasal: a formant near 300 Hz and an antiformant (Fujimura 1962).
        murmur = _resonance(frequency_hz, 300.0, 100.0) / _resonance(frequency_hz, self.antiformant_hz, 150.0)
        return product * (1 + self.nasality * (murmur - 1))


def _resonance(frequency_hz: np.ndarray, centre_hz: float | np.ndarray, bandwidth_hz: float | np.ndarray) -> np.ndarray:
    return centre_hz**2 / (centre_hz**2 - frequency_hz**2 + 1j * bandwidth_hz * frequency_hz)


def sing(
    notes: Sequence[Note], sample_rate: int, rng: np.random.Generator, *, breath: float = 0.3, rest: float = 0.3
) -> np.ndarray:
    """Sing one phrase: ``breath`` seconds of inhaling, :data:`HOLD` seconds, the notes, ``rest`` seconds of dying away.

    Returns float64 of shape (samples,), in no particular scale, without a noise floor.
    """
    seconds = np.array([breath + HOLD, *(note.seconds for note in notes), rest])
    spans, phones = _phones(notes, breath, rest)
    samples = round(seconds.sum() * sample_rate)
    at = np.arange(samples) * (CONTROL_HZ / sample_rate)  # the time of each sample, in control frames

    def sampled(track: np.ndarray) -> np.ndarray:
        return np.interp(at, np.arange(len(track)), track)

    effort = _effort(notes, seconds)
    pitch_hz = _pitch_hz(notes, seconds, rng)
    gains = np.array([(phone.voice, phone.aspiration, *phone.frication) for phone in phones])
    # Lips and larynx take some 30 ms; a burst is over much sooner.
    voice, aspiration = _eased(_held(gains[:, :2], spans), 0.03).T
    frication = _eased(_held(gains[:, 2:], spans), 0.006)
    # 18 dB lie between the softest and the loudest voice; shimmer is 3 %.
    voice = voice * 10 ** (-18 * (1 - effort) / 20) * (1 + 0.03 * _wander(rng, len(effort), 0.004))
    tract = _tract(phones, spans, pitch_hz[::TRACT_STEP])

    cycles = np.cumsum(sampled(pitch_hz)) / sample_rate
    spectrum = _voice_spectrum(tract, pitch_hz[::TRACT_STEP], effort[::TRACT_STEP], sample_rate)
    sound = _oscillate(spectrum, cycles, at / TRACT_STEP) * sampled(voice)
    # Air streams out while the glottis is open, so the noise of a sung vowel pulses with the voice.
    pulse = 1 + 0.6 * np.minimum(sampled(voice), 1.0) * np.cos(2 * np.pi * cycles)
    sound += _aspiration(tract, samples, sample_rate, rng) * sampled(aspiration) * pulse
    for (centre_hz, octaves), gain in zip(FRICATION_BANDS, frication.T, strict=True):
        sound += _frication(centre_hz, octaves, samples, sample_rate, rng) * sampled(gain)
    return scipy.signal.oaconvolve(sound, _room(sample_rate, rng))[:samples]


def _phones(notes: Sequence[Note], breath: float, rest: float) -> tuple[np.ndarray, list[Phone]]:
    """Seconds and phones of a phrase, in order; a consonant takes its time from the end of what precedes it."""
    # Air drawn in swells and dies down, in six steps that the easing of the tracks joins.
    swell = np.sin(np.pi * (np.arange(6) + 0.5) / 6)
    timeline = [(breath / 6, replace(BREATH, aspiration=BREATH.aspiration * float(gain))) for gain in swell]
    timeline.append((HOLD, REST))
    for note in notes:
        consonant = CONSONANTS[note.consonant] if note.consonant else ()
        seconds, before = timeline[-1]
        timeline[-1] = (seconds - sum(part for part, _ in consonant), before)
        timeline += [*consonant, (note.seconds, VOWELS[note.vowel])]
    timeline.append((rest, replace(VOWELS[notes[-1].vowel], voice=0.0, aspiration=0.0)))
    return np.array([seconds for seconds, _ in timeline]), [phone for _, phone in timeline]


def _held(values: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Control track that holds each of ``values`` (n, ...) for its ``seconds`` (n,); shape (frames, ...)."""
    # Rounded twice: the same total, added up in other parts, has to give the same number of frames.
    borders = np.rint(np.round(np.cumsum(seconds) * CONTROL_HZ, 6)).astype(int)
    return np.repeat(values, np.diff(borders, prepend=0), axis=0)


def _eased(track: np.ndarray, seconds: float) -> np.ndarray:
    """The track with each step spread over ``seconds`` in the shape of a raised cosine; same shape."""
    window = scipy.signal.windows.hann(round(seconds * CONTROL_HZ) // 2 * 2 + 3)[1:-1]
    return scipy.ndimage.convolve1d(track, window / window.sum(), axis=0, mode="nearest")


def _wander(rng: np.random.Generator, frames: int, seconds: float) -> np.ndarray:
    """Gaussian noise of unit variance that changes its mind about every ``seconds``; shape (frames,)."""
    window = scipy.signal.windows.hann(round(seconds * CONTROL_HZ) + 2)[1:-1]
    noise = rng.standard_normal(frames + len(window) - 1)
    return scipy.signal.oaconvolve(noise, window / np.sqrt(np.sum(window**2)), mode="valid")


def _effort(notes: Sequence[Note], seconds: np.ndarray) -> np.ndarray:
    """Vocal effort (frames,), 0 to 1: a phrase is begun gently and let go of before its end."""
    loudness = [note.loudness for note in notes]
    return _eased(_held(np.array([0.6 * loudness[0], *loudness, 0.2 * loudness[-1]]), seconds), 0.25)


def _pitch_hz(notes: Sequence[Note], seconds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fundamental frequency (frames,) in Hz: portamento, vibrato, drift and jitter about the written notes."""
    pitches = [note.pitch for note in notes]
    semitones = _eased(_held(np.array([pitches[0], *pitches, pitches[-1]], dtype=float), seconds), 0.09)
    # Vibrato blooms a quarter of a second into a note, 40 to 60 cents to either side at 5 to 6 Hz (Prame 1994, 1997).
    onset, depth = [seconds[0]], [0.0]
    for note in notes:
        plain = min(note.seconds, 0.25)
        onset += [plain, note.seconds - plain]
        depth += [0.0, rng.uniform(0.4, 0.6)]
    vibrato = _eased(_held(np.array([*depth, depth[-1]]), np.array([*onset, seconds[-1]])), 0.25)
    rate_hz = np.clip(5.5 + 0.2 * _wander(rng, len(semitones), 0.5), 5.0, 6.0)
    semitones += vibrato * np.sin(2 * np.pi * np.cumsum(rate_hz) / CONTROL_HZ)
    semitones += 0.04 * _wander(rng, len(semitones), 0.3) + 0.05 * _wander(rng, len(semitones), 0.003)
    return 440.0 * 2 ** ((semitones - 69) / 12)


def _tract(phones: Sequence[Phone], seconds: np.ndarray, pitch_hz: np.ndarray) -> Tract:
    """The vocal tract every ``TRACT_STEP`` control frames, gliding from phone to phone within 70 ms."""
    targets = np.array([(*np.log(p.formants_hz), *p.bandwidths_hz, p.nasality, p.antiformant_hz) for p in phones])
    track = _eased(_held(targets, seconds), 0.07)[::TRACT_STEP]
    formants_hz = np.exp(track[:, :5])
    # On high notes a singer opens the mouth until the first formant meets the fundamental (Sundberg 1975).
    formants_hz[:, 0] = np.maximum(formants_hz[:, 0], pitch_hz)
    return Tract(formants_hz, track[:, 5:10], track[:, 10:11], track[:, 11:12])


def _voice_spectrum(tract: Tract, pitch_hz: np.ndarray, effort: np.ndarray, sample_rate: int) -> np.ndarray:
    """Complex amplitudes (shapes, harmonics) of the sung sound, from the fundamental upwards."""
    limit_hz = min(VOICE_LIMIT_HZ, 0.48 * sample_rate)
    harmonic = np.arange(1, int(limit_hz / pitch_hz.min()) + 1)
    frequency_hz = harmonic * pitch_hz[:, None]
    # A loud voice closes the glottis sooner and more abruptly: a smaller open quotient, less spectral tilt.
    source = _glottal_series(harmonic, 0.8 - 0.3 * effort[:, None])
    tilt_db = 6 - 6 * effort[:, None]  # at 3 kHz, as the TL of Klatt & Klatt (1990)
    source = source / (1 + 1j * frequency_hz * np.sqrt(10 ** (tilt_db / 10) - 1) / 3000)
    # Harmonics that rise past the limit with the pitch fade out on the way.
    fade = np.clip((limit_hz - frequency_hz) / (0.1 * limit_hz), 0.0, 1.0)
    return source * tract.response(frequency_hz) * fade


def _glottal_series(harmonic: np.ndarray, open_quotient: np.ndarray) -> np.ndarray:
    """Fourier coefficients of the pulse KLGLOTT88, radiated; of shape (shapes, harmonics).

    ``harmonic`` is (harmonics,), ``open_quotient`` (shapes, 1). Over one period, x from 0 to 1, the flow is
    ``x² - x³ / O`` while x is below the open quotient O, then nothing. Radiation from the lips differentiates it:
    ``2 x - 3 x² / O``, whose series has the closed form below. The peak of excitation, at closure, is 1.
    """
    s = 2j * np.pi * harmonic
    decay = np.exp(-s * open_quotient)
    first = (1 - decay * (1 + s * open_quotient)) / s**2
    second = (2 - decay * (2 + 2 * s * open_quotient + (s * open_quotient) ** 2)) / s**3
    return (2 * first - 3 * second / open_quotient) / open_quotient


def _oscillate(spectrum: np.ndarray, cycles: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Samples (samples,) of the sum of harmonics at phase ``cycles`` (samples,) and position ``shape`` in ``spectrum``.

    One period is laid out per row of ``spectrum`` (shapes, harmonics) by inverse FFT and read bilinearly: along the
    period, where it is oversampled, and between shapes, which is linear interpolation of each harmonic.
    """
    padded = np.pad(spectrum, ((0, 0), (1, 0)))  # no mean flow
    periods = scipy.fft.irfft(padded, PERIOD, axis=1, norm="forward")
    coordinates = (np.minimum(shape, len(periods) - 1), (cycles % 1.0) * PERIOD)
    return _bilinear(np.column_stack([periods, periods[:, :1]]), *coordinates)


def _bilinear(table: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    i, j = np.minimum(row.astype(int), len(table) - 2), np.minimum(column.astype(int), table.shape[1] - 2)
    u, v = row - i, column - j
    start = i * table.shape[1] + j
    flat = table.ravel()
    here = flat[start] * (1 - v) + flat[start + 1] * v
    start += table.shape[1]
    return here * (1 - u) + (flat[start] * (1 - v) + flat[start + 1] * v) * u


def _aspiration(tract: Tract, samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """White noise (samples,) through the moving vocal tract."""
    hop = round(0.01 * sample_rate)
    window = scipy.signal.windows.hann(2 * hop, sym=False)
    stft = scipy.signal.ShortTimeFFT(window, hop, sample_rate)
    frames = stft.stft(rng.standard_normal(samples))  # (frequencies, frames)
    rows = np.clip(np.rint(stft.t(samples) * CONTROL_HZ / TRACT_STEP), 0, len(tract.nasality) - 1).astype(int)
    return stft.istft(frames * np.abs(tract.at(rows).response(stft.f[None])).T, k1=samples)


def _frication(
    centre_hz: float, octaves: float, samples: int, sample_rate: int, rng: np.random.Generator
) -> np.ndarray:
    """Noise (samples,) with a bell-shaped magnitude over log frequency."""
    length = scipy.fft.next_fast_len(samples, real=True)
    frequency_hz = scipy.fft.rfftfreq(length, 1 / sample_rate)
    distance = np.log2(np.maximum(frequency_hz, 1.0) / centre_hz) / octaves
    return scipy.fft.irfft(scipy.fft.rfft(rng.standard_normal(length)) * np.exp(-0.5 * distance**2), length)[:samples]


def _room(sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Impulse response of a small, dampened room: the direct sound and 0.25 s of diffuse reverberation 20 dB below."""
    time = np.arange(round(0.25 * sample_rate)) / sample_rate
    response = rng.standard_normal(len(time)) * 10 ** (-3 * time / 0.3)
    response *= 0.1 / np.sqrt(np.sum(response**2))
    response[0] = 1.0
    return response


def song(rng: np.random.Generator, seconds: float, sample_rate: int) -> Iterator[np.ndarray]:
    """Yield the phrases of one song as samples, float64 of shape (samples,) within ±1.

    The song lasts at least ``seconds`` and ends with the phrase in which that time is reached. A phrase is made only
    when it is asked for, so a song of any length fits in memory. Equal state of ``rng``, equal samples.
    """
    level = PEAK * 10 ** (-rng.uniform(0, 3) / 20)
    missing = math.ceil(seconds * sample_rate)
    for notes in compose(rng):
        # A softly sung phrase has a lower peak, as it would in a recording made in one go.
        peak = level * 10 ** (-12 * (1 - max(note.loudness for note in notes)) / 20)
        samples = sing(notes, sample_rate, rng, breath=rng.uniform(0.3, 0.45), rest=rng.uniform(0.35, 0.8))
        samples *= peak / np.abs(samples).max()
        yield samples + _floor(rng, len(samples))
        missing -= len(samples)
        if missing <= 0:
            return


def _floor(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Room noise: a low hum of air under a white hiss."""
    white = rng.standard_normal((2, samples))
    hum = scipy.signal.lfilter([np.sqrt(1 - 0.9**2)], [1.0, -0.9], white[0])  # of unit variance
    return FLOOR * (0.9 * hum + np.sqrt(1 - 0.9**2) * white[1])
