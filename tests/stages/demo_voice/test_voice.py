"""The built-in singer: melodies, formants, sources and phrases, measured by other means than they are made with."""

import hashlib
import subprocess
import sys
from itertools import groupby, islice

import librosa
import numpy as np
import pytest
import scipy.signal

from melnet.audio.pitch import pitch_of
from stages.demo_voice.melody import HIGHEST, LOWEST, Note, compose
from stages.demo_voice.phones import VOWELS
from stages.demo_voice.source import glottal_series, oscillate
from stages.demo_voice.tract import response
from stages.demo_voice.voice import HOLD, sing, song

RATE = 48000
BREATH = 0.3


def sung(*notes: Note, rate: int = RATE, seed: int = 0) -> np.ndarray:
    return sing(notes, rate, np.random.default_rng(seed), breath=BREATH, rest=0.5)


def sustained(samples: np.ndarray, seconds: float, rate: int = RATE) -> np.ndarray:
    """The steady part of a phrase that is a single note of ``seconds``."""
    start = BREATH + HOLD
    return samples[round((start + 0.2) * rate) : round((start + seconds - 0.2) * rate)]


def level_db(samples: np.ndarray, low_hz: float, high_hz: float, rate: int = RATE) -> float:
    frequency_hz, power = scipy.signal.welch(samples, rate, nperseg=min(4096, len(samples)))
    return 10 * np.log10(power[(frequency_hz >= low_hz) & (frequency_hz < high_hz)].sum())


def test_same_seed_gives_the_same_samples_in_another_process() -> None:
    program = (
        "import hashlib, numpy as np; from stages.demo_voice.voice import song; "
        "print(hashlib.sha256(b''.join(x.tobytes() for x in song(np.random.default_rng(7), 5, 48000))).hexdigest())"
    )
    fresh = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    here = b"".join(phrase.tobytes() for phrase in song(np.random.default_rng(7), 5, RATE))
    assert fresh.stdout.strip() == hashlib.sha256(here).hexdigest()


def test_another_seed_gives_another_song() -> None:
    first, second = (next(compose(np.random.default_rng(seed))) for seed in (1, 2))
    assert first != second


@pytest.mark.parametrize("seconds", [1.0, 20.0])
def test_song_lasts_as_long_as_asked_and_ends_with_a_phrase(seconds: float) -> None:
    phrases = list(song(np.random.default_rng(3), seconds, RATE))
    total = sum(map(len, phrases)) / RATE
    assert total - len(phrases[-1]) / RATE < seconds <= total


def test_song_is_well_levelled() -> None:
    samples = np.concatenate(list(song(np.random.default_rng(4), 20.0, RATE)))
    assert 0.3 < np.abs(samples).max() < 0.9
    assert abs(samples.mean()) < 1e-3
    loudness = librosa.feature.rms(y=samples, frame_length=2048, hop_length=480)[0]
    assert loudness.min() > 1e-4  # a room is never digitally silent
    quiet = loudness < 0.01
    assert 0.05 < quiet.mean() < 0.5
    longest = max(len(list(run)) for silent, run in groupby(quiet) if silent)
    assert longest < 200  # hops of 10 ms


def test_melody_is_singable_and_its_words_return() -> None:
    for seed in range(20):
        phrases = list(islice(compose(np.random.default_rng(seed)), 8))
        for note in (note for phrase in phrases for note in phrase):
            assert LOWEST <= note.pitch <= HIGHEST
            assert 0 < note.loudness <= 1
            assert 0.2 < note.seconds < 4
        words = [[(note.consonant, note.vowel) for note in phrase] for phrase in phrases]
        assert words[:4] == words[4:]
        assert phrases[1][-1].pitch % 12 == phrases[3][-1].pitch % 12  # both come home to the tonic


@pytest.mark.parametrize("pitch", [LOWEST, 64, HIGHEST])
@pytest.mark.parametrize("vowel", ["a", "i", "u"])
def test_fundamental_is_the_written_note(pitch: int, vowel: str) -> None:
    note = sustained(sung(Note(pitch, 2.0, 0.8, vowel)), 2.0)
    # Not by librosa.yin: Numba compiled it beside TensorFlow's own LLVM, and once the process crashed.
    tracked_hz = pitch_of(note.astype(np.float32), RATE)[5:-5]
    cents = 1200 * np.log2(tracked_hz / librosa.midi_to_hz(pitch))
    assert abs(np.median(cents)) < 20
    assert np.abs(cents).max() < 100  # vibrato
    assert np.ptp(cents) > 20


@pytest.mark.parametrize("vowel", list(VOWELS))
def test_tract_resonates_at_the_formants(vowel: str) -> None:
    phone = VOWELS[vowel]
    tract = np.array([[*phone.formants_hz, *phone.bandwidths_hz, phone.nasality, phone.antiformant_hz]])
    gain = np.abs(response(tract, np.arange(1.0, 5500.0)[None]))[0]
    peaks_hz = scipy.signal.find_peaks(gain)[0] + 1.0
    assert np.abs(response(tract, np.zeros((1, 1)))) == pytest.approx(1.0)
    np.testing.assert_allclose(peaks_hz, phone.formants_hz, atol=25)


@pytest.mark.parametrize(
    ("vowel", "formant_hz", "low_hz", "high_hz"),
    [
        ("a", 800, 0, 1000),
        ("a", 1150, 1000, 2000),
        ("i", 350, 0, 1000),
        ("i", 1700, 1000, 2200),
        ("i", 2700, 2200, 3200),
    ],
)
def test_sung_vowel_is_strongest_at_its_formants(vowel: str, formant_hz: float, low_hz: float, high_hz: float) -> None:
    note = sustained(sung(Note(LOWEST, 1.5, 0.8, vowel)), 1.5)
    harmonics_hz = 220.0 * np.arange(1, 30)
    harmonics_hz = harmonics_hz[(harmonics_hz > low_hz) & (harmonics_hz < high_hz)]
    strongest = max(harmonics_hz, key=lambda centre_hz: level_db(note, centre_hz - 80, centre_hz + 80))
    assert abs(strongest - formant_hz) <= 140  # half a step between harmonics, and vibrato


def test_louder_is_brighter() -> None:
    soft, loud = (sustained(sung(Note(64, 1.5, effort, "a")), 1.5) for effort in (0.3, 1.0))
    assert level_db(loud, 100, 8000) - level_db(soft, 100, 8000) > 8
    soft_tilt, loud_tilt = (level_db(note, 200, 1500) - level_db(note, 2000, 5000) for note in (soft, loud))
    assert soft_tilt > loud_tilt + 2


def test_glottal_series_is_that_of_the_pulse() -> None:
    open_quotient, harmonic = 0.6, np.arange(1, 9)
    x = (np.arange(2**16) + 0.5) / 2**16
    pulse = np.where(x < open_quotient, 2 * x - 3 * x**2 / open_quotient, 0.0) / open_quotient
    expected = np.fft.fft(pulse)[harmonic] / len(x) * np.exp(-1j * np.pi * harmonic / len(x))
    series = glottal_series(harmonic, np.array([[open_quotient]]))
    np.testing.assert_allclose(series[0], expected, atol=1e-4)


def test_harmonics_alone_are_heard() -> None:
    spectrum = np.tile(1.0 / np.arange(1, 81), (1000, 1)).astype(complex)
    time = np.arange(2 * RATE) / RATE
    samples = oscillate(spectrum, 200.0 * time, 200.0 * time)
    expected = sum(2 / k * np.cos(2 * np.pi * 200.0 * k * time) for k in range(1, 81))
    assert np.sqrt(np.mean((samples - expected) ** 2)) < 1e-2 * np.sqrt(np.mean(expected**2))


def test_breath_is_heard_before_and_rest_after_the_notes() -> None:
    samples = sung(Note(64, 1.0, 0.8, "a"))
    voiced = np.std(sustained(samples, 1.0))
    breath = np.std(samples[round(0.1 * RATE) : round(0.2 * RATE)])
    assert -50 < 20 * np.log10(breath / voiced) < -15
    assert np.std(samples[-round(0.1 * RATE) :]) < voiced / 300


def test_consonants_sound_in_their_bands() -> None:
    def before_second_note(consonant: str, start: float, end: float) -> np.ndarray:
        samples = sung(Note(60, 0.6, 0.8, "a"), Note(60, 0.6, 0.8, "a", consonant))
        onset = BREATH + HOLD + 0.6
        return samples[round((onset - start) * RATE) : round((onset - end) * RATE)]

    sibilant, slur = (before_second_note(consonant, 0.09, 0.02) for consonant in ("s", ""))
    assert level_db(sibilant, 5000, 9000) - level_db(slur, 5000, 9000) > 10
    assert level_db(slur, 200, 2000) - level_db(sibilant, 200, 2000) > 20
    palatal = before_second_note("sh", 0.09, 0.02)
    assert level_db(palatal, 3000, 5000) > level_db(palatal, 6000, 9000)
    nasal = before_second_note("m", 0.07, 0.02)
    assert level_db(nasal, 200, 400) - level_db(nasal, 700, 4000) > 10
    gap, burst = before_second_note("t", 0.07, 0.05), before_second_note("t", 0.032, 0.02)
    assert level_db(burst, 3000, 9000) - level_db(gap, 3000, 9000) > 15


def test_no_clicks_at_note_borders() -> None:
    samples = sung(*(Note(pitch, 0.4, 0.8, vowel) for pitch, vowel in zip((60, 67, 59, 72), "aiou", strict=True)))
    above = scipy.signal.butter(8, 17500, "highpass", fs=RATE, output="sos")  # no harmonic is up there
    assert np.abs(scipy.signal.sosfiltfilt(above, samples)).max() < 1e-3 * np.abs(samples).max()


@pytest.mark.parametrize("rate", [8000, 22050, 192000])
def test_any_sample_rate(rate: int) -> None:
    note = sustained(sung(Note(69, 0.8, 0.8, "o", "sh"), rate=rate), 0.8, rate)
    assert level_db(note, 400, 500, rate) > level_db(note, 10, 300, rate) + 10
