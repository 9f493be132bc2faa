"""The kernel for accelerators against the loop for CPUs: values and every gradient, from trained initial states."""

import numpy as np
import pytest
from keras import ops

from melnet.backend import compiled, gradients
from melnet.model import recurrent_accelerator
from melnet.model.gru import GRU
from melnet.model.lstm import LSTM
from melnet.model.recurrent_accelerator import run_together

HIDDEN, FEATURES, BATCH, UNROLL = 4, 3, 2, 3
# Steps and rows of each RNN, and whether it is reversed. One has fewer steps than a pass of the loop, and others have
# some left over after whole passes. Two have one shape, and a third can be padded to theirs.
RNNS = [(2, 3, False), (7, 3, True), (4, 3, False), (4, 3, True), (4, 1, True)]
GROUPS = [[0], [1], [2, 3, 4]]


@pytest.fixture(autouse=True)
def short_passes(monkeypatch):
    monkeypatch.setattr(recurrent_accelerator, "UNROLL", UNROLL)


@pytest.mark.parametrize(
    ("recompute", "precision", "tolerance"),
    [(False, "float32", 1e-5), (True, "float32", 1e-5), (False, "bfloat16", 0.05)],
    ids=["stored", "recomputed", "bfloat16"],
)
@pytest.mark.parametrize("kind", [LSTM, GRU], ids=["lstm", "gru"])
def test_values_and_gradients_equal_those_of_the_loop_for_cpus(kind, recompute, precision, tolerance, rng):
    """In bfloat16 both kernels round the same operands, some of them to another neighbour."""
    rnns = [kind(HIDDEN, reverse=reverse, recompute=recompute, precision=precision) for *_, reverse in RNNS]
    for rnn in rnns:
        rnn.build((None, None, FEATURES))
        for weight in rnn.weights:  # the initial states among them
            weight.assign(rng.normal(scale=0.5, size=weight.shape))
    shapes = [(steps, rows, BATCH, FEATURES) for steps, rows, _ in RNNS]
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    flat = rng.normal(size=ends[-1]).astype("float32")
    factors = [rng.normal(size=(*shape[:-1], HIDDEN)).astype("float32") for shape in shapes]
    variables = [variable for rnn in rnns for variable in rnn.trainable_variables]

    def jobs(flat):
        parts = ops.split(flat, ends[:-1].tolist())
        return [(rnn, ops.reshape(part, shape)) for rnn, part, shape in zip(rnns, parts, shapes, strict=True)]

    def one_by_one(jobs):
        return [
            ops.reshape(rnn(ops.reshape(x, (x.shape[0], -1, FEATURES))), (*x.shape[:-1], HIDDEN)) for rnn, x in jobs
        ]

    def computed(run):
        values = compiled(lambda flat: run(jobs(flat)))(flat)

        def loss(flat):
            return sum(ops.sum(hidden * factor) for hidden, factor in zip(run(jobs(flat)), factors, strict=True))

        return [ops.convert_to_numpy(tensor) for tensor in (*values, *gradients(loss, variables)(flat))]

    assert sorted(recurrent_accelerator._members(jobs(flat))) == GROUPS
    actual, expected = computed(run_together), computed(one_by_one)
    assert len(actual) == len(RNNS) + 1 + len(variables)
    for a, b in zip(actual, expected, strict=True):
        assert np.abs(b).max() > 0.01
        np.testing.assert_allclose(a, b, atol=tolerance)


def test_rows_are_padded_only_where_that_is_cheap(monkeypatch, rng):
    rnn = LSTM(HIDDEN)
    many, few, shorter = (
        np.zeros(shape, "float32") for shape in ((5, 7, FEATURES), (5, 2, FEATURES), (4, 7, FEATURES))
    )
    jobs = [(rnn, few), (rnn, shorter), (rnn, many)]
    assert recurrent_accelerator._members(jobs) == [[1], [2, 0]]
    monkeypatch.setattr(recurrent_accelerator, "PADDING_FLOP", 5 * 2 * HIDDEN * 4 * HIDDEN - 1)
    assert recurrent_accelerator._members(jobs) == [[1], [2], [0]]
