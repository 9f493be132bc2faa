"""Masks and units of the evaluation; the stage's test covers the evaluation as a whole."""

import numpy as np
import pytest
from scipy import stats

from melnet.data.dataset import Normalisation, floored
from melnet.evaluation import in_log_mel


def test_floored_finds_silence_after_normalisation_in_float32(rng):
    floor = np.log(1e-5)
    mean, deviation = rng.normal(-6, 2, 8), rng.uniform(0.5, 3, 8)
    log_mel = rng.uniform(floor + 0.01, 4, (5, 20, 8))
    silent = rng.random(log_mel.shape) < 0.3
    log_mel[silent] = floor
    x = ((log_mel.astype(np.float32) - mean.astype(np.float32)) / deviation.astype(np.float32)).astype(np.float32)
    np.testing.assert_array_equal(floored(x, (floor - mean) / deviation), silent)


def test_the_likelihood_in_log_mel_is_that_of_a_density_of_log_mel(rng):
    mean, std = rng.normal(-6, 2, 8), rng.uniform(0.5, 3, 8)
    log_mel = rng.normal(mean, std, (5, 20, 8))
    normalisation = Normalisation(*(values.astype(np.float32) for values in (mean, std, mean, mean)))
    nll = -stats.norm.logpdf(normalisation.normalise(log_mel)).mean()
    assert in_log_mel(nll, normalisation) == pytest.approx(-stats.norm(mean, std).logpdf(log_mel).mean(), rel=1e-5)
