"""The stage `vocoder`: what it trains on, what it leaves, how it resumes."""

import csv
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile

import stages.pitch
import stages.slice
import stages.vocoder
from melnet.vocoder import training
from melnet.vocoder.saved import load_vocoder
from stages.command import StageError
from stages.corpus.manifest import read_manifest, write_manifest
from stages.paths import CHECKPOINTS, CLEAN, METRICS, MODELS, PITCH
from stages.pitch import pitch
from stages.slice import slice_recordings
from stages.vocoder import vocoder
from tests.params_file import edit_params

ROOT = Path(__file__).parents[2]
SMALL = {
    "slice": {"frames": 30, "block_seconds": 2.0, "valid": 0.25, "test": 0.25},
    "vocoder": {"pitch_steps": 4, "envelope_steps": 4, "hidden": 8, "blocks": 1},
}
RATE = 24000


@pytest.fixture(scope="module")
def sliced(tmp_path_factory, glide):
    """A project with shards and pitch tracks of two glides; not to be changed."""
    from stages.parameters import load_params

    folder = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "dvc.yaml", folder)
    for code in ("melnet", "stages"):
        (folder / code).symlink_to(ROOT / code)
    params = load_params(edit_params(folder, SMALL))
    (folder / CLEAN).mkdir(parents=True)
    rows = []
    for singer, seconds in (("anna", 16), ("bo", 12)):
        soundfile.write(folder / CLEAN / f"{singer}.flac", glide(seconds), RATE)
        rows.append({"path": f"{singer}/song.wav", "singer": singer, "output": f"{singer}.flac", "status": "ok"})
        rows[-1]["seconds_out"] = float(seconds)
    write_manifest(folder / CLEAN, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in (stages.slice, stages.pitch):
            patch.setattr(stage, "parallel", lambda function, items, **_: (function(item) for item in items))
        slice_recordings(params)
        pitch(params)
    return folder, params


@pytest.fixture
def project(sliced, tmp_path, monkeypatch):
    folder, params = sliced
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    return params


def made():
    return {
        path.as_posix(): path.read_bytes() for path in [*MODELS.rglob("*.*"), *METRICS.rglob("*.*")] if path.is_file()
    }


def test_it_leaves_a_vocoder_its_metrics_and_its_history(project, capsys):
    vocoder(project)
    found, preferred = load_vocoder(MODELS, project.mel_spec, [])
    assert found.config.hidden == 8
    metrics = json.loads((METRICS / "vocoder.json").read_text())
    assert set(metrics) == {"valid", "test"} and set(metrics["test"]) == {"vocoder", "griffin-lim"}
    errors = {name: values["full_band_error"] for name, values in metrics["valid"].items()}
    assert preferred == min(errors, key=errors.get)
    for values in metrics["test"].values():
        assert {"voicing_accuracy", "pitch_accuracy", "stft_distance", "mel_cepstral_distortion"} < set(values)
        assert all(np.isfinite(value) for value in values.values())
    for name in ("pitch", "envelopes"):
        with (METRICS / f"history/vocoder-{name}.csv").open() as file:
            assert [row["epoch"] for row in csv.DictReader(file)] == ["1"]
    assert not list(CHECKPOINTS.glob("vocoder-*"))
    assert "preferred" in capsys.readouterr().out
    first = made()
    vocoder(project)
    assert made() == first


def test_a_training_that_was_killed_goes_on_from_its_last_epoch(project, monkeypatch):
    monkeypatch.setattr(training, "EPOCH_STEPS", 2)
    vocoder(project)
    straight = made()
    for path in straight:
        Path(path).unlink()
    fits = []

    class Killed(keras.callbacks.Callback):
        def __init__(self, label, metric):
            super().__init__()
            self.label = label

        def on_epoch_begin(self, epoch, logs=None):
            fits.append((self.label, epoch))
            if fits == [("vocoder-pitch", 0), ("vocoder-pitch", 1), ("vocoder-envelopes", 0), ("vocoder-envelopes", 1)]:
                raise KeyboardInterrupt

    monkeypatch.setattr(stages.vocoder, "EpochProgress", Killed)
    with pytest.raises(KeyboardInterrupt):
        vocoder(project)
    assert not (MODELS / "vocoder.json").exists()
    fits.clear()
    vocoder(project)
    assert fits == [("vocoder-envelopes", 1)]
    assert made() == straight


def test_singers_are_told_apart(project):
    params = project.model_copy(update={"model": project.model.model_copy(update={"condition_on": ["singer"]})})
    vocoder(params)
    found, _ = load_vocoder(MODELS, params.mel_spec, ["anna", "bo"])
    values = np.zeros((1, 20, 32), np.float32)
    assert np.abs(found(values, singers=[0]) - found(values, singers=[1])).max() > 0


def test_recordings_without_any_voice_train_without_error(project):
    noise = 0.1 * np.random.default_rng(0).standard_normal(16 * RATE)
    for name in ("anna", "bo"):
        soundfile.write(CLEAN / f"{name}.flac", noise[: soundfile.info(CLEAN / f"{name}.flac").frames], RATE)
    slice_recordings(project)
    pitch(project)
    vocoder(project)
    metrics = json.loads((METRICS / "vocoder.json").read_text())
    assert "octave_errors" not in metrics["test"]["vocoder"] or metrics["test"]["vocoder"]["octave_errors"] >= 0
    assert np.isfinite(metrics["test"]["vocoder"]["full_band_error"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda: (CLEAN / "anna.flac").unlink(), r"anna\.flac"),
        (lambda: (PITCH / "pitch.parquet").unlink(), r"pitch\.parquet: no such file; the stage pitch makes it"),
        (lambda: (PITCH / "pitch.parquet").write_bytes(b"PAR1"), r"pitch\.parquet: damaged"),
        (lambda: write_manifest(CLEAN, read_manifest(CLEAN)[1:]), r"anna/song\.wav: in the shards, but without audio"),
        (lambda: Path("data/shards/train/index.json").unlink(), r"index\.json"),
    ],
    ids=["recording", "pitch", "damaged pitch", "manifest", "shards"],
)
def test_what_is_missing_is_named_and_nothing_made_is_lost(project, damage, message):
    MODELS.mkdir()
    (MODELS / "vocoder.json").write_text("the last one")
    damage()
    with pytest.raises(StageError, match=message):
        vocoder(project)
    assert (MODELS / "vocoder.json").read_text() == "the last one"
