"""Audio made from log-mel spectrograms sounds like what they were made of."""

import librosa
import numpy as np
import pytest

from melnet.audio.griffin_lim import Stft, mel_to_audio
from melnet.audio.mel import MelSpec
from melnet.audio.spectrogram import log_mel, log_mel_error

RATE = 24000
MEL = MelSpec(sample_rate=24000, n_fft=2048, hop_length=512, n_mels=32, fmin=300.0, fmax=8000.0, floor=1e-5)
SMALL = MelSpec(sample_rate=24000, n_fft=256, hop_length=100, n_mels=8, fmin=300.0, fmax=8000.0, floor=1e-5)


def sung(seconds: float, f0: float, partials: int, seed: int) -> np.ndarray:
    """A tone with vibrato, decaying partials, a swell and a little noise; float32."""
    t = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * f0 * (t + 0.002 * np.sin(2 * np.pi * 5 * t) / 5)
    tone = sum(np.sin(k * phase) / k for k in range(1, partials + 1))
    noise = np.random.default_rng(seed).normal(0, 1e-3, len(t))
    return (0.2 * np.sin(np.pi * t / seconds) * tone + noise).astype(np.float32)


@pytest.fixture(scope="module")
def signals() -> np.ndarray:
    return np.stack([sung(1.5, f0, 8, seed) for seed, f0 in enumerate([220.0, 440.0, 660.0])])


@pytest.fixture(scope="module")
def log_mels(signals) -> np.ndarray:
    return np.stack([log_mel(signal, MEL) for signal in signals])


def test_error_is_below_that_of_librosa(log_mels):
    audio = mel_to_audio(log_mels, MEL, iterations=32, seed=1)
    for signal, target in zip(audio, log_mels, strict=True):
        reference = librosa.feature.inverse.mel_to_audio(
            np.exp(target.T), sr=RATE, n_fft=2048, hop_length=512, n_iter=32, fmin=300.0, fmax=8000.0
        )
        error = log_mel_error(log_mel(signal, MEL), target)
        assert error <= 0.5 * log_mel_error(log_mel(reference, MEL), target)


@pytest.mark.parametrize("f0", [440.0, 740.0])
def test_a_tone_keeps_its_pitch(f0):
    """Up to the width of a band, about 70 Hz at the lower end."""
    tone = sung(1.5, f0, 1, 0)
    (audio,) = mel_to_audio(log_mel(tone, MEL)[None], MEL, iterations=32, seed=1)
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    assert np.argmax(spectrum) * RATE / len(audio) == pytest.approx(f0, abs=40)


def test_shape_and_type(log_mels):
    audio = mel_to_audio(log_mels, MEL, iterations=1, seed=1)
    assert audio.dtype == np.float32
    assert audio.shape == (3, (log_mels.shape[1] - 1) * MEL.hop_length)


def test_same_seed_same_audio_whatever_the_batch(log_mels):
    audio = mel_to_audio(log_mels, MEL, iterations=4, seed=1)
    np.testing.assert_array_equal(mel_to_audio(log_mels[:2], MEL, iterations=4, seed=1), audio[:2])
    assert not np.allclose(mel_to_audio(log_mels, MEL, iterations=4, seed=2), audio, atol=1e-3)


def test_more_iterations_bring_it_nearer(log_mels):
    def error(iterations: int) -> float:
        audio = mel_to_audio(log_mels, MEL, iterations, seed=1)
        return log_mel_error(np.stack([log_mel(signal, MEL) for signal in audio]), log_mels)

    errors = [error(iterations) for iterations in (1, 4, 16, 64)]
    assert errors == sorted(errors, reverse=True)


def test_a_hop_that_does_not_divide_the_window(rng):
    target = log_mel(rng.normal(0, 0.1, 6000).astype(np.float32), SMALL)
    (audio,) = mel_to_audio(target[None], SMALL, iterations=64, seed=1)
    assert log_mel_error(log_mel(audio, SMALL), target) < 0.15


def test_what_lies_on_the_floor_is_silent(log_mels):
    silent = np.full_like(log_mels, MEL.log_floor)
    assert (mel_to_audio(silent, MEL, iterations=4, seed=1) == 0).all()


def test_no_items_give_no_audio(log_mels):
    assert mel_to_audio(log_mels[:0], MEL, iterations=4, seed=1).shape == (0, 70 * MEL.hop_length)


@pytest.mark.parametrize("value", [np.nan, np.inf, 200.0])
def test_names_the_item_that_cannot_be_played(log_mels, value):
    bad = log_mels.copy()
    bad[1, 3, 4] = value
    with pytest.raises(ValueError, match="item 1 "):
        mel_to_audio(bad, MEL, iterations=1, seed=1)


@pytest.mark.parametrize("mel", [MEL, SMALL])
def test_the_inverse_transform_undoes_the_transform(mel, rng):
    stft = Stft(20, mel.n_fft, mel.hop_length)
    signal = np.zeros(len(stft.scale), np.float32)
    signal[stft.audible] = rng.normal(size=19 * mel.hop_length)
    np.testing.assert_allclose(stft.inverse(stft.forward(signal)), signal, atol=1e-5)
