"""A model's folder, read back to sing: audio, likelihoods, and a stream that goes on as `sing` does."""

import dataclasses
import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

import melnet
from melnet.audio.griffin_lim import mel_to_audio
from melnet.audio.integrity import UnusableAudio
from melnet.audio.spectrogram import log_mel
from melnet.data.dataset import UnknownSinger
from melnet.model_files import ModelError
from melnet.prime import read_prime
from melnet.saved import save_config
from melnet.singing import SCORED_SLICES
from tests.small_model import FRAMES, MEL, SINGERS, write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "models", singers=SINGERS)


@pytest.fixture(scope="module")
def model(folder):
    return melnet.load(folder)


@pytest.fixture(scope="module")
def two_tiers(tmp_path_factory):
    return melnet.load(write_model(tmp_path_factory.mktemp("tiers"), tiers=2, vocoder=False), warm_up=False)


def streamed(stream, samples):
    chunks = itertools.islice(stream, -(-samples // stream._chunk_samples))
    return np.concatenate(list(chunks))[:samples]


def test_audio_is_that_of_the_spectrograms(model):
    audio = model.sing(1.0, count=2, seed=3)
    assert audio.shape == (2, 24000)
    assert audio.dtype == np.float32
    mels = model.sample(model.frames(1.0), count=2, seed=3)
    assert mels.shape == (2, 48, MEL.n_mels)
    np.testing.assert_array_equal(model.invert(mels, seed=3)[:, :24000], audio)
    by_griffin_lim = model.sing(1.0, count=2, seed=3, inversion="griffin-lim")
    np.testing.assert_array_equal(by_griffin_lim, mel_to_audio(mels, MEL, 32, seed=3)[:, :24000])


def test_samples_follow_temperature_seed_and_singer(model):
    sample = model.sample(12)
    assert (model.sample(12, seed=2) != sample).mean() > 0.5
    assert (model.sample(12, temperature=0.5) != sample).mean() > 0.5
    assert (model.sample(12, top_components=1) != sample).any()
    assert (model.sample(12, singer="bo") != sample).any()
    turns = model.sample(12, count=2)
    np.testing.assert_array_equal(model.sample(12, count=2, singer=["anna", "bo"]), turns)
    np.testing.assert_array_equal(model.sample(12, count=2, singer="bo")[1], turns[1])


def test_a_recording_is_continued(model, tmp_path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, 0.5 * np.sin(np.arange(48000) / 5), 24000)
    continued = model.sample(12, prime=path, prime_seconds=1.0)
    assert (continued != model.sample(12)).mean() > 0.5
    prime = read_prime(path, 1.0, MEL, FRAMES)
    np.testing.assert_array_equal(model.sample(12, prime=prime), continued)
    with pytest.raises(UnusableAudio, match=r"none\.wav: cannot be read"):
        model.sing(1.0, prime=tmp_path / "none.wav")


def test_a_stream_begins_as_sing_does(model):
    """Up to what follows: `sing` ends in silence, of which the vocoder knows a second before."""
    sung = model.sing(4.0, seed=3, singer="bo")[0]
    stream = streamed(model.stream(seed=3, singer="bo", chunk_seconds=0.13), 3 * 24000)
    np.testing.assert_allclose(stream, sung[: 3 * 24000], atol=1e-4 * np.abs(sung).max())


def test_a_stream_by_griffin_lim_has_the_spectrogram_of_sing(model):
    sung = model.sing(4.0, seed=3, inversion="griffin-lim")[0]
    stream = streamed(model.stream(seed=3, inversion="griffin-lim"), 4 * 24000)
    # Each joint may move what follows by a hop.
    np.testing.assert_allclose(log_mel(stream, MEL).mean(axis=0), log_mel(sung, MEL).mean(axis=0), atol=0.5)


def test_a_stream_of_several_tiers_continues_itself(two_tiers):
    stream = two_tiers.stream(seed=3)
    first = next(stream._frames)
    np.testing.assert_array_equal(first, two_tiers.sample(FRAMES, seed=3)[0])
    second = next(stream._frames)
    assert second.shape == (FRAMES, MEL.n_mels) and (second != first).mean() > 0.5
    chunks = [next(stream) for _ in range(4)]
    assert [chunk.shape for chunk in chunks] == 4 * [(6000,)]
    assert min(np.abs(chunk).max() for chunk in chunks) > 0


def test_the_temperature_of_a_stream_can_be_changed(model):
    stream, same = model.stream(seed=3), model.stream(seed=3)
    np.testing.assert_array_equal(next(stream), next(same))
    stream.settings.temperature = 0.3
    assert (streamed(stream, 48000) != streamed(same, 48000)).mean() > 0.1


def test_a_stream_holds_no_more_the_longer_it_sings(model):
    """All that it keeps between two chunks: buffers of frames, of samples and of the pitch decoder."""

    def held(value, seen):
        if id(value) in seen or isinstance(value, (type, str)):
            return 0
        seen.add(id(value))
        if isinstance(value, np.ndarray):
            return value.nbytes
        if isinstance(value, (list, tuple)):
            return sum(held(item, seen) for item in value)
        if isinstance(value, dict):
            return sum(held(item, seen) for item in value.values())
        if type(value).__module__.startswith("melnet.vocoder") or value is stream:
            return held(vars(value), seen)
        return 0

    stream = model.stream(seed=3)
    voice = next(cell.cell_contents for cell in stream._push.__closure__ if hasattr(cell.cell_contents, "push"))
    sizes = []
    for _ in range(5):
        streamed(stream, 4 * 24000)
        sizes.append(held(voice, set()) + stream._ready.nbytes)
    assert max(sizes[1:]) <= 1.5 * sizes[0]


def test_score_is_the_mean_over_slices(model, rng):
    audio = 0.1 * rng.standard_normal(MEL.hop_length * FRAMES * (SCORED_SLICES + 3) + 700).astype(np.float32)
    mels = model.config.normalisation.normalise(log_mel(audio, MEL))
    slices = mels[: len(mels) // FRAMES * FRAMES].reshape(-1, FRAMES, MEL.n_mels)
    # In batches of the size that is compiled already.
    ones = np.ones(SCORED_SLICES, np.int32)
    nats = [model._likelihood.nats(part, ones) for part in (slices[:SCORED_SLICES], slices[-SCORED_SLICES:])]
    nats = np.concatenate([nats[0], nats[1][2 * SCORED_SLICES - len(slices) :]])
    assert len(nats) == len(slices) == SCORED_SLICES + 3
    assert model.score(audio, 24000, singer="bo") == pytest.approx(nats.mean(), rel=1e-5)
    with pytest.raises(UnusableAudio, match=r"0\.10 s are too short; at least 0\.19 s are needed"):
        model.score(audio[:2400], 24000)
    with pytest.raises(UnusableAudio, match="one channel of finite"):
        model.score(np.full(48000, np.nan), 24000)


def test_score_resamples(model):
    time = np.arange(2 * 48000) / 48000
    at_48k = 0.3 * np.sin(2 * np.pi * 440 * time)
    assert model.score(at_48k, 48000) == pytest.approx(model.score(at_48k[::2], 24000), rel=0.02)


def test_singers_of_no_model_and_numbers_out_of_range(model, two_tiers):
    with pytest.raises(UnknownSinger, match="the model does not know 'Cleo'; it knows anna, bo"):
        model.sing(1.0, singer="Cleo")
    with pytest.raises(UnknownSinger, match="'anna'; it was trained without singers"):
        two_tiers.stream(singer="anna")
    with pytest.raises(ValueError, match="temperature: -1"):
        model.sample(12, temperature=-1)
    with pytest.raises(ValueError, match=r"seconds: 0\.0"):
        model.sing(0.0)
    with pytest.raises(ValueError, match=r"chunk_seconds: 0\.0"):
        model.stream(chunk_seconds=0.0)
    with pytest.raises(ValueError, match="inversion: vocoder: the model has none"):
        two_tiers.sing(1.0, inversion="vocoder")


def test_a_folder_without_a_vocoder_sings_with_griffin_lim(two_tiers):
    assert two_tiers.inversion() == "griffin-lim"
    np.testing.assert_array_equal(two_tiers.sing(0.19), two_tiers.sing(0.19, inversion="griffin-lim"))


def test_a_folder_that_is_no_model_is_named(folder, tmp_path):
    def damaged(change):
        with tempfile.TemporaryDirectory(dir=tmp_path) as name:
            copy = Path(name, "models")
            for path in folder.rglob("*.*"):
                (copy / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
                (copy / path.relative_to(folder)).write_bytes(path.read_bytes())
            change(copy)
            with pytest.raises(ModelError) as caught:
                melnet.load(copy, warm_up=False)
            assert len(str(caught.value).splitlines()) == 1
            return str(caught.value)

    def cut(name):
        return lambda copy: (copy / name).write_bytes((copy / name).read_bytes()[:-50])

    def foreign(copy):
        save_config(copy, dataclasses.replace(melnet.load(folder, warm_up=False).config, min_sigma=0.03))

    assert "melnet.json: no such file" in damaged(lambda copy: (copy / "melnet.json").unlink())
    assert "melnet.json: not understood" in damaged(cut("melnet.json"))
    assert "tier-1.json: no such file" in damaged(lambda copy: (copy / "tiers/tier-1.json").unlink())
    assert "tier-1.weights.h5: damaged" in damaged(cut("tier-1.weights.h5"))
    assert "vocoder.json: no such file" in damaged(lambda copy: (copy / "vocoder.json").unlink())
    assert "vocoder.weights.h5: damaged" in damaged(cut("vocoder.weights.h5"))
    assert "trained for another" in damaged(foreign)
    with pytest.raises(ModelError, match=r"nowhere/melnet\.json: no such file"):
        melnet.load(tmp_path / "nowhere")
