"""The stages after `slice` with a model that is told melody and phonemes."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melnet.data.labels.label import Label
from melnet.data.samples import Samples
from melnet.data.texts import Alphabet, TextSpec, Utterance, write_texts
from melnet.data.tracks import TrackSpec, Vocabulary, write_tracks
from melnet.saved import load_config
from stages.command import StageError
from stages.evaluate import evaluate
from stages.generate import generate
from stages.model import model
from stages.parameters import load_params
from stages.paths import MODELS, SAMPLES, TRACKS
from stages.train import train
from tests.params_file import edit_params

ROOT = Path(__file__).parents[2]
FRAMES = 1000
TOLD = {"model": {"condition_on": ["melody", "phonemes"], "lookahead": 2}, "train": {"condition_dropout": 0.5}}


def melody_and_phonemes():
    """One that goes up and down, and phonemes that change with it."""
    turn = np.sin(np.arange(FRAMES) / 5)
    melody = np.stack([np.log(220) + 0.2 * turn, turn > -0.8], axis=-1).astype(np.float32)
    return melody, np.where(turn > 0, 1, 2).astype(np.int32)


@pytest.fixture
def told(workspace, tmp_path):
    """A workspace in which a told model was trained; its parameters."""
    params = load_params(edit_params(Path(), {**TOLD, "generate": {"score": "tune.txt"}}, Path("params.yaml")))
    Path("tune.txt").write_text("rest 1\nA3 0.5 t a\nB3 0.5 a")
    vocabulary = Vocabulary("phonemes", ("a", "t"), seconds=(0.2, 0.1))
    spec = TrackSpec(24000, 512, ("melody", "phonemes"), vocabulary)
    write_tracks(TRACKS, spec, [("wave.wav", *melody_and_phonemes())])
    model(params)
    train(params)
    return params


def test_from_tracks_to_songs_that_were_asked_for(told, capsys):
    config = load_config(MODELS)
    assert config.frame_conditioning.conditions == ("melody", "phonemes")
    assert config.frame_conditioning.lookahead == 2
    evaluate(told)
    without = json.loads(Path("metrics/evaluate.json").read_text())["nll_without"]
    assert set(without) == {"melody", "phonemes", "all"}
    generate(told)
    metrics = json.loads(Path("metrics/generate.json").read_text())
    for name in ("asked", "asked_recorded"):
        assert {"voicing_agreement", "phoneme_accuracy"} <= set(metrics[name])
    assert "voicing_agreement" in metrics["score"]
    asked = Samples.read(SAMPLES / "asked/spectrograms.parquet")
    assert asked.names == ["asked-00", "asked-01"]
    assert soundfile.info(SAMPLES / "asked/asked-00.wav").frames == (asked.log_mels.shape[1] - 1) * 512
    score = json.loads((SAMPLES / "score/score.json").read_text())
    assert [note[2] for note in score["notes"]] == [57, 59]
    assert [Label(*label).name for label in score["labels"]] == ["t", "a", "a"]
    assert max(score["pitch_hz"]) == pytest.approx(247, abs=2)
    assert len(Samples.read(SAMPLES / "score/spectrograms.parquet").names) == 2
    assert len(list(SAMPLES.glob("sample-*.wav"))) == 2  # free ones, as ever


def test_other_phonemes_than_the_models_are_refused(told):
    spec = TrackSpec(24000, 512, ("melody", "phonemes"), Vocabulary("phonemes", ("a", "u"), seconds=(0.2, 0.1)))
    write_tracks(TRACKS, spec, [("wave.wav", *melody_and_phonemes())])
    with pytest.raises(StageError, match="has other phonemes than the model; train again"):
        train(told)


def test_a_score_that_cannot_be_sung_is_named(told):
    Path("tune.txt").write_text("A3 0.5 x")
    with pytest.raises(StageError, match=r"generate\.score: tune\.txt: 'x' at"):
        generate(told)


def test_from_texts_to_songs_that_sing_them(workspace):
    changes = {"model": {"condition_on": "text"}, "train": {"alignment_steps": 3}, "generate": {"text": "t a pau i"}}
    reads = load_params(edit_params(Path(), changes, Path("params.yaml")))
    alphabet = Alphabet("phonemes", ("a", "i", "pau", "t"), symbols_per_second=10.0)
    rng = np.random.default_rng(1)
    utterances = [Utterance(frame, rng.integers(1, 5, 9).astype(np.int32)) for frame in range(0, FRAMES, 5)]
    write_tracks(TRACKS, TrackSpec(24000, 512, ()), [])
    write_texts(TRACKS, TextSpec(24000, 512, alphabet), [("wave.wav", utterances)])
    model(reads)
    train(reads)
    config = load_config(MODELS)
    assert config.alphabet.names == ("a", "i", "pau", "t")
    evaluate(reads)
    text = json.loads(Path("metrics/evaluate.json").read_text())["text"]
    assert len({text[name] for name in ("nll", "nll_shuffled", "nll_without")}) == 3
    generate(reads)
    assert 0 <= json.loads(Path("metrics/generate.json").read_text())["text"]["finished"] <= 1
    sung = Samples.read(SAMPLES / "text/spectrograms.parquet")
    assert sung.names == ["text-00", "text-01"]
    found = json.loads((SAMPLES / "text/alignments.json").read_text())["alignments"]
    assert [item["symbols"] for item in found[:2]] == [["pau", "t", "a", "pau", "i", "pau"]] * 2
    assert len(found) > 2 and found[2]["name"].startswith("wave.wav at ")
    for item, frames in zip(found[:2], [sung.log_mels.shape[1]] * 2, strict=True):
        weights = np.array(item["weights"])
        assert frames - 4 < len(weights) <= frames
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=0.05)
    assert len(list(SAMPLES.glob("sample-*.wav"))) == 2  # free ones, as ever

    params = load_params(edit_params(Path(), {"generate": {"text": "t u"}}, Path("params.yaml")))
    with pytest.raises(StageError, match=r"generate\.text: 'u' is none of the model's phonemes: a i pau t"):
        generate(params)
    alphabet = Alphabet("phonemes", ("a", "e"), symbols_per_second=10.0)
    write_texts(TRACKS, TextSpec(24000, 512, alphabet), [("wave.wav", [Utterance(0, np.array([1, 2], np.int32))])])
    with pytest.raises(StageError, match="has other phonemes than the model; train again"):
        train(reads)
