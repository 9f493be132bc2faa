"""The same recording twice: found at any gain and in any lossless format, and told from another take."""

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from melnet.audio.convert import convert, inspect
from melnet.audio.duplicates import alike, same_recording
from melnet.audio.sketch import PERIOD, Sketch

RATE = 48000


def song(seed=0, seconds=2):
    """Noise with a falling spectrum that swells and ebbs, at −20 dB."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * RATE)
    coloured = np.convolve(rng.standard_normal(samples + 99), np.exp(-np.arange(100) / 10), mode="valid")
    swell = 1 - 0.8 * np.cos(np.linspace(0, 20, samples))
    return 0.1 * coloured * swell / np.std(coloured * swell)


def pair(folder, first, second):
    """Write two recordings, given by file name, samples and subtype; return their paths and whether they look alike."""
    paths, sketches = [], []
    for number, (name, samples, subtype) in enumerate((first, second)):
        path = folder / f"{number}-{name}"
        soundfile.write(path, samples, RATE, subtype)
        paths.append(path)
        sketches.append(convert(inspect(path), folder / f"{number}.out.flac", 24000).sketch)
    return *paths, bool(len(alike(np.stack(sketches[:1]), sketches[1])))


@pytest.mark.parametrize(
    ("name", "gain", "subtype"),
    [
        ("a.wav", 1.0, "PCM_16"),
        ("a.flac", 1.0, "PCM_16"),
        ("a.flac", 1.0, "PCM_24"),
        ("a.aiff", 0.5, "PCM_24"),
        ("a.flac", 0.03, "PCM_16"),
        ("a.wav", 30.0, "FLOAT"),
        ("a.wav", -1.0, "DOUBLE"),
    ],
)
def test_a_copy_is_the_same_recording(tmp_path, name, gain, subtype):
    first, second, candidates = pair(tmp_path, ("a.wav", song(), "PCM_16"), (name, gain * song(), subtype))
    assert candidates
    assert same_recording(first, second)
    assert same_recording(second, first)


def test_two_equal_channels_are_the_same_as_one(tmp_path):
    first, second, candidates = pair(
        tmp_path, ("a.wav", song(), "PCM_16"), ("b.wav", np.stack([song(), song()], axis=1), "PCM_16")
    )
    assert candidates
    assert same_recording(first, second)


@pytest.mark.parametrize(
    "other",
    [
        song(seed=1),
        np.roll(song(), 1),
        song()[::-1],
        np.abs(song()),
        song() + 0.1 * song(seed=1),
        np.concatenate([song(seconds=1), song(seed=1, seconds=1)]),
    ],
    ids=["other take", "a sample later", "backwards", "rectified", "with another voice", "other second half"],
)
def test_another_recording_of_one_length_is_another(tmp_path, other):
    first, second, _ = pair(tmp_path, ("a.wav", song(), "PCM_24"), ("b.wav", other, "PCM_24"))
    assert not same_recording(first, second)


def test_hum_and_offset_make_no_duplicates(tmp_path):
    hum = 0.3 + 0.3 * np.sin(2 * np.pi * 50 * np.arange(2 * RATE) / RATE)
    first, second, candidates = pair(
        tmp_path, ("a.wav", hum + 0.01 * song(), "FLOAT"), ("b.wav", hum + 0.01 * song(1), "FLOAT")
    )
    assert candidates
    assert not same_recording(first, second)


def test_recordings_of_other_length_or_rate_are_others(tmp_path):
    for name, samples, rate in (("a", song(), RATE), ("b", song()[:-1], RATE), ("c", song(), 44100)):
        soundfile.write(tmp_path / f"{name}.wav", samples, rate)
    assert not same_recording(tmp_path / "a.wav", tmp_path / "b.wav")
    assert not same_recording(tmp_path / "a.wav", tmp_path / "c.wav")


@settings(max_examples=50, deadline=None)
@given(borders=st.lists(st.integers(0, 2 * PERIOD), max_size=8))
def test_a_sketch_does_not_depend_on_the_blocks(borders):
    signal = np.random.default_rng(0).standard_normal(2 * PERIOD + 5)
    streamed, whole = Sketch(), Sketch()
    for block in np.split(signal, sorted(borders)):
        streamed.update(block)
    whole.update(signal)
    np.testing.assert_allclose(streamed.direction(), whole.direction(), atol=1e-6)


def test_sketches_of_unlike_recordings_are_far_from_alike():
    sketches = []
    for seed in range(100):
        sketch = Sketch()
        sketch.update(song(seed, 0.2))
        sketches.append(sketch.direction())
    likeness = np.abs(np.stack(sketches) @ np.stack(sketches).T)
    np.testing.assert_allclose(np.diag(likeness), 1, atol=1e-5)
    assert likeness[~np.eye(100, dtype=bool)].max() < 0.7


def test_a_sketch_of_zeros_is_like_nothing():
    sketch = Sketch()
    sketch.update(np.zeros(1000))
    assert not len(alike(np.zeros((1, 64), np.float32), sketch.direction()))
