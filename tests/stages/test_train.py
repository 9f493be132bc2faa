"""Stage `train`: its files, its metrics, and going on after an interruption."""

import json
import shutil
from pathlib import Path

import keras
import pandas as pd
import pytest

from melnet.errors import MelnetError
from melnet.saved import ModelError, load
from stages.command import StageError
from stages.fingerprint import fingerprint
from stages.model import model
from stages.parameters import Tier
from stages.paths import MODELS, SHARDS
from stages.train import CHECKPOINTS, LOGS, model_costs, train


def test_outputs(workspace):
    config, tiers = load(MODELS)
    assert config.frames == 10
    assert config.mel == workspace.mel_spec
    assert config.tiers == ["tier-1"]
    assert [tier.bands for tier in tiers] == [32]
    metrics = json.loads(Path("metrics/train/tier-1.json").read_text())
    history = pd.read_csv("metrics/history/tier-1.csv")
    assert history["epoch"].tolist() == [1, 2]
    assert metrics["val_loss"] == history["val_loss"].min()
    assert (metrics["epochs"], metrics["stopped_early"], metrics["device"]) == (2, False, "cpu")
    assert history["loss"].iloc[1] < history["loss"].iloc[0]
    assert any((LOGS / "tier-1/tensorboard").rglob("events*"))
    assert any((LOGS / "tier-1/dvclive").rglob("*.tsv"))
    assert not list(CHECKPOINTS.iterdir())


class Interrupted(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


def test_an_interrupted_training_goes_on_to_the_same_bytes(workspace, monkeypatch, capsys):
    made = ["models/tier-1.weights.h5", "models/tiers/tier-1.json", "metrics/train/tier-1.json"]
    files = [Path(name) for name in [*made, "metrics/history/tier-1.csv"]]
    undisturbed = [path.read_bytes() for path in files]
    for path in files:
        path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr("stages.train._logs", lambda *_: [Interrupted()])
        with pytest.raises(KeyboardInterrupt):
            train(workspace)
    assert (CHECKPOINTS / "tier-1.npz").exists()
    assert not any(path.exists() for path in files)
    train(workspace)
    assert "continuing after epoch 1" in capsys.readouterr().out
    assert [path.read_bytes() for path in files] == undisturbed


def with_train(params, **changes):
    return params.model_copy(update={"train": params.train.model_copy(update=changes)})


def test_it_says_what_windows_are_drawn_from_and_when_it_stopped_early(workspace, capsys):
    train(with_train(workspace, window_frames=300, learning_rate=1e-30, epochs=5, patience=2))
    output = capsys.readouterr().out
    minutes = 400 * workspace.mel_spec.seconds_per_frame / 60
    assert f"windows of 300 frames from {minutes:.1f} min, 5 epochs of 40 windows in 5 steps, cpu;" in output
    assert "in epoch 1 of 3, the last 2 without a lower one" in output
    assert json.loads(Path("metrics/train/tier-1.json").read_text())["stopped_early"] is True


def test_a_window_that_is_too_long_is_named(workspace):
    message = r"^train\.window_frames: 401 frames are more than .* in data/shards/train has: 400$"
    with pytest.raises(StageError, match=message):
        train(with_train(workspace, window_frames=401))


def test_fingerprint_knows_data_code_and_settings(workspace):
    first = fingerprint("train", [workspace.model, workspace.train])
    assert fingerprint("train", [workspace.model, workspace.train]) == first
    changed = workspace.train.model_copy(update={"epochs": 3})
    assert fingerprint("train", [workspace.model, changed]) != first
    with (SHARDS / "train/part-00000.parquet").open("ab") as file:
        file.write(b"x")
    assert fingerprint("train", [workspace.model, workspace.train]) != first


def test_damaged_and_missing_shards_stop_it_by_name(workspace):
    path = SHARDS / "valid/part-00000.parquet"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StageError, match=r"valid/part-00000\.parquet"):
        train(workspace)
    shutil.rmtree(SHARDS / "valid")
    with pytest.raises(StageError, match="data/shards/valid"):
        train(workspace)


def three_tiers(params):
    tiers = {f"tier-{n}": Tier(layers=1, hidden=n + 3) for n in (1, 2, 3)}
    return params.model_copy(update={"model": params.model.model_copy(update={"tiers": tiers})})


def untrained(tier, data, config, checkpoint, callbacks):
    """In place of training: one epoch, after which the weights are as they were."""
    checkpoint.history = [{"epoch": 1, "loss": 1.0, "val_loss": 1.0, "learning_rate": 1e-3}]


def test_one_tier_of_three_is_trained_and_the_others_stay(workspace, monkeypatch):
    monkeypatch.setattr("stages.train.fit", untrained)
    params = three_tiers(workspace)
    model(params)
    with pytest.raises(ModelError, match=r"tiers/tier-1\.json: trained for another models/melnet\.json"):
        load(MODELS)
    train(params)
    _, tiers = load(MODELS)
    assert [(tier.hidden, tier.bands, len(tier.features)) for tier in tiers] == [(4, 16, 0), (5, 16, 1), (6, 16, 1)]
    before = {path: path.read_bytes() for path in MODELS.rglob("tier-*")}
    other = params.model.tiers | {"tier-2": Tier(layers=1, hidden=8)}
    params = params.model_copy(update={"model": params.model.model_copy(update={"tiers": other})})
    model(params)
    train(params, "tier-2")
    assert {path.name for path, content in before.items() if path.read_bytes() != content} == {
        "tier-2.json",
        "tier-2.weights.h5",
    }
    assert load(MODELS)[1][1].hidden == 8
    # Back to one: what is left of the others would be taken for part of the model.
    model(workspace)
    assert not list(Path().rglob("tier-[23].*"))


def test_another_number_of_tiers_has_to_be_laid_out_first(workspace):
    with pytest.raises(StageError, match=r"melnet\.json has tier-1; run the stage model again"):
        train(three_tiers(workspace))
    with pytest.raises(StageError, match=r"'tier-9' is no tier of model\.tiers: tier-1"):
        train(workspace, "tier-9")


def test_describing_trains_nothing(workspace, capsys):
    shutil.rmtree(MODELS)
    train(with_train(three_tiers(workspace), window_frames=12), describe=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["tier", "tier-1", "tier-2", "tier-3", "all"]
    assert lines[1].split()[1:4] == ["6", "x", "16"]
    assert lines[3].split()[1:4] == ["12", "x", "16"]
    assert not MODELS.exists()


def test_describing_says_how_many_micro_batches_fit(workspace, capsys, monkeypatch):
    [found] = model_costs(workspace).values()
    fits_half = (found.peak_with(2) + 1) / 2**30
    train(workspace, describe=True, memory=fits_half)
    header, line = capsys.readouterr().out.splitlines()
    assert header.endswith(f"train.accumulate for {fits_half:.1f} GiB")
    assert line.split()[-1] == "2"
    train(workspace, describe=True, memory=0.5)
    assert capsys.readouterr().out.endswith("does not fit\n")
    monkeypatch.setattr("stages.train.device_memory", lambda: found.peak_with(1) + 1)
    train(workspace, describe=True)
    assert capsys.readouterr().out.split()[-1] == "1"


def test_tracks_without_a_condition_of_the_model_are_refused(workspace):
    conditioned = workspace.model.model_copy(update={"condition_on": ["melody"]})
    with pytest.raises(MelnetError, match=r"tracks\.parquet: has no melody; run the stage tracks again"):
        model(workspace.model_copy(update={"model": conditioned}))


def test_recordings_of_nobody_stop_a_model_of_singers(workspace):
    conditioned = workspace.model.model_copy(update={"condition_on": ["singer"]})
    with pytest.raises(StageError, match=r"model\.condition_on: singer, but recordings lie directly in corpus"):
        model(workspace.model_copy(update={"model": conditioned}))
