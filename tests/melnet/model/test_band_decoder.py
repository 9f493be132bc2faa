"""The frequency-delayed stack as accelerators compute it draws what the stack of the tier draws."""

import numpy as np
import pytest
from keras import ops

from melnet.backend import compiled
from melnet.model.band_decoder import UNROLL, BandDecoder
from melnet.model.recurrent import row
from melnet.model.tier import Tier
from tests.weights import fixed

BATCH, HIDDEN = 3, 5


@pytest.mark.parametrize(
    ("cell", "layers", "bands", "precision", "tolerance"),
    [("lstm", 3, 2 * UNROLL + 3, "float32", 1e-5), ("gru", 2, 3, "float32", 1e-5), ("gru", 2, 3, "bfloat16", 0.02)],
)
def test_it_draws_what_the_tier_draws(cell, layers, bands, precision, tolerance):
    rng = np.random.default_rng(5)
    sizes = {"bands": bands, "layers": layers, "hidden": HIDDEN, "num_components": 2, "min_sigma": 0.02}
    tier = fixed(Tier(**sizes, cell=cell, precision=precision))
    draws = rng.normal(size=(bands, BATCH)).astype("float32")

    def drawn(contexts, condition, decoder):
        draw = BandDecoder(tier) if decoder else tier._bands
        return draw(contexts, lambda mixtures, f: mixtures[:, 0] + ops.exp(mixtures[:, 2]) * row(draws, f), condition)

    contexts = rng.normal(size=(bands, layers, BATCH, HIDDEN)).astype("float32")
    for batch in (BATCH, 1):  # of the condition: each sample has its own, or all share one
        condition = rng.normal(size=(1, bands, batch, HIDDEN)).astype("float32")
        expected, found = (
            compiled(lambda *given, decoder=decoder: drawn(*given, decoder))(contexts, condition)
            for decoder in (False, True)
        )
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(ops.convert_to_numpy(a), ops.convert_to_numpy(b), atol=tolerance)
    assert np.abs(ops.convert_to_numpy(expected[1])).max() > 0.3
