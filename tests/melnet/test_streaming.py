"""Chunks of a stream: their lengths, and Griffin-Lim's joints."""

import numpy as np
import pytest

from melnet.audio.griffin_lim import mel_to_audio
from melnet.audio.mel import MelSpec
from melnet.audio.spectrogram import log_mel, log_mel_error
from melnet.sampling import SamplingSettings
from melnet.streaming import BLOCK_FRAMES, GriffinLimStream, Stream

MEL = MelSpec()


@pytest.fixture(scope="module")
def glide():
    """Log-mel of a tone with harmonics that glides up and down for six seconds."""
    phase = 2 * np.pi * np.cumsum(300 + 100 * np.sin(np.arange(6 * 24000) / 12000)) / 24000
    return log_mel(sum(0.2 / k * np.sin(k * phase) for k in (1, 2, 3, 5, 8)).astype(np.float32), MEL)


def test_chunks_are_of_one_length_and_lose_nothing(rng):
    pieces = [rng.normal(size=(frames, 2)).astype(np.float32) for frames in (3, 1, 5, 4)]
    stream = Stream(iter(pieces), np.ravel, SamplingSettings(), chunk_samples=4)
    found = [next(stream) for _ in range(6)]
    assert {len(chunk) for chunk in found} == {4}
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(pieces).ravel()[:24])


@pytest.mark.parametrize("piece", [1, 7, BLOCK_FRAMES + 9])
def test_griffin_lim_in_blocks_is_as_near_to_the_spectrogram_and_clicks_nowhere(glide, piece):
    whole = mel_to_audio(glide[None], MEL, 32, seed=1)[0]
    stream = GriffinLimStream(MEL, 32, seed=1)
    joined = np.concatenate([stream.push(glide[at : at + piece]) for at in range(0, len(glide), piece)])
    # Each joint may move what follows by a hop, and the last block is still to come.
    assert len(whole) - (BLOCK_FRAMES + piece) * MEL.hop_length < len(joined) <= len(whole)
    frames = len(joined) // MEL.hop_length
    error, lost = (log_mel_error(log_mel(signal, MEL)[:frames], glide[:frames]) for signal in (joined, whole))
    assert error <= 1.5 * lost
    assert np.abs(np.diff(joined)).max() <= 1.2 * np.abs(np.diff(whole)).max()
