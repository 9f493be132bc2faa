"""Two signals joined by a crossfade."""

import numpy as np
import pytest

from melnet.audio.crossfade import crossfade


@pytest.mark.parametrize("phase", [0.0, 1.0, 2.5, 4.0, 5.8])
def test_a_tone_goes_on_through_the_crossfade(phase):
    """There is no step, no dip and no beat, whatever the phase of the second signal."""
    rate, hz, overlap, fade = 24000, 220.0, 3584, 1024
    time = np.arange(rate) / rate
    before = np.sin(2 * np.pi * hz * time).astype(np.float32)
    after = np.sin(2 * np.pi * hz * time + phase).astype(np.float32)
    both = crossfade(before, after, overlap=overlap, fade=fade)
    assert abs(len(both) - (2 * rate - overlap)) <= fade // 2
    np.testing.assert_array_equal(both[: rate - fade], before[:-fade])
    around = both[rate - 2 * fade : rate + fade]
    assert np.abs(np.diff(around)).max() < 1.1 * 2 * np.pi * hz / rate
    period = round(rate / hz)
    peaks = [np.abs(around[i : i + period]).max() for i in range(0, len(around) - period, period)]
    assert min(peaks) > 0.95


def test_signals_too_short_to_crossfade_are_refused():
    with pytest.raises(ValueError, match="overlap of 100 samples"):
        crossfade(np.zeros(50), np.zeros(500), overlap=100, fade=20)
    with pytest.raises(ValueError, match="overlap of 100 samples"):
        crossfade(np.zeros(500), np.zeros(110), overlap=100, fade=20)
