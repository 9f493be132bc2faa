"""A model that is told what is sung: whole samples, streams, primes, several scores, and what it refuses."""

import itertools
import warnings

import numpy as np
import pytest
import soundfile

import melnet
from melnet.data.tracks import FrameTracks
from melnet.likelihood import Likelihood
from melnet.model.conditions import LOOK_BACK
from melnet.saved import load_config
from melnet.score import Score, ScoreError
from melnet.singing import STREAMED_FRAMES
from tests.small_model import MEL, TOLD, write_model

FRAMES = 22


def told_model(folder, tiers):
    return melnet.load(write_model(folder, tiers=tiers, told=TOLD), warm_up=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return told_model(tmp_path_factory.mktemp("told"), 1)


@pytest.fixture(scope="module")
def three_tiers(tmp_path_factory):
    return told_model(tmp_path_factory.mktemp("three"), 3)


@pytest.fixture(params=[1, 3])
def any_model(request, model, three_tiers):
    return model if request.param == 1 else three_tiers


def drawn_score(seed, frames=FRAMES):
    rng = np.random.default_rng(seed)
    melody = np.stack([rng.normal(5.5, 0.2, frames), rng.integers(0, 2, frames)], axis=-1).astype(np.float32)
    return Score(FrameTracks(melody, rng.integers(0, 3, frames).astype(np.int32)))


def test_settings_come_back(tmp_path):
    assert load_config(write_model(tmp_path, told=TOLD)).frame_conditioning == TOLD


def test_a_score_decides_what_is_sung_and_how_long(any_model):
    sung = any_model.sample(score=drawn_score(1), seed=3)
    assert sung.shape == (1, FRAMES, MEL.n_mels)
    assert (sung != any_model.sample(FRAMES, seed=3)).mean() > 0.5
    assert (sung != any_model.sample(score=drawn_score(2), seed=3)).mean() > 0.5
    assert any_model.sing(score=drawn_score(1)).shape == (1, (FRAMES - 1) * MEL.hop_length)
    assert any_model.sing(0.2, score=drawn_score(1)).shape == (1, 4800)


def test_a_condition_alone_counts(model):
    melody, phonemes = drawn_score(1).tracks
    sung = model.sample(score=drawn_score(1))
    for tracks in (FrameTracks(melody, None), FrameTracks(None, phonemes)):
        assert (model.sample(score=Score(tracks)) != sung).any()


def test_samples_take_turns_with_scores(model):
    first, second = drawn_score(1), drawn_score(2)
    turns = model.sample(count=3, score=[first, second])
    np.testing.assert_array_equal(turns[1], model.sample(count=2, score=second)[1])
    np.testing.assert_array_equal(turns[2], model.sample(count=3, score=first)[2])


def test_after_the_score_the_model_sings_as_it_likes(model):
    """It is as if nothing were known there, and without a score nothing is known anywhere."""
    score = drawn_score(1)
    whole = model.sample(FRAMES + 10, score=score, seed=3)
    unknown = score.tracks.map(lambda track: track[None]).span(0, FRAMES + 10).map(lambda track: track[0])
    np.testing.assert_array_equal(whole, model.sample(score=Score(unknown), seed=3))
    nothing = FrameTracks(np.tile(np.array([0, -1], np.float32), (FRAMES, 1)), np.zeros(FRAMES, np.int32))
    np.testing.assert_allclose(model.sample(score=Score(nothing), seed=3), model.sample(FRAMES, seed=3), atol=1e-4)


def test_a_prime_sings_what_is_not_known(model, tmp_path):
    soundfile.write(tmp_path / "tone.wav", 0.5 * np.sin(np.arange(48000) / 5), 24000)
    prime = {"prime": tmp_path / "tone.wav", "prime_seconds": 1.0}
    sung = model.sample(score=drawn_score(1), **prime)
    assert sung.shape == (1, FRAMES, MEL.n_mels)
    assert (sung != model.sample(score=drawn_score(1))).mean() > 0.5
    assert (sung != model.sample(FRAMES, **prime)).mean() > 0.5


def test_a_stream_sings_a_score_and_goes_on(any_model):
    score, frames = drawn_score(1), 40
    stream = any_model.stream(score=score, temperature=0.9, chunk_seconds=0.25)
    streamed = np.concatenate([stream.log_mel for _ in itertools.islice(stream, 4)])
    block = 4 if len(any_model.tiers) == 1 else any_model.config.frames
    whole = any_model.sample(frames if len(any_model.tiers) == 1 else block, score=score)[0]
    np.testing.assert_allclose(streamed[: len(whole)], whole, atol=1e-4)
    assert len(streamed) > frames


def test_a_stream_looks_at_little_of_a_score_at_a_time(model, tmp_path, monkeypatch):
    """So it needs as much memory and compiles as little for a long one; a prime before it changes nothing of that."""
    soundfile.write(tmp_path / "tone.wav", 0.5 * np.sin(np.arange(48000) / 5), 24000)
    condition, score, lengths = model._sampler._condition[0], drawn_score(1), []
    sung = {"score": score, "prime": tmp_path / "tone.wav", "prime_seconds": 1.0, "seed": 3}
    whole = model.sample(40, **sung)[0]

    def watched(inputs):
        lengths.append(inputs["melody"].shape[1])
        return condition(inputs)

    monkeypatch.setattr(model._sampler, "_condition", [watched])
    stream = model.stream(**sung)
    streamed = np.concatenate([stream.log_mel for _ in itertools.islice(stream, 4)])
    np.testing.assert_allclose(streamed[:40], whole, atol=1e-4)
    told = STREAMED_FRAMES + LOOK_BACK + TOLD.lookahead
    prime_frames = round(24000 / MEL.hop_length)
    assert set(lengths) == {1 + TOLD.lookahead, prime_frames + TOLD.lookahead, told}


def test_the_likelihood_knows_what_is_sung(any_model, rng):
    likelihood = Likelihood(any_model.tiers)
    x, singers = rng.normal(size=(2, 8, MEL.n_mels)).astype(np.float32), np.zeros(2, np.int32)
    tracks = FrameTracks.joined([drawn_score(seed, 8 + TOLD.lookahead).tracks for seed in (1, 2)], np.stack)
    told = likelihood.nats(x, singers, tracks)
    assert np.abs(told - likelihood.nats(x, singers)).max() > 0.01
    everyone = np.array([True, True])
    nothing = tracks.left_out("melody", everyone).left_out("phonemes", everyone)
    np.testing.assert_allclose(likelihood.nats(x, singers, nothing), likelihood.nats(x, singers), atol=1e-6)


def test_files_are_read_with_the_phonemes_of_the_model(model, tmp_path):
    (tmp_path / "song.txt").write_text("tempo 120\nrest 1\nA3 1 t a\nA4 1 a")
    score = model.read_score(tmp_path / "song.txt", transpose=2)
    assert [label.name for label in score.labels] == ["t", "a", "a"]
    np.testing.assert_array_equal(
        model.sample(score=tmp_path / "song.txt"), model.sample(score=model.read_score(tmp_path / "song.txt"))
    )
    with pytest.warns(UserWarning, match=r"song\.txt: the score goes from .* beyond the range of the training data"):
        model.read_score(tmp_path / "song.txt", transpose=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.read_score(tmp_path / "song.txt", transpose=1)
    (tmp_path / "other.txt").write_text("A4 1 x")
    with pytest.raises(ScoreError, match=r"other\.txt: 'x' at .* is none of the model's phonemes: a, t"):
        model.sample(score=tmp_path / "other.txt")


def test_the_loudness_of_a_recording_is_followed(model, tmp_path):
    tone = 0.5 * np.sin(2 * np.pi * 220 * np.arange(72000) / 24000)
    tone[24000:48000] *= 0.05
    soundfile.write(tmp_path / "hum.wav", tone, 24000)
    audio = model.sing(score=tmp_path / "hum.wav")[0]
    loud, quiet = (np.sqrt(np.mean(audio[part] ** 2)) for part in (slice(4000, 20000), slice(28000, 44000)))
    assert quiet < loud / 4


def test_what_cannot_be_sung_is_said(model, tmp_path):
    untold = melnet.load(write_model(tmp_path), warm_up=False)
    for refused in (lambda: untold.sing(score=drawn_score(1)), lambda: untold.read_score("song.mid")):
        with pytest.raises(ScoreError, match="trained without melody"):
            refused()
    with pytest.raises(ValueError, match="a number of frames, a score or a text is needed"):
        model.sample()
