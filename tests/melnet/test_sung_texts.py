"""A model that reads texts: whole samples, several texts, how long they take, and what it refuses."""

import numpy as np
import pytest

import melnet
from melnet.data.texts import Alphabet, TextsError
from melnet.saved import load_config
from tests.small_model import FRAMES, MEL, write_model

ALPHABET = Alphabet("phonemes", ("a", "i", "t"), symbols_per_second=20.0)


@pytest.fixture(scope="module", params=[1, 3])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reads")
    return melnet.load(write_model(folder, tiers=request.param, alphabet=ALPHABET), warm_up=False)


def test_settings_come_back(tmp_path):
    assert load_config(write_model(tmp_path, alphabet=ALPHABET)).alphabet == ALPHABET
    assert load_config(write_model(tmp_path)).alphabet is None


def test_a_text_decides_what_is_sung(model):
    frames = model.text_frames("t a t i")
    assert frames == pytest.approx(1.5 * 4 / 20 / MEL.seconds_per_frame, abs=2)
    sung = model.sample(text="t a t i", seed=3)
    assert sung.shape == (1, frames, MEL.n_mels)
    assert (sung != model.sample(frames, seed=3)).mean() > 0.3
    assert (sung != model.sample(frames, text="i i i i", seed=3)).mean() > 0.3
    if len(model.tiers) == 1:  # later tiers see frames of earlier ones that are still to come
        np.testing.assert_array_equal(sung[:, :8], model.sample(8, text="t a t i", seed=3))


def test_samples_take_turns_with_texts(model):
    turns = model.sample(24, count=3, text=["t a", "i t a i"])
    np.testing.assert_allclose(turns[1], model.sample(24, count=2, text="i t a i")[1], atol=1e-3)
    np.testing.assert_allclose(turns[2], model.sample(24, count=3, text="t a")[2], atol=1e-3)


def test_weights_say_when_which_symbol_is_read(model):
    log_mels = model.sample(16, count=2, text="t a i")
    weights = model.alignment(log_mels, "t a i")
    assert weights.shape == (2, 16, 3)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
    read = model.read_frames(log_mels, "t a i")
    for item, frames in zip(weights.argmax(axis=-1), read, strict=True):
        other = np.flatnonzero(item != 2)
        assert frames == min(16, other[-1] + 1 + round(0.3 / MEL.seconds_per_frame))


def test_a_text_ends_where_nothing_else_is_read_any_more(model, monkeypatch):
    weights = np.eye(3)[[[0] * 5 + [2] + [1] * 4 + [2] * 40, [0] * 49 + [2], [2] * 49 + [1]]]
    monkeypatch.setattr(type(model), "alignment", lambda *_, **__: weights)
    frames = model.read_frames(np.zeros((3, 50, MEL.n_mels)), "t a i")
    assert frames.tolist() == [10 + round(0.3 / MEL.seconds_per_frame), 50, 50]


def test_after_the_text_there_is_silence(model):
    audio = np.ones((2, 40 * MEL.hop_length), np.float32)
    faded = model.silenced(audio, np.array([10, 60]))
    assert (faded[0, : 10 * MEL.hop_length] == 1).all() and not faded[0, 14 * MEL.hop_length :].any()
    assert (faded[1] == 1).all()
    assert model.sing(text="t a").shape == (1, (model.text_frames("t a") - 1) * MEL.hop_length)


def test_what_cannot_be_sung_is_named(model, tmp_path):
    with pytest.raises(TextsError, match="'u' is none of the model's phonemes: a i t"):
        model.sample(text="a u")
    prime = np.zeros((FRAMES, MEL.n_mels), np.float32)
    with pytest.raises(ValueError, match="cannot continue a prime"):
        model.sample(8, text="a", prime=melnet.prime.Prime(prime, np.zeros(100, np.float32)))
    plain = melnet.load(write_model(tmp_path), warm_up=False)
    with pytest.raises(TextsError, match="was trained without texts"):
        plain.sample(text="a")
