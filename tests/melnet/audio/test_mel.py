"""The settings of a mel spectrogram: contradictions are refused, and its bands are librosa's."""

from dataclasses import asdict, replace

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melnet.audio.mel import MelSpec

MEL = MelSpec(sample_rate=24000, n_fft=2048, hop_length=512, n_mels=32, fmin=300.0, fmax=8000.0, floor=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hop_length": 4096}, "hop_length: 4096 is longer than n_fft 2048"),
        ({"fmin": 9000.0}, "fmin: 9000.0 is not below fmax 8000.0"),
        ({"fmax": 12000.5}, "fmax: 12000.5 is above the Nyquist frequency 12000.0"),
        ({"n_mels": 500}, r"n_mels: 500 is more than n_fft 2048 resolves: band \d+ .* holds no FFT bin"),
    ],
)
def test_a_contradiction_names_the_field_and_its_value(change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        replace(MEL, **change)


@pytest.mark.filterwarnings("ignore:Empty filters")
@settings(max_examples=200, deadline=None)
@given(st.integers(1, 200), st.floats(0, 4000), st.floats(100, 11000), st.sampled_from([256, 512, 1000, 2048]))
def test_edges_and_resolution_are_librosas(n_mels, fmin, width, n_fft):
    values = asdict(MEL) | {"n_fft": n_fft, "hop_length": 64, "n_mels": n_mels, "fmin": fmin}
    values["fmax"] = min(fmin + width, 12000.0)
    weights = librosa.filters.mel(
        sr=24000, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=values["fmax"], norm=None, dtype=np.float64
    )
    if (weights.max(axis=1) > 1e-9).all():
        edges = librosa.mel_frequencies(n_mels + 2, fmin=fmin, fmax=values["fmax"])
        np.testing.assert_allclose(MelSpec(**values).edges_hz, edges, rtol=1e-9, atol=1e-9)
    elif (weights.max(axis=1) == 0).any():
        with pytest.raises(ValueError, match="holds no FFT bin"):
            MelSpec(**values)
