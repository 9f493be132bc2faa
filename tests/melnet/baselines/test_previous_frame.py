import json

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy import stats

from melnet.baselines.previous_frame import RIDGE, PreviousFrame

MIN_SIGMA = 0.02

JSON = TypeAdapter(PreviousFrame)


def fit_regression(x, max_frames=10_000):
    return PreviousFrame.fit(x, min_sigma=MIN_SIGMA, max_frames=max_frames, seed=0)


def test_regression_is_least_squares_on_the_whole_previous_frame(moving):
    x = moving
    previous, current = x[:, :-1].reshape(-1, 3).astype(float), x[:, 1:].reshape(-1, 3).astype(float)
    # The ridge as further rows of a least-squares problem; the intercept, kept by centring, is not penalised.
    design = np.vstack([previous - previous.mean(0), np.sqrt(RIDGE) * np.eye(3)])
    target = np.vstack([current - current.mean(0), np.zeros((3, 3))])
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    predicted = (previous - previous.mean(0)) @ solution + current.mean(0)
    sigma = np.sqrt(np.mean((current - predicted) ** 2, axis=0))
    nll = fit_regression(x).nll(x)
    assert nll.shape == x.shape
    expected = -stats.norm(predicted, sigma).logpdf(current).reshape(20, 29, 3)
    np.testing.assert_allclose(nll[:, 1:], expected, rtol=1e-6, atol=1e-6)


def test_ridge_costs_next_to_nothing(moving):
    x = moving
    previous, current = x[:, :-1].reshape(-1, 3).astype(float), x[:, 1:].reshape(-1, 3).astype(float)
    design = np.column_stack([previous, np.ones(len(previous))])
    predicted = design @ np.linalg.lstsq(design, current, rcond=None)[0]
    unpenalised = -stats.norm(predicted, (current - predicted).std(axis=0)).logpdf(current).mean()
    assert fit_regression(x).nll(x)[:, 1:].mean() == pytest.approx(unpenalised, abs=1e-3)


def test_first_frames_are_scored_by_the_band_alone(moving):
    x = moving
    flat = x.reshape(-1, 3).astype(float)
    expected = -stats.norm(flat.mean(0), flat.std(0)).logpdf(x[:, 0])
    np.testing.assert_allclose(fit_regression(x).nll(x)[:, 0], expected, rtol=1e-6)


def test_regression_knows_nothing_of_later_frames_or_other_slices(moving):
    x = moving
    fitted = fit_regression(x)
    changed = x.copy()
    changed[3, 10] += 1
    touched = np.argwhere((fitted.nll(changed) != fitted.nll(x)).any(axis=-1))
    assert touched.tolist() == [[3, 10], [3, 11]]


def test_regression_bounds_sigma_where_nothing_moves():
    x = np.full((4, 10, 2), -3.0, np.float32)
    fitted = fit_regression(x)
    assert (fitted.sigma == MIN_SIGMA).all()
    np.testing.assert_allclose(fitted.nll(x), np.log(MIN_SIGMA * np.sqrt(2 * np.pi)), rtol=1e-6)


def test_regression_of_single_frames_is_the_band_alone(rng):
    x = rng.normal(size=(50, 1, 2)).astype(np.float32)
    fitted = fit_regression(x)
    longer = np.repeat(x, 2, axis=1)
    np.testing.assert_allclose(fitted.nll(longer)[:, 0], fitted.nll(longer)[:, 1], rtol=1e-9)


def test_a_fit_draws_no_more_frames_than_allowed_and_always_the_same(moving):
    few = fit_regression(moving, max_frames=100)
    assert JSON.dump_json(few) == JSON.dump_json(fit_regression(moving, max_frames=100))
    assert JSON.dump_json(few) != JSON.dump_json(fit_regression(moving))


def test_it_survives_json(moving):
    fitted = fit_regression(moving)
    again = JSON.validate_json(json.dumps(JSON.dump_python(fitted), allow_nan=False))
    np.testing.assert_array_equal(again.nll(moving), fitted.nll(moving))
