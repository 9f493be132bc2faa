"""Conversion to mono at one rate: lengths, levels, and signals that cannot be used."""

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from melnet.audio.convert import convert, inspect, mono_blocks, resampled
from melnet.audio.integrity import UnusableAudio


def tone(frames, sample_rate, level=0.5):
    time = np.arange(frames) / sample_rate
    return level * np.sin(2 * np.pi * 440 * time) * (1 - 0.5 * np.cos(2 * np.pi * 3 * time))


def blocks_of(signal, length):
    return [signal[start : start + length] for start in range(0, len(signal), length)]


def converted(path, samples, source_rate, subtype="DOUBLE", sample_rate=24000):
    """Write a WAV, convert it, and return the samples in the FLAC, and the levels. No pause is cut."""
    soundfile.write(path, samples, source_rate, subtype, format="WAV")
    target = path.with_suffix(".flac")
    levels = convert(inspect(path), target, sample_rate).levels
    info = soundfile.info(target)
    assert (info.samplerate, info.channels, info.subtype, info.frames) == (sample_rate, 1, "PCM_24", levels.samples)
    return soundfile.read(target)[0], levels


@pytest.mark.parametrize("source_rate", [8000, 22050, 24000, 32000, 44100, 48000, 96000, 384000, 44101, 23999])
@pytest.mark.parametrize("block", [97, 4096, 10**6])
@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-6), ("float64", 1e-12)])
def test_resampling_in_blocks_equals_resampling_at_once(source_rate, block, dtype, atol):
    signal = np.random.default_rng(0).standard_normal(20011).astype(dtype)
    at_once = signal if source_rate == 24000 else soxr.resample(signal, source_rate, 24000, quality="VHQ")
    streamed = np.concatenate(list(resampled(blocks_of(signal, block), source_rate, 24000, dtype)))
    assert streamed.dtype == dtype
    assert len(streamed) == int(20011 * 24000 / source_rate + 0.5)
    np.testing.assert_allclose(streamed, at_once, atol=atol)


@settings(max_examples=100, deadline=None)
@given(frames=st.integers(1, 3000), source_rate=st.integers(200, 2**31 - 1), block=st.integers(1, 5000))
def test_resampled_length_is_exact(frames, source_rate, block):
    pieces = resampled(blocks_of(np.ones(frames), block), source_rate, 24000)
    assert sum(map(len, pieces)) == (2 * frames * 24000 + source_rate) // (2 * source_rate)


def test_a_rate_of_1_hz():
    assert sum(len(piece) for piece in resampled([np.ones(3)], 1, 24000)) == 72000


@pytest.mark.parametrize("source_rate", [1, 7, 24000, 44100, 384000])
def test_files_of_any_rate_become_the_exact_length(tmp_path, source_rate):
    frames = 5 if source_rate < 10 else source_rate + 1
    samples, _ = converted(tmp_path / "in.wav", tone(frames, source_rate) + 0.01, source_rate, "FLOAT")
    assert len(samples) == int(frames * 24000 / source_rate + 0.5)


def test_a_file_becomes_its_resampled_self(tmp_path):
    signal = tone(3 * 44100, 44100)
    samples, levels = converted(tmp_path / "in.wav", signal, 44100)
    expected = soxr.resample(signal, 44100, 24000, quality="VHQ")
    np.testing.assert_allclose(samples, expected, atol=2.0**-24)
    assert levels.gain == 1
    assert levels.peak == pytest.approx(np.abs(expected).max())
    assert levels.rms == pytest.approx(np.sqrt(np.mean(expected**2)))


def test_at_the_same_rate_16_bit_samples_are_kept_exactly(tmp_path):
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, 30000, dtype=np.int16)
    path = tmp_path / "in.wav"
    soundfile.write(path, samples, 24000, "PCM_16")
    convert(inspect(path), tmp_path / "out.flac", 24000)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "out.flac", dtype="int16")[0], samples)


@pytest.mark.parametrize("channels", [1, 2, 3, 64])
def test_channels_are_averaged(tmp_path, channels):
    signals = np.random.default_rng(0).uniform(-0.9, 0.9, (24000, channels))
    samples, _ = converted(tmp_path / "in.wav", signals, 24000)
    np.testing.assert_allclose(samples, signals.mean(axis=1), atol=2.0**-24)


@pytest.mark.parametrize("subtype", ["PCM_U8", "ALAW", "ULAW", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_sample_format_keeps_the_signal(tmp_path, subtype):
    signal = tone(24000, 24000)
    samples, _ = converted(tmp_path / "in.wav", signal, 24000, subtype)
    np.testing.assert_allclose(samples, signal, atol={"PCM_U8": 0.01, "ALAW": 0.02, "ULAW": 0.02}.get(subtype, 1e-4))


@pytest.mark.parametrize(("subtype", "dtype"), [("PCM_16", "float32"), ("PCM_24", "float32"), ("DOUBLE", "float64")])
def test_decoding_rounds_nothing(tmp_path, subtype, dtype):
    path = tmp_path / "in.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, (5000, 2)), 24000, subtype)
    (mono,) = mono_blocks(inspect(path), 5000)
    assert mono.dtype == dtype
    np.testing.assert_array_equal(mono, soundfile.read(path, dtype=dtype)[0].mean(axis=1))


def test_block_length_does_not_matter(tmp_path):
    path = tmp_path / "in.flac"
    soundfile.write(path, tone(30000, 44100).reshape(-1, 2), 44100)
    source = inspect(path)
    whole = np.concatenate(list(mono_blocks(source, 10**6)))
    for frames in (1000, 4096):
        np.testing.assert_array_equal(np.concatenate(list(mono_blocks(source, frames))), whole)


@pytest.mark.parametrize("level", [1.01, 3.0, 1e30, 1e100])
@pytest.mark.parametrize("source_rate", [24000, 44100])
def test_nothing_clips(tmp_path, level, source_rate):
    signal = tone(source_rate, source_rate)
    signal *= level / np.abs(signal).max()
    samples, levels = converted(tmp_path / "in.wav", signal, source_rate)
    assert levels.peak == pytest.approx(level, rel=1e-3)
    assert levels.gain == 1 / levels.peak
    assert np.abs(samples).max() == pytest.approx(1, abs=1e-6)
    expected, _ = converted(tmp_path / "soft.wav", signal / levels.peak / 2, source_rate)
    np.testing.assert_allclose(samples, 2 * expected, atol=1e-6)


def test_overshoot_of_the_resampler_does_not_clip(tmp_path):
    square = np.where(np.arange(44100) // 50 % 2, 1.0, -1.0)
    samples, levels = converted(tmp_path / "in.wav", square, 44100, "PCM_16")
    assert levels.peak > 1.05
    soft, _ = converted(tmp_path / "soft.wav", square / 2, 44100)
    np.testing.assert_allclose(samples / levels.gain, soft * 2, atol=1e-4)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.zeros(1000), "all samples are zero"),
        (np.full(1000, 1e-12), "all samples are zero"),
        (np.array([[0.5, -0.5]] * 1000), "once mixed to mono"),
        (np.append(np.ones(999), np.nan), "NaN or infinite"),
        (np.append(np.ones(999), np.inf), "NaN or infinite"),
        (np.full((100, 2), 1.7e308), "NaN or infinite"),
        (np.full(1000, 1e300), "too large"),
        (np.zeros(0), "holds no samples"),
    ],
)
def test_unusable_samples(tmp_path, samples, reason):
    with pytest.raises(UnusableAudio, match=reason):
        converted(tmp_path / "in.wav", samples, 24000)
    assert not (tmp_path / "in.flac").exists()


def test_too_short_for_one_sample(tmp_path):
    with pytest.raises(UnusableAudio, match="single sample at 24000 Hz"):
        converted(tmp_path / "in.wav", np.ones(1), 384000)


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    path = tmp_path / "in.wav"
    soundfile.write(path, tone(24000, 24000), 24000)
    source = inspect(path)
    soundfile.write(path, tone(23000, 24000), 24000)
    with pytest.raises(UnusableAudio, match="24000 frames, 23000 can be decoded"):
        convert(source, tmp_path / "out.flac", 24000)


def test_a_target_that_cannot_be_written_is_not_the_recordings_fault(tmp_path):
    path = tmp_path / "in.wav"
    soundfile.write(path, tone(24000, 24000), 24000)
    with pytest.raises(OSError, match=r"none/out\.flac: cannot be written"):
        convert(inspect(path), tmp_path / "none" / "out.flac", 24000)


def with_pauses(rate):
    gap = np.zeros(2 * rate)
    return np.concatenate([gap, tone(rate, rate), gap, tone(rate, rate, level=0.3), gap])


@pytest.mark.parametrize("source_rate", [24000, 44100])
@pytest.mark.parametrize("gain", [1.0, 4.0])
def test_pauses_are_cut_after_all_else(tmp_path, source_rate, gain):
    path = tmp_path / "in.wav"
    soundfile.write(path, gain * with_pauses(source_rate), source_rate, "FLOAT")
    whole = convert(inspect(path), tmp_path / "whole.flac", 24000)
    short = convert(inspect(path), tmp_path / "short.flac", 24000, max_pause_seconds=0.5)
    assert (whole.cuts, whole.samples) == ([], 8 * 24000)
    assert short.levels == whole.levels
    np.testing.assert_array_equal(short.sketch, whole.sketch)
    removed = sum(stop - start for start, stop in short.cuts) / 24000
    assert removed == pytest.approx(1.75 + 1.5 + 1.75, abs=0.06)
    samples = soundfile.read(tmp_path / "whole.flac")[0]
    kept = np.delete(samples, np.concatenate([np.arange(*cut) for cut in short.cuts]))
    np.testing.assert_allclose(soundfile.read(tmp_path / "short.flac")[0], kept, atol=1e-3)
    assert short.samples == len(kept)


def test_a_long_recording_is_kept_on_the_disk_and_gives_the_same_bytes(tmp_path, monkeypatch):
    path = tmp_path / "in.wav"
    soundfile.write(path, 2 * with_pauses(44100), 44100, "FLOAT")
    convert(inspect(path), tmp_path / "a.flac", 24000, max_pause_seconds=0.5)
    monkeypatch.setattr("melnet.audio.convert.SPOOLED", 1000)
    convert(inspect(path), tmp_path / "b.flac", 24000, max_pause_seconds=0.5)
    assert (tmp_path / "a.flac").read_bytes() == (tmp_path / "b.flac").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.flac", "b.flac", "in.wav"]


def test_same_recording_same_bytes(tmp_path):
    for name in ("a", "b"):
        converted(tmp_path / f"{name}.wav", tone(44100, 44100), 44100)
    assert (tmp_path / "a.flac").read_bytes() == (tmp_path / "b.flac").read_bytes()
