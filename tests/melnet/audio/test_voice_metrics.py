"""Metrics of a voice, against answers that are known from how the signals and pitch tracks were made."""

import tracemalloc

import librosa
import numpy as np
import pytest

from melnet.audio import voice_metrics
from melnet.audio.voice_metrics import (
    PitchAgreement,
    full_band_error,
    harmonics_to_noise,
    mel_cepstral_distortion,
    pitch_agreement,
    stft_distance,
    voice_statistics,
)

SAMPLE_RATES = [8000, 16000, 22050, 24000, 44100, 48000]


def with_rate(metric, rate=24000):
    """The metric of two signals, whether or not it asks for their sample rate."""
    return metric if metric is stft_distance else lambda a, b: metric(a, b, rate)


two_signals = pytest.mark.parametrize("metric", [stft_distance, mel_cepstral_distortion, full_band_error])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def noise(rng, samples=24000):
    return rng.standard_normal(samples).astype(np.float32)


def tone(hz, rate, samples):
    """Harmonics of falling amplitude up to nearly half the sample rate, of power 1."""
    harmonics = np.arange(1, int(0.47 * rate / hz) + 1)[:, None]
    phases = np.random.default_rng(1).uniform(0, 2 * np.pi, harmonics.shape)
    signal = np.sum(np.sin(2 * np.pi * harmonics * hz * np.arange(samples) / rate + phases) / harmonics, axis=0)
    return (signal / signal.std()).astype(np.float32)


def steady(hz, frames=60):
    return np.full(frames, hz, np.float32)


def detuned(track, cents):
    return (track * 2 ** (np.asarray(cents) / 1200)).astype(np.float32)


# Pitch agreement


def test_a_track_agrees_with_itself(rng):
    track = np.where(rng.random(200) < 0.5, 0, rng.uniform(80, 600, 200)).astype(np.float32)
    assert pitch_agreement(track, track) == PitchAgreement(voicing_accuracy=1, pitch_accuracy=1, octave_errors=0)


@pytest.mark.parametrize(
    ("cents", "pitch_accuracy", "octave_errors"),
    [
        (30, 1, 0),
        (-30, 1, 0),
        (80, 0, 0),
        (-80, 0, 0),
        (700, 0, 0),
        (1090, 0, 0),
        (1110, 0, 1),
        (1200, 0, 1),
        (-1200, 0, 1),
        (-1290, 0, 1),
        (-1310, 0, 0),
        (2400, 0, 0),
    ],
)
def test_pitch_accuracy_and_octave_errors_of_a_detuned_track(cents, pitch_accuracy, octave_errors):
    agreement = pitch_agreement(steady(220), detuned(steady(220), cents))
    assert agreement == PitchAgreement(1, pitch_accuracy, octave_errors)


def test_shares_are_of_the_frames_they_say():
    # Three frames unvoiced in both, one voiced in the estimate alone, one in the reference alone, two right, an octave.
    reference = np.float32([0, 0, 0, 0, 200, 200, 200, 200])
    estimate = np.float32([0, 0, 0, 99, 0, 200, 201, 400])
    expected = PitchAgreement(voicing_accuracy=6 / 8, pitch_accuracy=2 / 4, octave_errors=1 / 3)
    assert pitch_agreement(reference, estimate) == expected


def test_only_the_voiced_frames_of_the_reference_can_be_right(rng):
    a, b = (np.where(rng.random(500) < 0.3, 0, rng.choice([200, 201, 400], 500)).astype(np.float32) for _ in range(2))
    there, back = pitch_agreement(a, b), pitch_agreement(b, a)
    assert (there.voicing_accuracy, there.octave_errors) == (back.voicing_accuracy, back.octave_errors)
    assert there.pitch_accuracy * (a > 0).sum() == pytest.approx(back.pitch_accuracy * (b > 0).sum())
    assert there.pitch_accuracy != back.pitch_accuracy


def test_unvoiced_tracks_have_no_pitch_to_agree_on():
    with np.errstate(all="raise"):
        assert pitch_agreement(steady(0), steady(0)) == PitchAgreement(1, None, None)
        assert pitch_agreement(steady(200), steady(0)) == PitchAgreement(0, 0, None)


def test_the_longer_track_is_cut():
    longer = np.concatenate([steady(220, 10), steady(0, 50)])
    assert pitch_agreement(longer, steady(220, 10)) == PitchAgreement(1, 1, 0)
    assert pitch_agreement(steady(220, 10), longer) == PitchAgreement(1, 1, 0)


# Distances of two signals


@two_signals
def test_distance_of_a_signal_from_itself_is_zero(metric, rng):
    signal = noise(rng)
    assert with_rate(metric)(signal, signal) == 0


@two_signals
def test_distance_is_symmetric(metric, rng):
    a, b = noise(rng), tone(220, 24000, 24000)
    distance = with_rate(metric)
    assert distance(a, b) > 0.5
    assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-6)


@two_signals
@pytest.mark.parametrize("rate", SAMPLE_RATES)
@pytest.mark.filterwarnings("error")
def test_distances_are_finite_at_every_sample_rate(metric, rate, rng):
    a, silence = noise(rng, rate // 2), np.zeros(rate // 2, np.float32)
    distance = with_rate(metric, rate)
    assert distance(silence, silence) == 0
    assert np.isfinite(distance(a, silence))
    assert distance(a, silence) > 1
    assert np.isfinite(distance(a[:10], a[1:11]))  # shorter than any window


@two_signals
def test_the_longer_signal_is_cut(metric, rng):
    a, b = noise(rng), noise(rng, 20000)
    distance = with_rate(metric)
    assert distance(a, b) == distance(a[:20000], b)
    assert distance(b, a) == distance(b, a[:20000])


@pytest.mark.parametrize("rate", SAMPLE_RATES)
@pytest.mark.parametrize(("metric", "window"), [(mel_cepstral_distortion, 1024), (full_band_error, 2048)])
def test_windows_last_about_as_long_at_every_sample_rate(metric, window, rate, rng):
    """A click differs from a filtered click for as long as a window lasts; noise differs from filtered noise always."""
    sound, click = noise(rng, rate), np.zeros(rate, np.float32)
    click[rate // 2 + 11] = 1e4
    filtered_sound, filtered_click = (x - np.float32(0.9) * np.roll(x, 1) for x in (sound, click))
    share = metric(click, filtered_click, rate) / metric(sound, filtered_sound, rate)
    seconds = 2 ** round(np.log2(window * rate / 24000)) / rate
    assert abs(np.log2(seconds / (window / 24000))) < 0.5
    assert share == pytest.approx(seconds, rel=0.15)


@pytest.mark.parametrize("gain", [2.0, 0.5])
def test_stft_distance_of_a_gain_is_its_logarithm(gain, rng):
    signal = noise(rng)
    assert stft_distance(signal, np.float32(gain) * signal) == pytest.approx(np.log(2), abs=1e-4)


def test_stft_distance_bounds_silence_at_a_level_that_does_not_depend_on_the_window(rng, monkeypatch):
    """White noise of deviation σ has power σ² in every bin of a window of unit energy; here it is near the floor."""
    silence, quiet = np.zeros(96000, np.float32), np.float32(1e-4) * noise(rng, 96000)
    distances = []
    for size in (2048, 1024, 512):
        monkeypatch.setattr(voice_metrics, "STFT_SIZES", (size,))
        distances.append(stft_distance(silence, quiet))
    # A bin's power is exponentially distributed: the mean of ½ log(1 + p) over it.
    power = np.linspace(0, 40, 400_001)
    expected = np.trapezoid(np.exp(-power) * 0.5 * np.log1p(power), power)
    assert distances == pytest.approx([expected] * 3, rel=0.03)


def test_stft_distance_does_not_see_phase_but_sees_time(rng):
    pulse = np.zeros(48000, np.float32)
    pulse[24000] = 100
    assert stft_distance(pulse, -pulse) == 0
    assert stft_distance(pulse, np.roll(pulse, 3)) < 0.1
    assert stft_distance(pulse, np.roll(pulse, 8000)) > 5 * stft_distance(pulse, np.roll(pulse, 3))


@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_full_band_error_of_a_gain_is_twice_its_logarithm(rate, rng):
    signal = noise(rng, rate)
    assert full_band_error(signal, 2 * signal, rate) == pytest.approx(2 * np.log(2), abs=1e-4)


@pytest.mark.parametrize("rate", SAMPLE_RATES)
@pytest.mark.parametrize("share_of_nyquist", [0.01, 0.97])
def test_full_band_error_sees_the_whole_band(rate, share_of_nyquist, rng):
    hz = share_of_nyquist * rate / 2
    background = np.float32(0.01) * noise(rng, rate)
    beep = background + np.sin(2 * np.pi * hz * np.arange(rate) / rate).astype(np.float32)
    assert full_band_error(background, beep, rate) > 0.05


@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_mel_cepstral_distortion_ignores_gain(rate, rng):
    signal = noise(rng, rate // 2)
    assert mel_cepstral_distortion(signal, 4 * signal, rate) < 0.1
    assert mel_cepstral_distortion(signal, tone(220, rate, rate // 2), rate) > 3


@pytest.mark.parametrize(("cosine", "counts"), [(1, True), (4, True), (12, True), (24, True), (25, False), (30, False)])
def test_mel_cepstral_distortion_is_the_deviation_in_db_of_a_ripple(cosine, counts, rng):
    """A ripple of the log spectrum over the mel bands, 0.1 nats high; only the first 24 cosines count."""
    nats, rate = 0.1, 24000
    signal = noise(rng)
    centres = librosa.mel_frequencies(82, fmin=0, fmax=rate / 2)[1:-1]
    band = np.interp(np.fft.rfftfreq(len(signal), 1 / rate), centres, np.arange(80))
    ripple = np.exp(nats * np.cos(np.pi * cosine * (band + 0.5) / 80))
    rippled = np.fft.irfft(ripple * np.fft.rfft(signal)).astype(np.float32)
    expected = counts * 20 / np.log(10) * nats / np.sqrt(2)
    assert mel_cepstral_distortion(signal, rippled, rate) == pytest.approx(expected, rel=0.1, abs=0.08)


# Harmonics-to-noise ratio


@pytest.mark.parametrize("rate", SAMPLE_RATES)
@pytest.mark.parametrize("hz", [97.3, 217, 590])
@pytest.mark.parametrize("decibels", [10, 20])
def test_harmonics_to_noise_ratio_of_a_tone_in_noise(rate, hz, decibels, rng):
    signal = tone(hz, rate, rate // 2) + np.float32(10 ** (-decibels / 20)) * noise(rng, rate // 2)
    assert harmonics_to_noise(signal, steady(hz), rate) == pytest.approx(decibels, abs=1.5)


@pytest.mark.parametrize("rate", SAMPLE_RATES)
@pytest.mark.parametrize("hz", [150, 217.3, 331.7, 588.8])
def test_sharp_peaks_between_two_samples_have_their_whole_height(rate, hz, rng):
    """High harmonics as strong as low ones make the autocorrelation a train of pulses."""
    harmonics = np.arange(1, int(0.47 * rate / hz))[:, None]
    pulses = np.cos(2 * np.pi * hz * harmonics * np.arange(rate // 2) / rate).sum(axis=0)
    pulses = (pulses / pulses.std()).astype(np.float32)
    assert harmonics_to_noise(pulses, steady(hz), rate) > 28
    noisy = pulses + np.float32(0.1) * noise(rng, rate // 2)
    assert harmonics_to_noise(noisy, steady(hz), rate) == pytest.approx(20, abs=1.5)


@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_white_noise_has_a_low_ratio(rate, rng):
    assert -12 < harmonics_to_noise(noise(rng, rate // 2), steady(200), rate) < -5


def test_dull_sounds_have_no_peak_at_the_shortest_period(rng):
    """A drift, or noise below 20 Hz, is much like itself 1/600 s later without a period that is looked for."""
    drift = np.linspace(0, 1, 48000, dtype=np.float32)
    assert harmonics_to_noise(drift, steady(200, 120), 24000) == pytest.approx(-30, abs=0.01)
    spectrum = np.fft.rfft(noise(rng, 48000))
    spectrum[40:] = 0
    rumble = np.fft.irfft(spectrum).astype(np.float32)
    assert harmonics_to_noise(rumble, steady(200, 120), 24000) < -20


def test_a_low_voice_is_found_under_a_louder_hum():
    """The hum is more alike after 1/600 s than the voice after its own period of 1/100 s."""
    time = np.arange(24000) / 24000
    voice = np.cos(2 * np.pi * 100 * np.arange(1, 110)[:, None] * time).sum(axis=0)
    hum = np.sin(2 * np.pi * 30 * time)
    signal = 3 * hum / hum.std() + voice / voice.std()
    assert harmonics_to_noise(signal.astype(np.float32), steady(100), 24000) > 0


def test_a_quick_glide_of_a_high_voice_is_compared_over_one_period():
    """Over two periods it would have 20 dB."""
    cycles = np.cumsum(np.linspace(450, 590, 12000)) / 24000
    signal = sum(np.sin(2 * np.pi * harmonic * cycles) / harmonic for harmonic in range(1, 19))
    assert harmonics_to_noise(signal.astype(np.float32), steady(500), 24000) > 24


def test_ratio_does_not_depend_on_gain_or_offset(rng):
    signal = tone(220, 24000, 24000) + np.float32(0.2) * noise(rng)
    ratio = harmonics_to_noise(signal, steady(220), 24000)
    assert harmonics_to_noise(np.float32(1e-3) * signal, steady(220), 24000) == pytest.approx(ratio, abs=0.01)
    assert harmonics_to_noise(signal + np.float32(3), steady(220), 24000) == pytest.approx(ratio, abs=0.05)


def test_voiced_frames_alone_count_at_their_times(rng):
    """Half a second of a tone, then half a second of noise."""
    signal = np.concatenate([tone(220, 24000, 12000), noise(rng, 12000)])
    time = 0.016 * np.arange(63)
    first, second = (np.where((start <= time) & (time < start + 0.45), np.float32(220), 0) for start in (0.025, 0.525))
    assert harmonics_to_noise(signal, first, 24000) > 29
    assert harmonics_to_noise(signal, second, 24000) < -5


def test_ratio_is_a_mean_in_db_over_frames(rng):
    signal, track = tone(220, 24000, 24000) + noise(rng), steady(220)
    each = [harmonics_to_noise(signal, np.where(np.arange(60) == i, track, 0), 24000) for i in range(60)]
    inside = [ratio for ratio in each if ratio is not None]
    assert len(inside) == 58  # a window reaches 21.5 ms to each side, which is before the signal in frames 0 and 1
    assert harmonics_to_noise(signal, track, 24000) == pytest.approx(np.mean(inside), abs=1e-6)


def test_blocks_of_frames_do_not_show(rng, monkeypatch):
    signal, track = tone(220, 24000, 24000) + noise(rng), steady(220)
    whole = harmonics_to_noise(signal, track, 24000)
    monkeypatch.setattr(voice_metrics, "BLOCK_FRAMES", 7)
    assert harmonics_to_noise(signal, track, 24000) == pytest.approx(whole, abs=1e-6)


def test_memory_does_not_grow_with_the_signal(rng):
    signal = noise(rng, 60 * 24000)
    tracemalloc.start()
    try:
        harmonics_to_noise(signal, steady(200, 3750), 24000)
        assert tracemalloc.get_traced_memory()[1] < 20e6  # all autocorrelations together would take 80 MB
    finally:
        tracemalloc.stop()


@pytest.mark.filterwarnings("error")
def test_silence_has_the_lowest_ratio_and_unvoiced_signals_have_none(rng):
    silence = np.zeros(24000, np.float32)
    assert harmonics_to_noise(silence, steady(200), 24000) == pytest.approx(-30, abs=0.01)
    assert harmonics_to_noise(silence, steady(0), 24000) is None
    assert harmonics_to_noise(noise(rng), steady(0), 24000) is None
    assert harmonics_to_noise(noise(rng), steady(200, 0), 24000) is None
    assert harmonics_to_noise(noise(rng, 1000), steady(200), 24000) is None  # shorter than a window


# Statistics of pitch tracks


def test_a_steady_tone_and_a_steady_glide_have_no_jitter():
    assert voice_statistics([steady(220)]).jitter_cents == 0
    glide = detuned(steady(220), 20 * np.arange(60))
    assert voice_statistics([glide]).jitter_cents == pytest.approx(0, abs=1e-3)


def test_jitter_of_a_random_walk(rng):
    """The second difference is that of two steps, of √2 times their deviation; |x| of a Gaussian has mean σ√(2 / π)."""
    track = detuned(steady(220, 20_000), np.cumsum(rng.normal(0, 10, 20_000)))
    expected = 10 * np.sqrt(2) * np.sqrt(2 / np.pi)
    assert voice_statistics([track]).jitter_cents == pytest.approx(expected, rel=0.03)


def test_jitter_is_over_runs_of_voiced_frames():
    sharp = detuned(steady(200, 1), 30)[0]
    # |0 − 2 · 30 + 0| = 60 in the first track, and two frames do not make a run; 30 and 60 in the second.
    first = np.float32([200, sharp, 200, 0, 300, 300, 0])
    second = np.float32([200, 200, sharp, 200])
    assert voice_statistics([first]).jitter_cents == pytest.approx(60, abs=1e-3)
    assert voice_statistics([first, second]).jitter_cents == pytest.approx(50, abs=1e-3)
    # Neither a gap nor the border of two tracks joins frames.
    assert voice_statistics([np.float32([200, 200, 0, 210])]).jitter_cents is None
    assert voice_statistics([np.float32([200, 200]), np.float32([210, 200])]).jitter_cents is None


@pytest.mark.parametrize(("step", "jitter"), [(390, 2 * 390 / 4), (-390, 2 * 390 / 4), (410, 0), (-410, 0), (1200, 0)])
def test_jumps_to_another_note_are_no_jitter(step, jitter):
    track = detuned(steady(220, 6), [0, 0, 0, step, step, step])
    assert voice_statistics([track]).jitter_cents == pytest.approx(jitter, abs=1e-3)


def test_pitch_range_is_over_the_voiced_frames_of_all_tracks(rng):
    pitch = rng.permutation(np.linspace(100, 300, 201)).astype(np.float32)
    statistics = voice_statistics([np.concatenate([pitch[:50], steady(0, 99)]), pitch[50:]])
    assert statistics.voiced_share == 201 / 300
    assert (statistics.pitch_low, statistics.pitch_median, statistics.pitch_high) == (110, 200, 290)
    assert all(type(value) is float for value in vars(statistics).values())


@pytest.mark.filterwarnings("error")
def test_unvoiced_tracks_have_no_pitch():
    statistics = voice_statistics([steady(0), steady(0, 0)])
    assert list(vars(statistics).values()) == [0, None, None, None, None]


# What all have in common


@pytest.mark.parametrize(
    "metric",
    [
        lambda empty, full: pitch_agreement(empty, full),
        lambda empty, full: pitch_agreement(full, empty),
        lambda empty, full: stft_distance(empty, full),
        lambda empty, full: mel_cepstral_distortion(full, empty, 24000),
        lambda empty, full: full_band_error(empty, full, 24000),
        lambda empty, full: harmonics_to_noise(empty, full, 24000),
        lambda empty, full: voice_statistics([]),
        lambda empty, full: voice_statistics([empty]),
    ],
)
def test_empty_signals_and_tracks_are_refused(metric):
    with pytest.raises(ValueError, match="empty"):
        metric(steady(0, 0), steady(200))
