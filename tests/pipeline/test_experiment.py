"""Overrides of params.yaml keep its comments, and are refused if they name no setting."""

from pathlib import Path

import pytest

from pipeline import experiment

PARAMS = """\
train:            # how to train
  epochs: 30      # passes
  rate: 7.0e-4
model:
  tiers:
    tier-1: {layers: 4, hidden: 64}
"""


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS)
    return path


def test_an_override_changes_its_value_and_nothing_else(params: Path) -> None:
    experiment.override(params, {"train.epochs": 5, "model.tiers.tier-1.layers": 1})
    assert params.read_text() == PARAMS.replace("epochs: 30 ", "epochs: 5  ").replace("layers: 4", "layers: 1")


@pytest.mark.parametrize("key", ["train.epoch", "tran.epochs", "train.epochs.first", "epochs"])
def test_an_override_of_an_unknown_setting_is_refused_by_name(params: Path, key: str) -> None:
    with pytest.raises(ValueError, match=rf"params\.yaml has no '{key}' \(to be set to 5\)"):
        experiment.override(params, {key: 5})
    assert params.read_text() == PARAMS


def test_git_errors_name_the_command_and_the_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=f"git rev-parse HEAD in {tmp_path}"):
        experiment.git(tmp_path, "rev-parse", "HEAD")
