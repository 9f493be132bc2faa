"""Stage `evaluate`: all figures over the same elements, and worse for a worse model."""

import json
from pathlib import Path

import numpy as np
import pytest

from melnet.data.dataset import Normalisation
from melnet.data.shards import Shards
from stages.command import StageError
from stages.evaluate import evaluate
from stages.paths import MODELS, SHARDS

FIGURES = ("nll", "baseline_band_nll", "baseline_previous_frame_nll")


def test_metrics(workspace):
    evaluate(workspace)
    metrics = json.loads(Path("metrics/evaluate.json").read_text())
    assert metrics.pop("tiers") == {"tier-1": pytest.approx(metrics["nll"])}
    assert set(metrics) == {"floored", *FIGURES, *(f"{name}_above_floor" for name in FIGURES)}
    x = Shards(SHARDS / "test").read_all()
    assert metrics["floored"] == pytest.approx((x <= np.log(1e-5) + 1e-3).mean())
    # An independent figure for the simplest of the three, with one Gaussian per band instead of two.
    normalised = Normalisation.read(SHARDS / "normalisation.json").normalise(x)
    assert metrics["baseline_band_nll"] < 0.5 * np.log(2 * np.pi) + 0.5 * (normalised**2).mean()
    baselines = json.loads((MODELS / "baselines.json").read_text())
    assert np.shape(baselines["band"]["means"]) == (32, 2)


def test_a_missing_model_stops_it(workspace):
    (MODELS / "melnet.json").unlink()
    with pytest.raises(StageError, match=r"models/melnet\.json"):
        evaluate(workspace)
