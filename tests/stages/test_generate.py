"""Stage `generate`: audio, pictures and distances, the same for the same seed."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image

from melnet.inversion import mel_to_audio
from melnet.spectrogram import log_mel
from stages.common import MODELS, SAMPLES, StageError
from stages.evaluate import evaluate
from stages.generate import generate


@pytest.fixture
def generated(workspace):
    evaluate(workspace)
    generate(workspace)
    return workspace


def test_audio_pictures_and_values(generated):
    names = sorted(path.name for path in SAMPLES.iterdir())
    assert names == [
        "sample-00.wav",
        "sample-01.wav",
        "spectrograms.parquet",
        "spectrograms.png",
        "waveforms.png",
    ]
    for name in names[:2]:
        info = soundfile.info(SAMPLES / name)
        assert (info.samplerate, info.channels, info.subtype) == (24000, 1, "PCM_16")
        assert info.frames == 11 * 512
        assert np.abs(soundfile.read(SAMPLES / name)[0]).max() == pytest.approx(0.95, abs=1e-3)
    for name in names[3:]:
        assert np.asarray(Image.open(SAMPLES / name)).std() > 10
    table = pq.read_table(SAMPLES / "spectrograms.parquet")
    values = np.array(table["mel"].to_pylist()).reshape(2, 12, 32)
    assert values.min() >= np.float32(np.log(1e-5)) - 1e-4
    assert np.abs(values[0] - values[1]).max() > 0.1


def test_distances_have_their_references(generated):
    metrics = json.loads(Path("metrics/generate.json").read_text())
    assert set(metrics) == {
        "frechet",
        "frechet_train",
        "frechet_band_baseline",
        "log_mel_error_copy",
        "log_mel_error_generated",
    }
    assert 0 <= metrics["frechet_train"] < metrics["frechet_band_baseline"]


def test_errors_are_those_of_the_audio(generated):
    metrics = json.loads(Path("metrics/generate.json").read_text())
    table = pq.read_table(SAMPLES / "spectrograms.parquet")
    log_mels = np.array(table["mel"].to_pylist(), np.float32).reshape(2, 12, 32)
    mel, rate = generated.mel, generated.downsample.sample_rate
    iterations, seed = generated.generate.griffin_lim_iterations, generated.generate.seed
    audio = mel_to_audio(log_mels, mel, rate, iterations, seed)
    again = np.stack([log_mel(signal, mel, rate) for signal in audio])
    assert metrics["log_mel_error_generated"] == pytest.approx(np.abs(again - log_mels).mean(), rel=1e-4)
    assert 0 < metrics["log_mel_error_copy"] < 5


def test_seed_decides(generated):
    files = sorted(SAMPLES.iterdir())
    first = [path.read_bytes() for path in files]
    generate(generated)
    assert [path.read_bytes() for path in files] == first
    other = generated.generate.model_copy(update={"seed": 2})
    generate(generated.model_copy(update={"generate": other}))
    assert files[0].read_bytes() != first[0]


def test_a_damaged_model_leaves_the_samples_as_they_were(generated):
    before = (SAMPLES / "sample-00.wav").read_bytes()
    path = MODELS / "tier-1.weights.h5"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StageError, match=r"tier-1\.weights\.h5"):
        generate(generated)
    assert (SAMPLES / "sample-00.wav").read_bytes() == before
