"""No compiled program of sampling or of the likelihood holds weights as constants; both backends."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from melnet.likelihood import Likelihood
from melnet.model.tier import Tier
from melnet.sampling import Sampler

ROOT = Path(__file__).parents[2]
BANDS, HIDDEN = 6, 32  # a kernel has thousands of elements, and nothing else has

UNDER_JAX = """
import re

import jax

from melnet.backend import compiled
from tests.melnet.test_weights_as_arguments import make_tiers, use

jit, called = jax.jit, []


class Recorded:
    def __init__(self, function):
        self.program = jit(function)

    def __call__(self, *arguments):
        called.append(self.program.lower(*arguments).as_text())
        return self.program(*arguments)


jax.jit = Recorded


def largest(text):
    shapes = re.findall(r'constant dense<["\\[][^>]*> : tensor<([0-9x]+)x[a-z]', text)
    return max((eval(shape.replace("x", "*")) for shape in shapes), default=0)


tiers = make_tiers()
use(tiers)
print(len(called), max(map(largest, called)))
compiled(tiers[0].condition)({"singer": jax.numpy.zeros(1, "int32")})
print(largest(called[-1]))
"""


def make_tiers():
    sizes = {"layers": 1, "hidden": HIDDEN, "num_components": 3, "min_sigma": 0.02, "singers": 2}
    return [Tier(bands=BANDS, **sizes), Tier(bands=BANDS, feature_layers=1, **sizes)]


def use(tiers):
    """Run every program once: conditions, prefilling, frames one by one and in chunks, likelihoods."""
    low, high, prime = np.full(BANDS, -3), np.full(BANDS, 3), np.zeros((4, BANDS), np.float32)
    samplers = [Sampler(tiers, low, high, chunked=chunked) for chunked in (False, True)]
    for sampler in samplers:
        sampler.sample(1, 4, seed=0, prime=prime)
    likelihood = Likelihood(tiers)
    likelihood.nats(np.zeros((1, 4, BANDS), np.float32), np.zeros(1, np.int32))
    return samplers, likelihood


def test_under_jax():
    pytest.importorskip("jax")
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", UNDER_JAX]
    output = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    programs, largest, closed_over = map(int, output.split())
    # Of each of two tiers: the condition, prefilling, one frame, a chunk for each sampler, the likelihood.
    assert programs >= 10
    assert largest <= BANDS
    assert closed_over >= 2 * HIDDEN, "without variables the embedding of the singers is a constant"


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's graphs")
def test_under_tensorflow():
    samplers, likelihood = use(make_tiers())
    programs = [likelihood._scores]
    programs += [
        found for sampler in samplers for found in (sampler._draw_frames, sampler._condition, sampler._prefill)
    ]
    for i, program in enumerate(program for found in programs for program in found):
        for concrete in program._list_all_concrete_functions():
            graph = concrete.graph.as_graph_def()
            nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
            constants = [node.attr["value"].tensor.tensor_content for node in nodes if node.op == "Const"]
            assert max(map(len, constants), default=0) <= 4 * HIDDEN, f"program {i}"
            assert any(value.dtype == "resource" for value in concrete.captured_inputs)
