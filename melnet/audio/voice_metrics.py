"""Metrics of a voice: how well audio made from a spectrogram keeps one, and how voice-like generated audio is.

Signals are float32 (samples,). A pitch track is float32 (frames,): the fundamental frequency in Hz, 0 where the frame
is unvoiced. Frame ``i`` is centred at ``i * FRAME_SECONDS``. Where two signals or tracks are compared, the longer
one is cut to the length of the shorter. Every function takes one signal, or one pair, and leaves means over many to its
caller; only :func:`voice_statistics` takes a set.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import librosa  # cheap: it loads its parts, which take a second or more, when they are first used
import numpy as np
import scipy.fft

from melnet.audio.mel import MelSpec
from melnet.audio.pitch import FRAME_SECONDS
from melnet.audio.spectrogram import BLOCK_FRAMES, hann_window, log_mel, log_mel_error

PITCH_TOLERANCE_CENTS = 50.0  # half a semitone, as in evaluations of melody extraction (mir_eval)
OCTAVE_TOLERANCE_CENTS = 100.0
MAX_STEP_CENTS = 400.0  # between neighbouring frames; more is a new note, or an error of the pitch tracker

STFT_SIZES = (2048, 1024, 512)  # samples
MEL_BANDS = 80
MEL_CEPSTRA = 24

HNR_WINDOW_SECONDS = 0.043  # three periods of 75 Hz take 0.04 s
HNR_PITCH_HZ = (80.0, 600.0)
HNR_OVERSAMPLING = 4  # of the autocorrelation, without which a peak between two samples would look too low


@dataclass(frozen=True)
class PitchAgreement:
    """How far two pitch tracks agree. Shares are from 0 to 1; None where there is no frame to take a share of."""

    voicing_accuracy: float
    """share of all frames that are voiced in both tracks or unvoiced in both"""
    pitch_accuracy: float | None
    """share of the reference's voiced frames that the estimate has voiced too, within ``PITCH_TOLERANCE_CENTS``"""
    octave_errors: float | None
    """share of the frames voiced in both tracks that are ``OCTAVE_TOLERANCE_CENTS`` or less from an octave apart"""


def pitch_agreement(reference: np.ndarray, estimate: np.ndarray) -> PitchAgreement:
    """Agreement of a pitch track with that of the original recording.

    Parameters
    ----------
    reference, estimate : (frames,)
        Pitch tracks in Hz, 0 where unvoiced.

    Raises
    ------
    ValueError
        A track is empty.

    >>> pitch_agreement(np.array([0.0, 200.0, 200.0, 200.0]), np.array([0.0, 0.0, 202.0, 400.0]))
    PitchAgreement(voicing_accuracy=0.75, pitch_accuracy=0.3333333333333333, octave_errors=0.5)
    """
    reference, estimate = _same_length(reference, estimate, "pitch track")
    both = (reference > 0) & (estimate > 0)
    distance = np.abs(_cents(estimate[both]) - _cents(reference[both]))
    close = distance <= PITCH_TOLERANCE_CENTS
    octave = np.abs(distance - 1200) <= OCTAVE_TOLERANCE_CENTS
    return PitchAgreement(
        voicing_accuracy=float(np.mean((reference > 0) == (estimate > 0))),
        pitch_accuracy=_share(close, reference > 0),
        octave_errors=_share(octave, both),
    )


def stft_distance(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Distance of two signals' short-time spectra at several resolutions, in nats of magnitude; phase does not count.

    It is the mean absolute difference of the log magnitudes, averaged over FFTs of ``STFT_SIZES`` samples. The Hann
    windows have unit energy, so that noise is equally loud at every resolution. Magnitudes below 1e-4 count as silence.

    Parameters
    ----------
    reference, estimate : (samples,)

    Raises
    ------
    ValueError
        A signal is empty.

    >>> noise = np.random.default_rng(0).standard_normal(24000).astype(np.float32)
    >>> round(stft_distance(noise, 2 * noise), 3)  # ln 2
    0.693
    """
    reference, estimate = _same_length(reference, estimate, "signal")
    return float(
        np.mean([log_mel_error(_log_stft(reference, n_fft), _log_stft(estimate, n_fft)) for n_fft in STFT_SIZES])
    )


def mel_cepstral_distortion(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """Mel-cepstral distortion in dB: how far apart the spectral envelopes of two signals are, whatever their gain.

    It is 10 / ln 10 · √(2 Σ Δc²) over the mel cepstra c₁ to c₂₄, averaged over frames. That is the root mean square
    difference in dB of two log-mel spectra of 80 bands, smoothed to 24 cosines and without their means. Frames are
    compared at equal times, without time warping.

    Parameters
    ----------
    reference, estimate : (samples,)
    sample_rate
        Of both signals, in Hz, at least 4000. At 24000 Hz a window has 1024 samples; at others it lasts about as long.

    Raises
    ------
    ValueError
        A signal is empty.

    >>> noise = np.random.default_rng(0).standard_normal(24000).astype(np.float32)
    >>> bool(mel_cepstral_distortion(noise, 2 * noise, 24000) < 0.01)
    True
    """
    reference, estimate = _same_length(reference, estimate, "signal")
    difference = _mel_cepstra(reference, sample_rate) - _mel_cepstra(estimate, sample_rate)
    distortion = 10 / np.log(10) * np.sqrt(2 * np.sum(np.square(difference), axis=0))
    return float(np.mean(distortion, dtype=np.float64))


def full_band_error(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """Mean absolute difference of two signals' log-mel power in 80 bands from 0 Hz to half the sample rate, in nats.

    Unlike the bands that a model sees, these leave out nothing that is heard. Mel power below 1e-5 counts as silence.

    Parameters
    ----------
    reference, estimate : (samples,)
    sample_rate
        Of both signals, in Hz. At 24000 Hz a window has 2048 samples; at others it lasts about as long.

    Raises
    ------
    ValueError
        A signal is empty, or the sample rate is below about 1100 Hz, where an FFT does not resolve 80 bands.

    >>> noise = np.random.default_rng(0).standard_normal(24000).astype(np.float32)
    >>> round(full_band_error(noise, 2 * noise, 24000), 3)  # 2 ln 2: four times the power
    1.386
    """
    reference, estimate = _same_length(reference, estimate, "signal")
    n_fft = _scaled_n_fft(2048, sample_rate)
    spec = MelSpec(
        sample_rate=sample_rate,
        n_fft=n_fft,
        hop_length=n_fft // 4,
        n_mels=MEL_BANDS,
        fmin=0.0,
        fmax=sample_rate / 2,
        floor=1e-5,
    )
    return log_mel_error(log_mel(reference, spec), log_mel(estimate, spec))


def harmonics_to_noise(signal: np.ndarray, track: np.ndarray, sample_rate: int) -> float | None:
    """Harmonics-to-noise ratio in dB, the mean over voiced frames; from −30 dB to 30 dB.

    The method is that of Boersma (1993), "Accurate short-term analysis of the fundamental frequency and the
    harmonics-to-noise ratio of a sampled sound": the highest peak r of a frame's autocorrelation, divided by that of
    its window, is the harmonic share of the power, and the ratio is r / (1 − r). Peaks are looked for at the periods of
    ``HNR_PITCH_HZ``. White noise has −6 dB at a sample rate of 8 kHz and −9 dB at 48 kHz, since the highest of many
    chance peaks is not 0. A frame of silence has −30 dB.

    Parameters
    ----------
    signal : (samples,)
    track : (frames,)
        The signal's pitch in Hz, 0 where unvoiced. It only says which frames are voiced.
    sample_rate
        Of the signal, in Hz.

    Returns
    -------
    float or None
        None if there is no voiced frame whose window of ``HNR_WINDOW_SECONDS`` lies wholly inside the signal.

    Raises
    ------
    ValueError
        The signal is empty.

    >>> time = np.arange(24000) / 24000
    >>> tone = np.sin(2 * np.pi * 220 * time).astype(np.float32)
    >>> noise = np.random.default_rng(0).standard_normal(24000).astype(np.float32)
    >>> track = np.full(62, 220, np.float32)
    >>> round(harmonics_to_noise(tone + np.sqrt(0.05, dtype=np.float32) * noise, track, 24000))  # powers 0.5 and 0.05
    10
    """
    _refuse_empty(signal, "signal")
    size = round(HNR_WINDOW_SECONDS * sample_rate)
    starts = np.rint(np.arange(len(track)) * FRAME_SECONDS * sample_rate).astype(int) - size // 2
    starts = starts[(track > 0) & (starts >= 0) & (starts + size <= len(signal))]
    if not len(starts):
        return None
    frames = np.lib.stride_tricks.sliding_window_view(signal, size)
    total = 0.0
    for first in range(0, len(starts), BLOCK_FRAMES):
        harmonic = _harmonic_share(frames[starts[first : first + BLOCK_FRAMES]], sample_rate)
        harmonic = np.clip(harmonic.astype(np.float64), 0.001, 0.999)
        total += np.sum(10 * np.log10(harmonic / (1 - harmonic)))
    return float(total / len(starts))


@dataclass(frozen=True)
class VoiceStatistics:
    """Summary of the pitch tracks of a set of recordings. The pitch is None if no frame is voiced."""

    voiced_share: float
    """share of all frames, from 0 to 1"""
    pitch_low: float | None
    """5th percentile of the pitch of voiced frames, in Hz"""
    pitch_median: float | None
    """in Hz"""
    pitch_high: float | None
    """95th percentile, in Hz"""
    jitter_cents: float | None
    """see :func:`voice_statistics`; None if nowhere three neighbouring frames are voiced without a large step"""


def voice_statistics(tracks: Sequence[np.ndarray]) -> VoiceStatistics:
    """Share of voiced frames, pitch range and jitter of a set of pitch tracks, over all their frames together.

    Jitter is how unsteady the pitch is from frame to frame: the mean of |p₁ − 2p₂ + p₃| in cents over all three
    neighbouring voiced frames. A steady tone and a steady glide have none. Steps of more than ``MAX_STEP_CENTS`` are
    left out. It is not the jitter of phonetics, which is between the periods of the voice.

    Parameters
    ----------
    tracks : sequence of (frames,)
        Pitch tracks in Hz, 0 where unvoiced.

    Raises
    ------
    ValueError
        There is no frame in any track.

    >>> statistics = voice_statistics([np.array([0.0, 200.0, 200.0, 200.0]), np.array([100.0, 400.0, 0.0, 0.0])])
    >>> statistics.voiced_share, statistics.pitch_median, statistics.jitter_cents
    (0.625, 200.0, 0.0)
    """
    pitch = np.concatenate([np.zeros(0), *tracks])
    _refuse_empty(pitch, "set of pitch tracks")
    voiced = pitch[pitch > 0]
    low, median, high = np.percentile(voiced, [5, 50, 95]).tolist() if len(voiced) else (None, None, None)
    bends = np.concatenate([_pitch_bends(track) for track in tracks])
    return VoiceStatistics(
        voiced_share=len(voiced) / len(pitch),
        pitch_low=low,
        pitch_median=median,
        pitch_high=high,
        jitter_cents=float(np.mean(np.abs(bends))) if len(bends) else None,
    )


def _refuse_empty(values: np.ndarray, name: str) -> None:
    if not len(values):
        raise ValueError(f"empty {name}: it has no metrics")


def _same_length(a: np.ndarray, b: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Both cut to the length of the shorter, which must not be empty."""
    length = min(len(a), len(b))
    _refuse_empty(a[:length], name)
    return a[:length], b[:length]


def _share(part: np.ndarray, whole: np.ndarray) -> float | None:
    """Number of True values in ``part`` for each in ``whole``."""
    return float(part.sum() / whole.sum()) if whole.any() else None


def _cents(pitch: np.ndarray) -> np.ndarray:
    """Pitch in cents above 1 Hz, float64."""
    return 1200 * np.log2(pitch, dtype=np.float64)


def _pitch_bends(track: np.ndarray) -> np.ndarray:
    """Second differences in cents of three neighbouring voiced frames without a step above ``MAX_STEP_CENTS``."""
    # An unvoiced frame becomes NaN and makes NaN of every difference that it is in.
    steps = np.diff(_cents(np.where(track > 0, track, np.nan)))
    steps[np.abs(steps) > MAX_STEP_CENTS] = np.nan
    bends = np.diff(steps)
    return bends[np.isfinite(bends)]


def _scaled_n_fft(at_24_khz: int, sample_rate: int) -> int:
    """The power of two that lasts about as long at a sample rate as ``at_24_khz`` samples at 24 kHz."""
    return 2 ** round(np.log2(at_24_khz * sample_rate / 24000))


def _padded(signal: np.ndarray, n_fft: int) -> np.ndarray:
    """Signal with silence around it, so that its first frame is centred on its first sample.

    librosa would do it too, but it warns of signals shorter than a window.
    """
    return np.pad(signal, n_fft // 2)


def _log_stft(signal: np.ndarray, n_fft: int) -> np.ndarray:
    """Log magnitudes of a short-time Fourier transform in nats, (1 + n_fft // 2, frames)."""
    window = hann_window(n_fft) / np.linalg.norm(hann_window(n_fft))
    spectrum = librosa.stft(_padded(signal, n_fft), n_fft=n_fft, hop_length=n_fft // 4, window=window, center=False)
    return 0.5 * np.log(np.square(np.abs(spectrum)) + 1e-8)


def _mel_cepstra(signal: np.ndarray, sample_rate: int) -> np.ndarray:
    """Mel cepstra c₁ to c₂₄ (24, frames): the amplitudes in nats of cosines that add up to the log spectrum."""
    n_fft = _scaled_n_fft(1024, sample_rate)
    power = librosa.feature.melspectrogram(
        y=_padded(signal, n_fft), sr=sample_rate, n_fft=n_fft, hop_length=n_fft // 4, n_mels=MEL_BANDS, center=False
    )
    cepstra = scipy.fft.dct(0.5 * np.log(power + 1e-7), type=2, norm="ortho", axis=0)
    return np.sqrt(2 / MEL_BANDS) * cepstra[1 : MEL_CEPSTRA + 1]


def _harmonic_share(frames: np.ndarray, sample_rate: int) -> np.ndarray:
    """Highest peak (frames,) of the normalised autocorrelation of frames (frames, samples); 0 where there is none."""
    window = hann_window(frames.shape[1])
    lowest, highest = HNR_PITCH_HZ
    lag_rate = HNR_OVERSAMPLING * sample_rate
    # One lag more on each side, since a peak is seen by its neighbours.
    lags = slice(int(lag_rate / highest) - 1, int(np.ceil(lag_rate / lowest)) + 2)

    def autocorrelation(x: np.ndarray) -> np.ndarray:
        """Autocorrelation at the lags, as a share of that at lag 0."""
        # Long enough that the lags which matter do not wrap around.
        length = scipy.fft.next_fast_len(x.shape[-1] + int(np.ceil(sample_rate / lowest)) + 1, real=True)
        spectrum = scipy.fft.rfft(x, length)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        correlation = scipy.fft.irfft(power, HNR_OVERSAMPLING * length)  # zeros above the Nyquist frequency interpolate
        return correlation[..., lags] / np.maximum(correlation[..., :1], np.finfo(correlation.dtype).tiny)

    centred = frames - frames.mean(axis=1, keepdims=True)
    correlation = autocorrelation(centred * window) / autocorrelation(window)
    before, here, after = correlation[:, :-2], correlation[:, 1:-1], correlation[:, 2:]
    # The slope from lag 0, which is high in any dull sound, must not count as a peak.
    peak = np.argmax(np.where((here >= before) & (here >= after), here, -np.inf), axis=1)[:, None]
    before, here, after = (np.take_along_axis(x, peak, axis=1)[:, 0] for x in (before, here, after))
    is_peak = (here >= before) & (here >= after)
    # The top of the parabola through the three. At a peak the curvature is 0 only where all three are equal.
    curvature = np.minimum(before - 2 * here + after, -np.finfo(here.dtype).tiny)
    return np.where(is_peak, here - np.square(before - after) / (8 * curvature), 0)
