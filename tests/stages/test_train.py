"""Stage `train`: its files, its metrics, and going on after an interruption."""

import json
import shutil
from pathlib import Path

import keras
import pandas as pd
import pytest

from melnet.saved import load
from stages.common import MODELS, SHARDS, StageError
from stages.fingerprint import fingerprint
from stages.train import CHECKPOINT, CURVES, LOGS, train


def test_outputs(workspace):
    description, tiers = load(MODELS)
    assert description.frames == 10
    assert description.mel == workspace.mel
    assert list(tiers) == ["tier-1"]
    metrics = json.loads(Path("metrics/train.json").read_text())
    history = pd.read_csv("metrics/history.csv")
    assert history["epoch"].tolist() == [1, 2]
    assert metrics["val_loss"] == history["val_loss"].min()
    assert history["loss"].iloc[1] < history["loss"].iloc[0]
    assert CURVES.stat().st_size > 10_000
    assert any((LOGS / "tensorboard").rglob("events*"))
    assert any((LOGS / "dvclive").rglob("*.tsv"))
    assert not CHECKPOINT.exists()


class Interrupted(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


def test_an_interrupted_training_goes_on_to_the_same_bytes(workspace, monkeypatch, capsys):
    files = ["models/melnet.json", "models/tier-1.weights.h5", "metrics/train.json", "metrics/history.csv"]
    undisturbed = [Path(name).read_bytes() for name in files]
    shutil.rmtree(MODELS)
    with monkeypatch.context() as patch:
        patch.setattr("stages.train._logs", lambda progress: [Interrupted()])
        with pytest.raises(KeyboardInterrupt):
            train(workspace)
    assert CHECKPOINT.exists()
    assert not MODELS.exists()
    train(workspace)
    assert "continuing after epoch 1" in capsys.readouterr().out
    assert [Path(name).read_bytes() for name in files] == undisturbed


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
