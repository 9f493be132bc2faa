"""A training step whose batch is cut into parts or micro-batches is the step of the whole batch."""

import os
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest

from melnet import backend
from melnet.model.tier import Tier
from melnet.training import devices
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


def stepped(batch, parts, recompute=False, accumulate=1, shared=False):
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
    compile_tier(tier, replace(SETTINGS, accumulate=accumulate))
    if shared:
        devices.share_training(tier)
    tier.parts = parts
    inputs, x, weights = batch
    reports = [tier.train_on_batch(inputs, x, sample_weight=weights, return_dict=True) for _ in range(2)]
    reports.append(tier.test_on_batch(inputs, x, sample_weight=weights, return_dict=True))
    return reports, tier.get_weights()


@pytest.fixture(scope="module")
def as_usual(batch):
    return stepped(batch, backend.parts_of(BATCH))


@pytest.fixture(scope="module")
def whole(batch):
    return stepped(batch, 1)


def assert_equal_but_for_rounding(actual, expected):
    (cut, cut_weights), (whole, whole_weights) = actual, expected
    for report, reference in zip(cut, whole, strict=True):
        assert set(report) == {"loss", "nll"}
        assert report == pytest.approx(reference, abs=1e-5)
    assert whole[0]["loss"] != whole[1]["loss"]
    for weight, reference in zip(cut_weights, whole_weights, strict=True):
        np.testing.assert_allclose(weight, reference, atol=1e-5)


@only_in_parts
def test_parts_add_up_to_the_whole(whole, as_usual):
    assert_equal_but_for_rounding(as_usual, whole)


@pytest.mark.parametrize(("accumulate", "parts"), [(2, 2), (8, 1)])
def test_micro_batches_add_up_to_the_whole(batch, whole, accumulate, parts):
    """In the last case, some hold nothing but padding."""
    assert_equal_but_for_rounding(stepped(batch, min(parts, backend.PARTS), accumulate=accumulate), whole)


@pytest.mark.skipif(devices.device_count() == 1, reason="here is one device")
def test_micro_batches_of_several_devices_add_up_to_the_whole(batch, whole):
    with devices.on_all_devices():
        assert_equal_but_for_rounding(stepped(batch, 1, accumulate=2, shared=True), whole)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="this is JAX already")
def test_the_same_with_jax_on_two_devices():
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-vv", "-k", "add_up", __file__]
    environment = os.environ | {"KERAS_BACKEND": "jax", "XLA_FLAGS": flags, "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


@pytest.mark.skipif(backend.PARTS == 1, reason="every function here is compiled with them")
def test_tensorflow_knows_the_options_for_gpus():
    """It would end the process otherwise, and only where there is a GPU."""
    program = "import tensorflow as tf; print(tf.function(lambda x: 2 * x, jit_compile=True)(tf.constant(21)).numpy())"
    environment = os.environ | {"XLA_FLAGS": backend.GPU_FLAGS}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout == "42\n", done.stderr


def test_micro_batches_have_equally_many_windows():
    with pytest.raises(ValueError, match="accumulate: 3 micro-batches do not divide 8 windows"):
        replace(SETTINGS, accumulate=3)


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
