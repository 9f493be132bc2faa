"""Stage `evaluate`: all figures over the same elements, and worse for a worse model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from melnet.data.dataset import Normalisation
from melnet.data.shards import Shards, ShardWriter
from melnet.errors import MelnetError
from stages.evaluate import evaluate
from stages.paths import MODELS, SHARDS

FIGURES = ("nll", "baseline_band_nll", "baseline_previous_frame_nll", "baseline_linear_nll")


def test_metrics(workspace):
    evaluate(workspace)
    metrics = json.loads(Path("metrics/evaluate.json").read_text())
    assert metrics.pop("tiers") == {"tier-1": pytest.approx(metrics["nll"])}
    in_log_mel = {name: metrics.pop(f"{name}_log_mel") for name in ("nll", "baseline_linear_nll")}
    assert set(metrics) == {"floored", "nll_train", *FIGURES, *(f"{name}_above_floor" for name in FIGURES)}
    x = Shards(SHARDS / "test").read_all()
    assert metrics["floored"] == pytest.approx((x <= np.log(1e-5) + 1e-3).mean())
    # An independent figure for the simplest of the four, with one Gaussian per band instead of two.
    normalisation = Normalisation.read(SHARDS / "normalisation.json")
    normalised = normalisation.normalise(x)
    assert metrics["baseline_band_nll"] < 0.5 * np.log(2 * np.pi) + 0.5 * (normalised**2).mean()
    for name, value in in_log_mel.items():
        assert value == pytest.approx(metrics[name] + np.log(normalisation.std).mean())
    baselines = json.loads((MODELS / "baselines.json").read_text())
    assert np.shape(baselines["band"]["means"]) == (32, 2)
    assert np.shape(baselines["linear"]["coefficients"]) == (32, 1 + 4 * 32)


def test_nll_train_is_that_of_the_train_split(workspace):
    """It is near the test split's where the two are alike, and does not change when the test split does."""
    evaluate(workspace)
    alike = json.loads(Path("metrics/evaluate.json").read_text())
    assert alike["nll_train"] == pytest.approx(alike["nll"], abs=0.1)
    test = Shards(SHARDS / "test")
    louder, spec = test.read_all() + 4, test.spec
    shutil.rmtree(SHARDS / "test")
    with ShardWriter(SHARDS / "test", spec, 1000) as writer:
        writer.write("wave.wav", np.arange(len(louder)) * spec.frames, louder, "")
    evaluate(workspace)
    apart = json.loads(Path("metrics/evaluate.json").read_text())
    assert apart["nll"] > alike["nll"] + 0.3
    assert apart["nll_train"] == pytest.approx(alike["nll_train"], rel=1e-6)


def test_a_missing_model_stops_it(workspace):
    (MODELS / "melnet.json").unlink()
    with pytest.raises(MelnetError, match=r"models/melnet\.json"):
        evaluate(workspace)
