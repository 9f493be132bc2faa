"""A training step whose batch is cut into parts is the step of the whole batch."""

import numpy as np
import pytest

from melnet import backend
from melnet.model.tier import Tier
from melnet.training.fit import TrainConfig, compile_tier
from tests.weights import fixed

BATCH, FRAMES, BANDS = 8, 4, 4
SETTINGS = TrainConfig(
    epochs=1,
    batch_size=BATCH,
    learning_rate=1e-2,
    momentum=0.9,
    lr_halving_epochs=1,
    clip_norm=1.0,
    ema_decay=0.5,
    recompute=False,
    seed=0,
)
only_in_parts = pytest.mark.skipif(backend.PARTS == 1, reason="on this backend or device a step is not cut into parts")


@pytest.fixture(scope="module")
def batch():
    """A batch for a later tier with singers; its last two slices are padding."""
    rng = np.random.default_rng(20190604)
    x = rng.normal(size=(BATCH, FRAMES, BANDS)).astype("float32")
    context = rng.normal(size=x.shape).astype("float32")
    inputs = {"x": x, "context": context, "singer": np.arange(BATCH, dtype="int32") % 3}
    return inputs, x, np.array([1] * (BATCH - 2) + [0, 0], "float32")


def stepped(batch, parts, recompute=False):
    """The reports of two training steps and a test step, and the weights after them."""
    tier = fixed(
        Tier(
            bands=BANDS,
            layers=1,
            hidden=5,
            num_components=2,
            min_sigma=0.02,
            feature_layers=1,
            singers=3,
            recompute=recompute,
        )
    )
    compile_tier(tier, SETTINGS)
    tier.parts = parts
    inputs, x, weights = batch
    reports = [tier.train_on_batch(inputs, x, sample_weight=weights, return_dict=True) for _ in range(2)]
    reports.append(tier.test_on_batch(inputs, x, sample_weight=weights, return_dict=True))
    return reports, tier.get_weights()


@pytest.fixture(scope="module")
def as_usual(batch):
    return stepped(batch, backend.parts_of(BATCH))


@only_in_parts
def test_parts_add_up_to_the_whole(batch, as_usual):
    (whole, whole_weights), (cut, cut_weights) = stepped(batch, 1), as_usual
    for report, expected in zip(cut, whole, strict=True):
        assert set(report) == {"loss", "nll"}
        assert report == pytest.approx(expected, abs=1e-5)
    assert whole[0]["loss"] != whole[1]["loss"]
    for weight, expected in zip(cut_weights, whole_weights, strict=True):
        np.testing.assert_allclose(weight, expected, atol=1e-5)


def test_padding_of_a_batch_counts_for_nothing(batch, as_usual):
    inputs, _, weights = batch
    other = {name: np.where(np.arange(BATCH).reshape(-1, *[1] * (v.ndim - 1)) < 6, v, 0) for name, v in inputs.items()}
    second, _ = stepped((other, other["x"], weights), backend.parts_of(BATCH))
    assert second == as_usual[0]


def test_recomputing_changes_nothing(batch, as_usual):
    (kept, kept_weights), (again, again_weights) = as_usual, stepped(batch, backend.parts_of(BATCH), recompute=True)
    assert again == [pytest.approx(report, abs=1e-6) for report in kept]
    for weight, expected in zip(again_weights, kept_weights, strict=True):
        np.testing.assert_allclose(weight, expected, atol=1e-6)


@pytest.mark.parametrize(("batch_size", "parts"), [(16, 4), (6, 3), (2, 2), (7, 1), (1, 1)])
@only_in_parts
def test_parts_divide_a_batch(batch_size, parts):
    assert backend.parts_of(batch_size) == parts
