"""Reading files of any format as mono, and writing WAV files."""

import numpy as np
import pytest
import soundfile

from melnet.audio.convert import inspect
from melnet.audio.files import read_mono, stored_rate, write_wav
from melnet.audio.integrity import NotAudio, UnusableAudio


@pytest.mark.parametrize("read", [inspect, read_mono, stored_rate])
def test_files_that_cannot_be_opened(tmp_path, read):
    with pytest.raises(UnusableAudio, match="cannot be read: No such file"):
        read(tmp_path / "none.wav")
    with pytest.raises(UnusableAudio, match="cannot be read: Is a directory"):
        read(tmp_path)


def test_the_sample_rate_of_a_file(tmp_path):
    path = tmp_path / "file"
    for container in ("WAV", "FLAC", "AIFF"):
        soundfile.write(path, np.zeros(100), 44101, format=container)
        assert stored_rate(path) == 44101
    path.write_text("Dear diary,")
    for read in (stored_rate, read_mono):
        with pytest.raises(NotAudio, match=f"^{path}: not audio"):
            read(path)


def test_read_mono_reads_any_part(tmp_path):
    path = tmp_path / "in.flac"
    signals = np.random.default_rng(0).uniform(-1, 1, (1000, 2))
    soundfile.write(path, signals, 24000, "PCM_24")
    samples = read_mono(path)
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, signals.mean(axis=1), atol=1e-6)
    np.testing.assert_array_equal(read_mono(path, 100, 50), samples[100:150])
    np.testing.assert_array_equal(read_mono(path, 990, 50), samples[990:])
    np.testing.assert_array_equal(read_mono(path, 990), samples[990:])
    assert read_mono(path, 2000, 10).shape == (0,)


def test_write_wav(tmp_path):
    path = tmp_path / "new" / "out.wav"
    signal = 0.2 * np.sin(np.arange(2400) / 7).astype(np.float32)
    write_wav(path, signal, 24000)
    info = soundfile.info(path)
    assert (info.format, info.subtype, info.samplerate, info.frames) == ("WAV", "PCM_16", 24000, 2400)
    np.testing.assert_allclose(read_mono(path), signal, atol=2.0**-15)
    write_wav(path, 100 * signal, 24000, normalise=True)
    assert np.abs(read_mono(path)).max() == pytest.approx(0.95, abs=1e-4)
    write_wav(path, np.array([2.0, -2.0]), 24000)
    np.testing.assert_allclose(read_mono(path), [1, -1], atol=2.0**-15)


def test_write_wav_leaves_silence_silent(tmp_path):
    write_wav(tmp_path / "out.wav", np.zeros(100), 24000, normalise=True)
    assert not read_mono(tmp_path / "out.wav").any()


@pytest.mark.parametrize("samples", [np.array([0.0, np.nan]), np.array([np.inf]), np.zeros((2, 2))])
def test_write_wav_refuses_anything_but_one_finite_channel(tmp_path, samples):
    with pytest.raises(ValueError, match=r"out\.wav: samples of shape"):
        write_wav(tmp_path / "out.wav", samples, 24000)
    assert not list(tmp_path.iterdir())
