"""The log-mel spectrogram is what its formula says, for whole recordings and for parts of them."""

import os
import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melnet.audio.mel import MelSpec, filterbank, natural_log
from melnet.audio.spectrogram import frame_count, frame_span, log_mel, log_mel_error, log_mel_frames

RATE = 24000
MEL = MelSpec(sample_rate=24000, n_fft=2048, hop_length=512, n_mels=32, fmin=300.0, fmax=8000.0, floor=1e-5)
SMALL = MelSpec(sample_rate=24000, n_fft=256, hop_length=100, n_mels=8, fmin=300.0, fmax=8000.0, floor=1e-5)


def plain_log_mel(samples: np.ndarray, mel: MelSpec) -> np.ndarray:
    """By the textbook, one frame at a time, in float64."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(mel.n_fft) / mel.n_fft)
    filters = librosa.filters.mel(
        sr=mel.sample_rate, n_fft=mel.n_fft, n_mels=mel.n_mels, fmin=mel.fmin, fmax=mel.fmax, dtype=np.float64
    )
    half = mel.n_fft // 2
    padded = np.concatenate([np.zeros(half), samples, np.zeros(mel.n_fft)])
    frames = []
    for start in range(0, len(samples) + 1, mel.hop_length):
        power = np.abs(np.fft.rfft(padded[start : start + mel.n_fft] * window)) ** 2
        frames.append(np.log(np.maximum(filters @ power, mel.floor)))
    return np.array(frames)


@pytest.mark.parametrize("mel", [MEL, SMALL], ids=["default", "hop does not divide the window"])
@pytest.mark.parametrize("samples", [0, 1, 5120, 7777])
def test_equals_a_plain_computation(mel, samples, rng):
    signal = rng.normal(0, 0.1, samples).astype(np.float32)
    result = log_mel(signal, mel)
    assert result.dtype == np.float32
    assert result.shape == (1 + samples // mel.hop_length, mel.n_mels) == (frame_count(samples, mel), mel.n_mels)
    np.testing.assert_allclose(result, plain_log_mel(signal, mel), atol=2e-4)


def test_equals_librosa(rng):
    signal = rng.normal(0, 0.1, RATE).astype(np.float32)
    power = librosa.feature.melspectrogram(
        y=signal, sr=RATE, n_fft=2048, hop_length=512, n_mels=32, fmin=300.0, fmax=8000.0, pad_mode="constant"
    )
    np.testing.assert_allclose(log_mel(signal, MEL), np.log(np.maximum(power, 1e-5)).T, atol=1e-4)


@given(samples=st.integers(1, 3000), data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_run_of_frames_equals_those_of_the_whole_recording(samples, data):
    signal = np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)
    whole = log_mel(signal, SMALL)
    first = data.draw(st.integers(0, len(whole) - 1))
    last = data.draw(st.integers(first + 1, len(whole)))
    start, stop = frame_span(first, last, SMALL)
    seen = np.pad(signal[max(start, 0) : stop], (max(-start, 0), max(stop - samples, 0)))
    assert len(seen) == stop - start
    part = log_mel_frames(seen, SMALL)
    np.testing.assert_allclose(part, whole[first:last], atol=1e-5, rtol=0)


def test_silence_lies_on_the_floor():
    assert (log_mel(np.zeros(RATE, np.float32), MEL) == MEL.log_floor).all()


def test_a_tone_is_loudest_in_its_band():
    tone = np.sin(2 * np.pi * 2000 * np.arange(RATE) / RATE).astype(np.float32)
    weights, bins = filterbank(MEL)
    centre = (bins.start + np.argmax(weights, axis=1)) * RATE / MEL.n_fft
    loudest = np.argmax(log_mel(tone, MEL)[5:-5], axis=1)
    assert (loudest == np.argmin(np.abs(centre - 2000))).all()


def test_filters_have_unit_area_and_cannot_be_changed():
    filters = filterbank(MEL).weights
    np.testing.assert_allclose(filters.sum(axis=1) * RATE / MEL.n_fft, 1, rtol=0.1)
    with pytest.raises(ValueError, match="read-only"):
        filters[0, 0] = 1


def test_log_mel_error_is_the_mean_absolute_difference():
    assert log_mel_error(np.array([[0.0, 1.0]]), np.array([[3.0, -1.0]])) == 2.5


@given(st.floats(2.0**-100, 2.0**100, width=32))
def test_natural_log_is_the_logarithm(x):
    assert natural_log(np.float32(x)) == pytest.approx(np.log(np.float64(np.float32(x))), rel=1e-12, abs=1e-12)


DIGEST = """
import hashlib, numpy, sys
from melnet.audio.mel import MelSpec
from melnet.audio.spectrogram import log_mel
signal = numpy.random.default_rng(0).normal(0, 0.1, 240000).astype("float32")
for bands in (32, 80):
    print(hashlib.sha256(log_mel(signal, MelSpec(24000, 2048, 512, bands, 80.0, 12000.0, 1e-5)).tobytes()).hexdigest())
print(hashlib.sha256(numpy.log(numpy.abs(signal) + 1e-9).tobytes()).hexdigest())
print(hashlib.sha256((signal.reshape(-1, 1000) @ signal.reshape(1000, -1)).tobytes()).hexdigest())
"""


def test_bytes_do_not_depend_on_the_processor():
    """Not even with the instructions of the oldest x86-64 processors, with which numpy and BLAS give other bits."""
    root = Path(__file__).parents[3]
    plain = {**os.environ, "PYTHONPATH": str(root)}
    old = {**plain, "NPY_DISABLE_CPU_FEATURES": "X86_V3", "OPENBLAS_CORETYPE": "Nehalem"}
    here, there = (
        subprocess.run(
            [sys.executable, "-c", DIGEST], env=environment, check=True, capture_output=True, text=True
        ).stdout.split()
        for environment in (plain, old)
    )
    assert here[:2] == there[:2]
    if here[2:] == there[2:]:
        pytest.skip("this processor has nothing that could be switched off")
