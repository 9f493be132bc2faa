import numpy as np
import pytest

from melnet.audio import pitch
from melnet.audio.pitch import FRAME_SECONDS, pitch_at, pitch_of, track_pitch

RATE = 24000


def tone(hz, seconds, rate=RATE):
    time = np.arange(round(seconds * rate)) / rate
    return sum(0.2 / k * np.sin(2 * np.pi * hz * k * time) for k in (1, 2, 3)).astype(np.float32)


@pytest.mark.parametrize("rate", [16000, 22050, 24000, 44100, 48000])
@pytest.mark.parametrize("hz", [80.0, 220.0, 1000.0])
def test_the_pitch_of_a_tone(hz, rate):
    track = pitch_of(tone(hz, 1.0, rate), rate)
    assert len(track) == 62
    np.testing.assert_allclose(track[5:-5], hz, rtol=0.015)


@pytest.mark.parametrize("signal", [np.zeros(RATE, np.float32), np.zeros(10, np.float32), np.zeros(0, np.float32)])
def test_silence_is_not_voiced(signal):
    track = pitch_of(signal, RATE)
    assert len(track) == max(1, round(len(signal) / RATE / FRAME_SECONDS - 0.5)) and not track.any()


def test_tones_out_of_the_range_of_voices_are_not_voiced():
    assert (pitch_of(tone(1800.0, 1.0), RATE) > 0).mean() < 0.2


@pytest.mark.parametrize("rate", [24000, 22050])
def test_pieces_give_the_track_of_the_whole(rate, monkeypatch):
    """A frame more or less where the recording ends between two frames does not shift the others."""
    signal = np.concatenate([tone(200, 3.3, rate), tone(300, 2.1, rate), 0 * tone(1, 1.4, rate), tone(250, 3.0, rate)])
    whole = pitch_of(signal, rate)
    monkeypatch.setattr(pitch, "PIECE_SECONDS", 2)
    reads = []

    def read(start, count):
        reads.append((start, count))
        return signal[start : start + count]

    pieces = track_pitch(read, len(signal), rate)
    assert max(count for _, count in reads) <= 6 * rate and len(reads) == 5
    assert len(pieces) == pytest.approx(len(whole), abs=1)
    common = min(len(pieces), len(whole))
    assert ((pieces[:common] > 0) == (whole[:common] > 0)).mean() > 0.98
    both = (pieces[:common] > 0) & (whole[:common] > 0)
    np.testing.assert_allclose(pieces[:common][both], whole[:common][both], rtol=0.01)


def test_pitch_between_frames_is_interpolated_and_unvoiced_outside():
    track = np.array([200.0, 0.0, 0.0, 800.0, 0.0])
    seconds = FRAME_SECONDS * np.array([-1.0, 0.0, 1.5, 3.0, 3.4, 4.0, 9.0])
    log_pitch, voiced = pitch_at(track, seconds)
    np.testing.assert_allclose(np.exp(log_pitch), [200, 200, 400, 800, 800, 800, 800], rtol=1e-5)
    assert voiced.tolist() == [0, 1, 0, 1, 1, 0, 0]
    assert not pitch_at(np.zeros(3), seconds)[1].any()
