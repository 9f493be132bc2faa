import numpy as np
import pytest

from melnet.audio.pitch import LOWEST
from melnet.vocoder.config import BIN_CENTS, PITCH_BINS
from melnet.vocoder.decoding import LAG, PitchDecoder, melody_cost


def logits_of(cents, voicing=8.0, sharpness=6.0):
    """Logits of a network that is certain of the pitch (frames,), in cents above LOWEST."""
    bins = np.arange(PITCH_BINS) * BIN_CENTS
    pitch = np.maximum(-sharpness * ((bins - np.asarray(cents)[:, None]) / BIN_CENTS) ** 2 / 2, -9)
    return np.concatenate([pitch, np.full((len(cents), 1), voicing)], axis=1)[None]


def cents_of(log_pitch):
    return (log_pitch - np.log(LOWEST)) * 1200 / np.log(2)


def test_the_pitch_between_two_bins_is_found():
    log_pitch, voiced = PitchDecoder(1)(logits_of(np.full(60, 1212.0), sharpness=1.0))
    np.testing.assert_allclose(cents_of(log_pitch), 1212.0, atol=1)
    assert log_pitch.shape == voiced.shape == (1, 60 - LAG)


def test_an_octave_error_of_one_frame_is_repaired_and_a_leap_is_followed():
    cents = np.full(80, 1200.0)
    cents[40:] = 2000.0
    logits = logits_of(cents)
    logits[0, 20, :-1] = np.maximum(logits_of([2400.0])[0, 0, :-1], logits[0, 20, :-1] - 2)
    assert logits[0, 20, :-1].argmax() * BIN_CENTS == 2400
    decoded = cents_of(PitchDecoder(1)(logits)[0])[0]
    np.testing.assert_allclose(decoded[:40], 1200, atol=5)
    np.testing.assert_allclose(decoded[41:], 2000, atol=5)


@pytest.mark.parametrize("sizes", [[1] * 50, [17, 3, 30], [50]])
def test_a_stream_gives_the_same_as_the_whole(sizes, rng):
    logits = rng.normal(0, 3, (3, 50, PITCH_BINS + 1))
    whole = PitchDecoder(3)(logits)
    stream = PitchDecoder(3)
    parts = [stream(piece) for piece in np.split(logits, np.cumsum(sizes)[:-1], axis=1)]
    for expected, found in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_allclose(np.concatenate(found, axis=1), expected, atol=1e-12)


def test_with_a_long_lag_the_path_is_that_of_viterbi_over_the_whole(rng):
    logits = logits_of(1200 + 300 * np.sin(np.arange(60) / 5)) + rng.normal(0, 2, (1, 60, PITCH_BINS + 1))
    bins = logits[0, :, :-1] - logits[0, :, :-1].max(axis=-1, keepdims=True)
    log_probabilities = bins - np.log(np.exp(bins).sum(axis=-1, keepdims=True))
    voiced = 1 / (1 + np.exp(-logits[0, :, -1]))
    distance = np.abs(np.subtract.outer(np.arange(PITCH_BINS), np.arange(PITCH_BINS)))
    cost = np.minimum(distance * 0.08, 1.5)
    scores, back = np.zeros(PITCH_BINS), []
    for frame in range(60):
        reached = scores[:, None] - cost
        back.append(reached.argmax(axis=0))
        scores = reached.max(axis=0) + max(voiced[frame], 0.05) * log_probabilities[frame]
    path = [int(scores.argmax())]
    for frame in range(59, 0, -1):
        path.append(int(back[frame][path[-1]]))
    expected = np.array(path[::-1])[: 60 - LAG] * BIN_CENTS
    np.testing.assert_allclose(cents_of(PitchDecoder(1)(logits)[0])[0], expected, atol=3 * BIN_CENTS)


def test_a_melody_decides_between_octaves_and_nothing_that_is_clear():
    frames = 40
    low, high = logits_of(np.full(frames, 1200.0)), logits_of(np.full(frames, 2400.0))
    doubtful = np.logaddexp(low, high + 0.5)
    for asked, found in ((1150.0, 1200.0), (2350.0, 2400.0)):
        melody = np.stack([np.full(frames, np.log(LOWEST) + asked * np.log(2) / 1200), np.ones(frames)], axis=-1)
        for logits, expected in ((doubtful, found), (low, 1200.0)):
            told = np.concatenate([logits[..., :-1] - melody_cost(melody), logits[..., -1:]], axis=-1)
            log_pitch, _ = PitchDecoder(1)(told)
            np.testing.assert_allclose(cents_of(log_pitch), expected, atol=2)
