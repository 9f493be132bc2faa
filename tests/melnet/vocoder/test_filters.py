import numpy as np
import pytest
import scipy.signal
from keras import ops

from melnet.audio.mel import MelSpec
from melnet.data.dataset import Normalisation
from melnet.vocoder.config import HARMONIC_POINTS, NOISE_POINTS, VocoderConfig
from melnet.vocoder.filters import OverlapAdd, SubframeFilters, interpolation_matrix, minimum_phase_matrix


def config_of(**mel):
    spec = MelSpec(**mel)
    return VocoderConfig(spec, Normalisation.identity(spec.n_mels), singers=[], hidden=8, blocks=1)


def test_minimum_phase_is_that_of_the_cepstral_method(rng):
    n_fft = 2048
    points = rng.normal(0, 1, HARMONIC_POINTS)
    gains = points @ interpolation_matrix(HARMONIC_POINTS, n_fft, 24000)
    phase = points @ minimum_phase_matrix(interpolation_matrix(HARMONIC_POINTS, n_fft, 24000))
    # scipy: an impulse response of minimum phase by the homomorphic method, from one with the gains and zero phase.
    symmetric = np.fft.fftshift(np.fft.irfft(np.exp(gains)))[1:]
    expected = scipy.signal.minimum_phase(symmetric, method="homomorphic", n_fft=2**16, half=False)
    found = np.fft.irfft(np.exp(gains + 1j * phase))
    np.testing.assert_allclose(found[:200], expected[:200], atol=0.02 * np.abs(expected).max())


def test_a_minimum_phase_response_decays_from_its_beginning(rng):
    gains = rng.normal(0, 1, HARMONIC_POINTS)[None] @ interpolation_matrix(HARMONIC_POINTS, 2048, 24000)
    response = np.fft.irfft(np.exp(gains + 1j * minimum_phase_matrix(gains)))[0]
    assert np.sum(response[:1024] ** 2) > 0.999 * np.sum(response**2)


@pytest.mark.parametrize("mel", [{}, {"hop_length": 256}, {"hop_length": 441, "sample_rate": 22050}])
def test_filtering_a_steady_envelope_is_a_convolution(mel, rng):
    config = config_of(**mel)
    filters = SubframeFilters(config)
    count = 24
    envelope = np.concatenate([rng.normal(0, 0.5, HARMONIC_POINTS), rng.normal(0, 0.5, NOISE_POINTS)]).astype("f4")
    length = (count + 3) * config.subframe_hop
    pulses, noise = rng.standard_normal((2, 1, length)).astype("f4")
    subframes = filters.apply(np.broadcast_to(envelope, (1, count, len(envelope))), pulses, noise)
    sound = ops.convert_to_numpy(filters.overlap_add(subframes[0]))[0]

    tract, breath = envelope[:HARMONIC_POINTS], envelope[HARMONIC_POINTS:]
    harmonic = tract @ interpolation_matrix(HARMONIC_POINTS, config.n_fft, config.mel.sample_rate)
    response = np.fft.irfft(np.exp(harmonic + 1j * minimum_phase_matrix(harmonic[None])[0]))
    expected = np.convolve(pulses[0], response)[:length]
    symmetric = np.fft.irfft(np.exp(breath @ interpolation_matrix(NOISE_POINTS, config.n_fft, config.mel.sample_rate)))
    expected += np.convolve(noise[0], np.fft.fftshift(symmetric))[config.n_fft // 2 :][:length]
    # Where all four windows overlap, and the filter's response has begun inside the frames that are there.
    inner = slice(config.n_fft, (count - 2) * config.subframe_hop)
    np.testing.assert_allclose(sound[inner], expected[inner], atol=0.02 * np.abs(expected).max())


def test_overlap_add_of_a_stream_is_that_of_the_whole(rng):
    frames = rng.standard_normal((2, 12, 20)).astype("f4")
    whole = OverlapAdd(2, hop_length=8, length=20)(frames)
    stream = OverlapAdd(2, hop_length=8, length=20)
    parts = [stream(frames[:, first:last]) for first, last in ((0, 1), (1, 6), (6, 12))]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)
    by_hand = np.zeros((2, 12 * 8 + 20))
    for i in range(12):
        by_hand[:, i * 8 : i * 8 + 20] += frames[:, i]
    np.testing.assert_allclose(whole, by_hand[:, : 12 * 8], atol=1e-5)


@pytest.mark.parametrize("hop", [1, 97, 256, 441, 480, 512, 1024, 2048])
def test_subframes_divide_every_hop(hop):
    config = config_of(hop_length=hop)
    assert config.subframes * config.subframe_hop == hop
    assert config.n_fft >= 2 * config.window
