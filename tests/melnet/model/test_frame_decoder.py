"""A frame as accelerators draw it is the one that the tier draws."""

import numpy as np
import pytest
from keras import ops

from melnet.backend import compiled
from melnet.model import frame_decoder
from melnet.model.frame_decoder import UNROLL, FrameDecoder, fused_matmul
from melnet.model.recurrent import row
from melnet.model.tier import Tier
from tests.weights import fixed

BATCH, HIDDEN = 3, 5


@pytest.mark.parametrize(
    ("cell", "layers", "bands", "precision", "tolerance"),
    [("lstm", 3, 2 * UNROLL + 3, "float32", 1e-5), ("gru", 2, 3, "float32", 1e-5), ("gru", 2, 3, "bfloat16", 0.02)],
)
@pytest.mark.parametrize("fused", [True, False])
def test_it_draws_what_the_tier_draws(monkeypatch, cell, layers, bands, precision, tolerance, fused):
    monkeypatch.setattr(frame_decoder, "FUSED_FLOP", 1e8 if fused else 0)
    tier = fixed(_tier(bands, layers, cell=cell, precision=precision, feature_layers=0))
    _compare(tier, {}, tolerance)
    conditions = {"time": (1, bands, BATCH), "frequency": (1, bands, 1), "frame": (1, BATCH)}
    _compare(tier, conditions, tolerance)


def test_a_later_tier_has_no_centralised_stack():
    _compare(fixed(_tier(3, 2, feature_layers=1)), {"time": (1, 3, BATCH), "frequency": (1, 3, BATCH)}, 1e-5)


def test_it_reads_the_text_that_the_tier_reads():
    tier = fixed(_tier(3, 2, feature_layers=0, text=4))
    _compare(tier, {"symbols": (1, 6, BATCH)}, 1e-5, length=np.array([[6, 2, 4]], "float32"))


def _tier(bands, layers, **others):
    return Tier(bands=bands, layers=layers, hidden=HIDDEN, num_components=2, min_sigma=0.02, **others)


def _compare(tier, conditions, tolerance, **others):
    """Draw two frames both ways; ``conditions`` has the shape of the features that each stack is told."""
    rng = np.random.default_rng(5)
    draws = rng.normal(size=(tier.bands, BATCH)).astype("float32")
    condition = {name: rng.normal(size=(*shape, HIDDEN)).astype("float32") for name, shape in conditions.items()}
    condition |= others

    def sample_fn(parameters, f):
        noise = draws if f is None else row(draws, f)
        return parameters[..., 0] + ops.exp(parameters[..., 2]) * noise

    def drawn(condition, decoder):
        frame_step = FrameDecoder(tier, BATCH) if decoder else tier.frame_step
        state, first = frame_step(tier.initial(BATCH, condition), sample_fn, condition)
        state, second = frame_step(state, sample_fn, condition)
        return first, second, state.frame, state.time_delayed, state.centralised, state.reading

    expected, found = (compiled(lambda given, decoder=d: drawn(given, decoder))(condition) for d in (False, True))
    _equal(found, expected, tolerance)
    assert np.abs(ops.convert_to_numpy(expected[1])).max() > 0.3


def _equal(found, expected, tolerance):
    if isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            _equal(*pair, tolerance)
    else:
        np.testing.assert_allclose(ops.convert_to_numpy(found), ops.convert_to_numpy(expected), atol=tolerance)


@pytest.mark.parametrize(("a", "b"), [((2, 7), (7, 3)), ((2, 4, 7), (2, 7, 3))])
def test_a_sum_over_windows_is_a_product_of_matrices(a, b):
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=shape).astype("float32") for shape in (a, b))
    np.testing.assert_allclose(ops.convert_to_numpy(compiled(fused_matmul)(a, b)), a @ b, rtol=1e-5, atol=1e-6)
