"""Training that starts from the weights of another model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from melnet.data.dataset import Normalisation
from melnet.data.shards import Shards, ShardWriter
from melnet.saved import load
from stages.command import StageError
from stages.fingerprint import fingerprint
from stages.model import model
from stages.paths import MODELS, SHARDS
from stages.train import train

BASE = Path("base")


@pytest.fixture
def based(workspace):
    """The parameters of a training that starts from a copy of the trained model, and whose weights stay."""
    shutil.copytree(MODELS, BASE)
    return with_train(workspace, initial_model=str(BASE), learning_rate=1e-30, epochs=1)


def with_train(params, **changes):
    return params.model_copy(update={"train": params.train.model_copy(update=changes)})


def equalise(split):
    """Change gain and contrast of each band of a split, in place; return the slopes and offsets."""
    shards = Shards(SHARDS / split)
    log_mel, spec = shards.read_all(), shards.spec
    slope, offset = np.linspace(0.5, 2, spec.bands, dtype=np.float32), np.linspace(-3, 3, spec.bands, dtype=np.float32)
    shutil.rmtree(SHARDS / split)
    with ShardWriter(SHARDS / split, spec, 1000) as writer:
        writer.write("wave.wav", np.arange(len(log_mel)) * spec.frames, slope * log_mel + offset)
    return slope, offset


def test_gain_and_equalisation_of_the_recordings_make_no_difference(based, capsys):
    """The weights are those of the other model, and the loss is the same on recordings that only differ so."""
    before = json.loads(Path("metrics/train/tier-1.json").read_text())["val_loss"]
    for split in ("train", "valid"):
        slope, offset = equalise(split)
    path = SHARDS / "normalisation.json"
    known = Normalisation.read(path)
    equalised = [
        slope * values + offset * moves for values, moves in zip(vars(known).values(), (1, 0, 1, 1), strict=True)
    ]
    path.write_bytes(TypeAdapter(Normalisation).dump_json(Normalisation(*equalised)))
    model(based)
    train(based)
    assert "starting from the weights of base\n" in capsys.readouterr().out
    for given, tier in zip(load(BASE)[1], load(MODELS)[1], strict=True):
        for one, other in zip(given.get_weights(), tier.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)  # the moving average rounds
    after = json.loads(Path("metrics/train/tier-1.json").read_text())["val_loss"]
    assert after == pytest.approx(before, abs=1e-4)


def test_what_does_not_fit_is_named_before_any_work(based):
    params = based.model_copy(update={"model": based.model.model_copy(update={"num_components": 3})})
    model(params)
    message = r"^train\.initial_model: base: a model of another shape: tier-1\.num_components 2, not 3$"
    with pytest.raises(StageError, match=message):
        train(params)


def test_a_folder_without_the_tier_is_named(based):
    (BASE / "tiers/tier-1.json").unlink()
    with pytest.raises(StageError, match=r"^train\.initial_model: base/tiers/tier-1\.json: no such file"):
        train(based)
    with pytest.raises(StageError, match=r"^train\.initial_model: models is where training writes; copy it"):
        train(with_train(based, initial_model="models"))


def test_a_checkpoint_is_only_continued_from_the_same_start(based, monkeypatch):
    seen = []
    monkeypatch.setattr("stages.train.Checkpoint", lambda _, fingerprint, **__: seen.append(fingerprint) or 1 / 0)
    for content in ("a", "b", "b"):
        (BASE / "tiers/tier-1.json").write_text(content)
        with pytest.raises(ZeroDivisionError):
            train(based)
    assert seen[0] != seen[1] == seen[2]


def test_the_fingerprint_takes_paths_that_settings_name_from_the_stage(based):
    sections = [based.train]
    assert fingerprint("train", sections) != fingerprint("train", sections, [BASE / "melnet.json"])
