import numpy as np
import pytest

from melnet.audio.mel import MelSpec
from melnet.audio.spectrogram import log_mel, log_mel_error
from melnet.data.dataset import Normalisation
from melnet.vocoder.config import VocoderConfig
from melnet.vocoder.networks import EnvelopeNetwork, PitchNetwork, build
from melnet.vocoder.synthesis import Vocoder


@pytest.fixture
def log_mels(rng):
    """Two spectrograms that change, with a rest."""
    values = np.cumsum(rng.normal(0, 0.5, (2, 150, 32)), axis=1).astype(np.float32)
    values[:, 60:75] = MelSpec().log_floor
    return values


@pytest.mark.parametrize("sizes", [[1] * 150, [7] * 22, [100, 50], [149, 1]])
def test_a_stream_gives_the_audio_of_the_whole(small_vocoder, log_mels, sizes):
    whole = small_vocoder(log_mels, seed=3)
    assert whole.shape == (2, 149 * 512) and np.abs(whole).max() > 0.01
    stream = small_vocoder.stream(2, seed=3)
    pieces = [stream.push(piece) for piece in np.split(log_mels, np.cumsum(sizes)[:-1], axis=1)]
    audio = np.concatenate([*pieces, stream.finish()], axis=1)
    assert audio.shape == whole.shape
    np.testing.assert_allclose(audio, whole, atol=1e-4 * np.abs(whole).max())
    with pytest.raises(ValueError, match="finished"):
        stream.push(log_mels)


def test_a_melody_is_followed_in_streams_too(small_vocoder, log_mels):
    melody = np.tile(np.array([np.log(300.0), 1.0], np.float32), (2, 100, 1))  # shorter than the spectrograms
    whole = small_vocoder(log_mels, seed=3, melody=melody)
    assert np.abs(whole - small_vocoder(log_mels, seed=3)).max() > 0.01
    stream = small_vocoder.stream(2, seed=3, melody=melody)
    audio = np.concatenate([stream.push(log_mels[:, :70]), stream.push(log_mels[:, 70:]), stream.finish()], axis=1)
    np.testing.assert_allclose(audio, whole, atol=1e-4 * np.abs(whole).max())


def test_a_stream_is_not_far_behind(small_vocoder, log_mels):
    stream = small_vocoder.stream(2)
    assert stream.push(log_mels).shape[1] > (150 - 75) * 512


def test_silence_in_is_silence_out(small_vocoder):
    floor = MelSpec().log_floor
    assert not small_vocoder(np.full((2, 30, 32), floor - 1)).any()
    rest = np.full((1, 300, 32), 0.0, np.float32)
    rest[:, 30:200] = floor
    audio = small_vocoder(rest)[0]
    assert not audio[(30 + 94 + 6) * 512 : 180 * 512].any()  # two seconds after the sound, and before the next
    assert audio[20 * 512 : 28 * 512].any() and audio[205 * 512 :].any()


def test_an_item_does_not_depend_on_the_others_and_the_seed_draws_the_noise(small_vocoder, log_mels):
    both, first = small_vocoder(log_mels, seed=1), small_vocoder(log_mels[:1], seed=1)
    # A matrix product rounds differently for other batches, which adds up in the phase.
    np.testing.assert_allclose(both[:1], first, atol=0.01 * np.abs(first).max())
    assert np.abs(small_vocoder(log_mels, seed=2) - both).max() > 1e-3


def test_the_mel_spectrogram_of_the_audio_is_pulled_towards_the_given_one(small_vocoder, log_mels):
    """The networks have random weights, so that the correction alone brings the spectrograms near."""
    values = np.full((1, 100, 32), -1.0, np.float32)
    values[:, :, 10:20] = 1.0
    audio = small_vocoder(values)[0]
    assert log_mel_error(log_mel(audio, MelSpec())[5:-5], values[0, 5:-5]) < 0.6


@pytest.mark.parametrize("frames", [1, 2, 3, 20])
def test_short_spectrograms(small_vocoder, frames):
    audio = small_vocoder(np.zeros((1, frames, 32), np.float32))
    assert audio.shape == (1, (frames - 1) * 512) and np.isfinite(audio).all()


@pytest.mark.parametrize(
    "mel",
    [
        {"n_mels": 256, "n_fft": 8192, "fmin": 0.0, "fmax": 12000.0},
        {"sample_rate": 48000, "hop_length": 960, "n_mels": 80, "fmax": 20000.0},
        {"sample_rate": 22050, "hop_length": 441},
        {"sample_rate": 16000, "hop_length": 64, "n_fft": 1024, "n_mels": 40},
        {"hop_length": 2048},
        {"hop_length": 509},
    ],
)
def test_other_spectrograms(mel):
    spec = MelSpec(**mel)
    config = VocoderConfig(spec, Normalisation.identity(spec.n_mels), singers=["anna", "bo"], hidden=8, blocks=1)
    vocoder = Vocoder(config, build(PitchNetwork(config), config), build(EnvelopeNetwork(config), config))
    values = np.zeros((2, 12, spec.n_mels), np.float32)
    whole = vocoder(values, singers=[0, 1])
    assert whole.shape == (2, 11 * spec.hop_length) and np.isfinite(whole).all() and whole.any()
    stream = vocoder.stream(2, singers=[0, 1])
    parts = [stream.push(values[:, first : first + 5]) for first in range(0, 12, 5)]
    np.testing.assert_allclose(
        np.concatenate([*parts, stream.finish()], axis=1), whole, atol=1e-4 * np.abs(whole).max()
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, 100.0])
def test_values_that_are_no_spectrogram_are_refused(small_vocoder, value):
    values = np.zeros((3, 10, 32), np.float32)
    values[1, 4, 7] = value
    with pytest.raises(ValueError, match="item 1 holds values"):
        small_vocoder(values)
