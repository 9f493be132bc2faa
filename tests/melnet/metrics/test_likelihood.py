import numpy as np
import pytest

from melnet.metrics.likelihood import MeanNll


def test_means_are_over_all_elements_and_over_sound():
    means = MeanNll()
    means.update(np.array([[True, True, False]]), {"model": np.array([[-2.0, -2.0, 1.0]], np.float32)})
    means.update(np.array([[False]]), {"model": np.array([[3.0]], np.float32)})
    summary = means.summary()
    assert summary == {"floored": 0.5, "model": 0.0, "model_above_floor": 2.0}
    assert all(type(value) is float for value in summary.values())


def test_silence_alone_has_no_figure_for_sound():
    means = MeanNll()
    means.update(np.ones((2, 3), bool), {"nll": np.full((2, 3), -1.0)})
    assert means.summary() == {"floored": 1.0, "nll": -1.0}


def test_many_float32_values_lose_no_digits():
    means = MeanNll()
    means.update(np.zeros(3_000_000, bool), {"nll": np.full(3_000_000, 0.1, np.float32)})
    assert means.summary()["nll"] == pytest.approx(float(np.float32(0.1)), rel=1e-12)
