"""Stage `generate`: audio, pictures and distances, the same for the same seed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melnet.audio.files import write_wav
from melnet.audio.griffin_lim import mel_to_audio
from melnet.audio.spectrogram import log_mel
from melnet.data.samples import Samples
from melnet.errors import MelnetError
from stages.command import StageError
from stages.evaluate import evaluate
from stages.generate import generate
from stages.model import model
from stages.paths import MODELS, PITCH, SAMPLES, SHARDS, SPECTROGRAMS
from stages.train import train


@pytest.fixture(scope="module")
def finished(trained, tmp_path_factory):
    """A workspace after `generate`, and its parameters; not to be changed."""
    folder, params = trained
    copy = tmp_path_factory.mktemp("finished") / "copy"
    shutil.copytree(folder, copy, symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copy)
        evaluate(params)
        generate(params)
    return copy, params


@pytest.fixture
def generated(finished, tmp_path, monkeypatch):
    """A copy of it to work in, which is the current directory; the parameters."""
    folder, params = finished
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    return params


def test_audio_and_values(generated):
    names = sorted(path.name for path in SAMPLES.iterdir())
    assert names == [
        "griffin-lim",
        "sample-00.wav",
        "sample-01.wav",
        "spectrograms.parquet",
    ]
    for name in (*names[1:3], *(f"griffin-lim/{name}" for name in names[1:3])):
        info = soundfile.info(SAMPLES / name)
        assert (info.samplerate, info.channels, info.subtype) == (24000, 1, "PCM_16")
        assert info.frames == 11 * 512
        assert np.abs(soundfile.read(SAMPLES / name)[0]).max() == pytest.approx(0.95, abs=1e-3)
    values = Samples.read(SPECTROGRAMS).log_mels
    assert values.shape == (2, 12, 32)
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
        "told_apart_train",  # two samples are too few for folds
        "voice",
        "voice_recorded",
    }
    assert metrics["voice_recorded"]["pitch_median"] == 220
    assert 0 <= metrics["voice"]["voiced_share"] <= 1
    assert 0 <= metrics["frechet_train"] < metrics["frechet_band_baseline"]


def test_errors_are_those_of_the_audio(generated):
    metrics = json.loads(Path("metrics/generate.json").read_text())
    log_mels, mel = Samples.read(SPECTROGRAMS).log_mels, generated.mel_spec
    iterations, seed = generated.generate.griffin_lim_iterations, generated.generate.seed
    generate(generating(generated, inversion="griffin-lim"))
    metrics = json.loads(Path("metrics/generate.json").read_text())
    audio = mel_to_audio(log_mels, mel, iterations, seed)
    again = np.stack([log_mel(signal, mel) for signal in audio])
    assert metrics["log_mel_error_generated"] == pytest.approx(np.abs(again - log_mels).mean(), rel=1e-4)
    assert 0 < metrics["log_mel_error_copy"] < 5


def test_seed_decides(generated):
    files = sorted(path for path in SAMPLES.rglob("*") if path.is_file())
    first = [path.read_bytes() for path in files]
    generate(generated)
    assert [path.read_bytes() for path in files] == first
    other = generated.generate.model_copy(update={"seed": 2})
    generate(generated.model_copy(update={"generate": other}))
    assert all(path.read_bytes() != before for path, before in zip(files, first, strict=True))


def test_the_vocoder_or_griffin_lim_makes_the_audio(generated, write_vocoder):
    def audio():
        return {path.relative_to(SAMPLES).as_posix(): path.read_bytes() for path in SAMPLES.rglob("*.wav")}

    by_vocoder = audio()  # generate.inversion is auto, and the vocoder is preferred
    generate(generating(generated, inversion="vocoder"))
    assert audio() == by_vocoder
    generate(generating(generated, inversion="griffin-lim"))
    by_griffin_lim = {name.removeprefix("griffin-lim/"): content for name, content in by_vocoder.items() if "/" in name}
    assert audio() == by_griffin_lim
    write_vocoder(MODELS, generated, preferred="griffin-lim")
    generate(generated)
    assert audio() == by_griffin_lim


def test_a_missing_or_foreign_vocoder_is_named_and_griffin_lim_needs_none(generated, write_vocoder):
    before = (SAMPLES / "sample-00.wav").read_bytes()
    write_vocoder(MODELS, generated, singers=["Anna"])
    with pytest.raises(MelnetError, match=r"vocoder\.json: for the singers Anna, but the model has none"):
        generate(generated)
    (MODELS / "vocoder.json").unlink()
    with pytest.raises(MelnetError, match=r"models/vocoder\.json: no such file"):
        generate(generated)
    assert (SAMPLES / "sample-00.wav").read_bytes() == before
    generate(generating(generated, inversion="griffin-lim"))
    assert (SAMPLES / "sample-00.wav").read_bytes() != before


def test_missing_pitch_tracks_are_named(generated):
    (PITCH / "pitch.parquet").unlink()
    with pytest.raises(MelnetError, match=r"data/pitch/pitch\.parquet: no such file; the stage pitch makes it"):
        generate(generated)


def test_a_damaged_model_leaves_the_samples_as_they_were(generated):
    before = (SAMPLES / "sample-00.wav").read_bytes()
    path = MODELS / "tier-1.weights.h5"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MelnetError, match=r"tier-1\.weights\.h5"):
        generate(generated)
    assert (SAMPLES / "sample-00.wav").read_bytes() == before


def generating(params, **changes):
    return params.model_copy(update={"generate": params.generate.model_copy(update=changes)})


@pytest.fixture
def primed(generated, glide):
    """After sampling on from a glide of 1.5 s at another rate; the parameters."""
    write_wav(Path("prime.wav"), glide(1.5, 48000), 48000)
    params = generating(generated, prime="prime.wav", prime_seconds=1.0)
    generate(params)
    return params


def test_a_prime_is_continued_alone_and_joined(primed):
    hop, frames = primed.mel.hop_length, 12
    prime, rate = soundfile.read(SAMPLES / "prime.wav")
    assert rate == 24000
    assert len(prime) == round(24000 / hop) * hop
    for name in ("sample-00", "sample-01"):
        alone, _ = soundfile.read(SAMPLES / f"{name}.wav")
        assert len(alone) == (frames - 1) * hop
        both, _ = soundfile.read(SAMPLES / f"{name}-joined.wav")
        assert len(both) == pytest.approx(len(prime) + frames * hop, abs=hop)
        # Up to the fade it is the prime, at one gain.
        kept = len(prime) - 2 * hop
        gain = np.dot(both[:kept], prime[:kept]) / np.dot(prime[:kept], prime[:kept])
        np.testing.assert_allclose(both[:kept], gain * prime[:kept], atol=2e-4)
        # No click where they meet: no step from sample to sample is larger than those elsewhere.
        steps = np.abs(np.diff(both))
        assert steps[kept : len(prime) + 64].max() <= 1.2 * max(steps[:kept].max(), steps[len(prime) + 64 :].max())


def test_what_is_heard_decides_what_is_sung(primed, glide):
    before = (SAMPLES / "sample-00.wav").read_bytes()
    write_wav(Path("prime.wav"), glide(1.5, 48000)[::-1], 48000)
    generate(primed)
    assert (SAMPLES / "sample-00.wav").read_bytes() != before


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        (lambda glide: glide(0.2), r"prime\.wav: 0\.20 s are too short to continue; at least 0\.26 s"),
        (lambda glide: np.zeros(48000), r"prime\.wav: all samples are zero"),
        (
            lambda glide: np.concatenate([glide(1.0), 1e-6 * np.ones(48000)]),
            r"prime\.wav: its last 0\.\d+ s are silent",
        ),
    ],
    ids=["short", "zeros", "silent at the end"],
)
def test_a_prime_of_no_use_is_refused_and_samples_stay(generated, glide, signal, message):
    before = (SAMPLES / "sample-00.wav").read_bytes()
    soundfile.write("prime.wav", signal(glide), 24000, "FLOAT")
    with pytest.raises(StageError, match=message):
        generate(generating(generated, prime="prime.wav", prime_seconds=0.8))
    Path("prime.wav").unlink()
    with pytest.raises(StageError, match=r"generate\.prime: prime\.wav: "):
        generate(generating(generated, prime="prime.wav"))
    assert (SAMPLES / "sample-00.wav").read_bytes() == before


def test_singers_are_chosen_by_name(workspace, write_shards, write_vocoder):
    params = workspace.model_copy(update={"model": workspace.model.model_copy(update={"condition_on": ["singer"]})})
    write_shards(SHARDS, params, {"train": 40, "valid": 12, "test": 20}, singers=("Anna", "Bo"))
    model(params)
    train(params)
    write_vocoder(MODELS, params, singers=["Anna", "Bo"])
    evaluate(params)
    generate(generating(params, count=3, singer=["Bo", "Anna", "Bo"]))
    assert Samples.read(SPECTROGRAMS).singers == ["Bo", "Anna", "Bo"]
    distances = json.loads(Path("metrics/generate.json").read_text())["frechet_by_singer"]
    assert {sung: set(heard) for sung, heard in distances.items()} == {name: {"Anna", "Bo"} for name in ("Anna", "Bo")}
    generate(params)  # all in turn
    assert Samples.read(SPECTROGRAMS).singers == ["Anna", "Bo"]
    with pytest.raises(StageError, match=r"generate\.singer: the model does not know 'Cleo'; it knows Anna, Bo"):
        generate(generating(params, singer="Cleo"))
