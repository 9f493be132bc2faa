"""Pauses: what counts as one, what is left of it, and that nobody hears where it was cut."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.signal
from hypothesis import example, given, settings
from hypothesis import strategies as st

from melnet.audio.pauses import Cut, LevelMeter, find_cuts, loud_power, without_cuts

RATE = 24000
FADE = 192


def tone(seconds, level=0.5, hz=440.0):
    return level * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)


def noise(seconds, level, seed=0):
    return level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def silence(seconds):
    return np.zeros(round(seconds * RATE))


def cuts_of(signal, max_pause_seconds=0.5):
    meter = LevelMeter(RATE)
    for first in range(0, len(signal), 10007):
        meter.update(signal[first : first + 10007])
    return find_cuts(meter.powers(), len(signal), RATE, max_pause_seconds)


def shortened(signal, max_pause_seconds=0.5):
    cuts = cuts_of(signal, max_pause_seconds)
    return np.concatenate(list(without_cuts(lambda start, stop: signal[start:stop], len(signal), cuts, RATE)))


@pytest.mark.parametrize(("hz", "expected"), [(1000.0, 0.5), (11000.0, 0.5), (60.0, 0.0), (0.0, 0.0)])
def test_levels_are_those_above_200_hz(hz, expected):
    signal = np.cos(2 * np.pi * hz * np.arange(RATE) / RATE)
    meter = LevelMeter(RATE)
    meter.update(signal)
    np.testing.assert_allclose(meter.powers()[1:-1], expected, atol=3e-4)  # −35 dB


def test_levels_follow_the_filtered_signal():
    """Independently: a Butterworth filter, and the mean of its squared output under the same window."""
    signal = noise(3, 0.1) * np.repeat(np.random.default_rng(1).uniform(0, 1, 30), RATE // 10)
    meter = LevelMeter(RATE)
    meter.update(signal)
    filtered = scipy.signal.sosfiltfilt(scipy.signal.butter(8, 200, "highpass", fs=RATE, output="sos"), signal)
    weights = np.hanning(481)[:480] ** 2
    expected = np.convolve(np.square(filtered), weights / weights.sum())[120 + 240 - 1 :: 240]
    np.testing.assert_allclose(meter.powers(), expected[: len(meter.powers())], rtol=0.3)


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(0, 700), min_size=1, max_size=30))
@example(lengths=[0, 0, 700, 0])
def test_levels_do_not_depend_on_the_blocks(lengths):
    blocks = [noise(length / RATE, 0.3, seed=length) for length in lengths]
    streamed, whole = LevelMeter(RATE), LevelMeter(RATE)
    for block in blocks:
        streamed.update(block)
    whole.update(np.concatenate(blocks))
    assert len(whole.powers()) == -(-sum(lengths) // 240)
    np.testing.assert_allclose(streamed.powers(), whole.powers(), rtol=1e-9)


def test_a_long_pause_keeps_half_a_second_and_the_ends_keep_a_quarter():
    signal = np.concatenate([silence(1), tone(2), silence(3), tone(1), silence(0.4), tone(1), silence(2)])
    first, second, third = cuts_of(signal)
    assert first == Cut(0, pytest.approx(0.75 * RATE, abs=240))
    assert second == (pytest.approx(3.25 * RATE, abs=240), pytest.approx(5.75 * RATE, abs=240))
    assert third == (pytest.approx(8.65 * RATE, abs=240), len(signal))
    assert len(shortened(signal)) == pytest.approx(5.4 * RATE, abs=1000)


@pytest.mark.parametrize("gain", [1e-4, 1.0, 300.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_hum_and_level_hide_no_pause(gain, dtype):
    signal = np.concatenate([tone(2), noise(2, 1e-5), tone(2)]) + tone(6, 0.02, hz=50)
    (cut,) = cuts_of((gain * signal).astype(dtype))
    assert (cut.start / RATE, cut.stop / RATE) == (pytest.approx(2.25, abs=0.03), pytest.approx(3.75, abs=0.03))


@pytest.mark.parametrize(
    "signal",
    [
        tone(5),
        tone(5, 1e-5),
        noise(5, 0.1),
        noise(5, 1e-6),
        silence(5),
        np.ones(5 * RATE),
        np.concatenate([tone(1), noise(3, 0.005), tone(1)]),  # −37 dB: breath, soft consonants
        np.concatenate([tone(1), silence(0.45), tone(1)]),
        noise(0.001, 1.0),
        np.empty(0),
    ],
    ids=["tone", "soft tone", "noise", "quiet noise", "zeros", "offset", "breath", "short pause", "short", "empty"],
)
def test_what_is_no_long_pause_stays(signal):
    assert cuts_of(signal) == []


def test_a_song_in_much_silence_and_a_click_are_found():
    """The loud level is that of the song, whose time is a hundredth, and not that of the click, which is loudest."""
    signal = silence(100)
    signal[50 * RATE : 51 * RATE] = tone(1, 0.1)
    signal[20 * RATE] = 1.0
    meter = LevelMeter(RATE)
    meter.update(signal)
    assert loud_power(meter.powers()) == pytest.approx(0.1**2 / 2, rel=0.01)
    assert len(shortened(signal)) == pytest.approx((1 + 0.5 + 0.5) * RATE, abs=1000)


sounds = st.lists(st.tuples(st.floats(0.02, 1.0), st.floats(0.01, 3.0)), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(parts=sounds, max_pause_seconds=st.floats(0.001, 1.0), leading=st.floats(0, 2), trailing=st.booleans())
def test_every_sound_stays_and_no_pause_is_longer(parts, max_pause_seconds, leading, trailing):
    pieces = [silence(leading)]
    for seed, (sound, pause) in enumerate(parts):
        pieces += [noise(sound, 0.1, seed), silence(pause)]
    signal = np.concatenate(pieces if trailing else pieces[:-1])
    cuts = cuts_of(signal, max_pause_seconds)
    assert not any(signal[start:stop].any() for start, stop in cuts)
    assert all(earlier.stop + 2 * FADE < later.start for earlier, later in pairwise(cuts))
    short = shortened(signal, max_pause_seconds)
    assert len(short) == len(signal) - sum(stop - start for start, stop in cuts)
    kept = np.setdiff1d(np.arange(len(signal)), np.concatenate([[], *(np.arange(*cut) for cut in cuts)]))
    np.testing.assert_array_equal(np.flatnonzero(short), np.flatnonzero(signal[kept]))
    loud = np.flatnonzero(short)
    assert np.diff(loud).max() / RATE < max(max_pause_seconds, 2 * FADE / RATE) + 0.04
    assert loud[0] / RATE < max(max_pause_seconds / 2, FADE / RATE) + 0.04


def test_only_the_crossfades_change_samples():
    signal = noise(5, 0.1)
    cuts = [Cut(0, 10000), Cut(30000, 70000), Cut(100000, 120000)]
    short = np.concatenate(list(without_cuts(lambda start, stop: signal[start:stop], len(signal), cuts, RATE)))
    spliced = np.concatenate([signal[10000:30000], signal[70000:100000]])
    assert len(short) == len(spliced)
    changed = np.flatnonzero(short != spliced)
    assert set(changed) <= {*range(FADE), *range(20000, 20000 + FADE), *range(50000 - FADE, 50000)}
    ramp = (np.arange(FADE) + 0.5) / FADE
    np.testing.assert_allclose(
        short[20000 : 20000 + FADE],
        (1 - ramp) * signal[30000 : 30000 + FADE] + ramp * signal[70000 : 70000 + FADE],
        rtol=1e-6,
    )
    assert abs(short[0]) < 0.005
    assert abs(short[-1]) < 0.005


def test_no_splice_clicks():
    """Hum goes on in another phase: spliced without a fade, it would make a step."""
    hum = tone(10, 0.2, hz=50)
    cuts = [Cut(0, 12120), Cut(48120, 96360), Cut(200100, len(hum))]
    short = np.concatenate(list(without_cuts(lambda start, stop: hum[start:stop], len(hum), cuts, RATE)))
    spliced = np.concatenate([hum[12120:48120], hum[96360:200100]])
    assert np.abs(np.diff(spliced)).max() > 0.1
    assert np.abs(np.diff(short, prepend=0, append=0)).max() < 0.005
