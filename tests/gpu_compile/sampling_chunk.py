"""Compile a chunk of sampling for a GPU that is not there.

``python -m tests.gpu_compile.sampling_chunk GPU SIZE [SAMPLES]`` prints as JSON the kernels of a frame, the memory of a
chunk in bytes, and the instructions that exchange data with the host. See :mod:`tests.gpu_compile.training_step`.
"""

import json
import sys

import jax
import keras
import numpy as np

from melnet.backend import stateless
from melnet.model import kernel_choice
from melnet.model.tier import Tier
from melnet.sampling import CHUNK_FRAMES, LARGEST_GROUP, frame_drawer
from tests.gpu_compile.sizes import SIZES
from tests.gpu_compile.target import figures, shapes_on


def compiled(gpu, size, samples):
    """The next :data:`CHUNK_FRAMES` frames of a group of a first tier."""
    shaped = shapes_on(gpu)
    tier = Tier(bands=size.bands, layers=size.layers, hidden=size.hidden, num_components=10, min_sigma=0.02)
    limits = np.repeat(np.array([[-4], [4], [-4]], np.float32), size.bands, axis=1)
    state = keras.tree.map_structure(lambda tensor: shaped(tensor.shape), jax.eval_shape(lambda: tier.initial(samples)))
    noise = [shaped((CHUNK_FRAMES, size.bands, samples))] * 2
    draw = jax.jit(stateless(frame_drawer(tier, limits), tier.weights))
    weights = [shaped(weight.shape) for weight in tier.weights]
    return draw.lower(weights, state, {}, *noise, shaped(()), shaped((), "int32")).compile()


def main():
    gpu, size, *samples = sys.argv[1:]
    kernel_choice.accelerated = lambda cell: True
    chunk = compiled(gpu, SIZES[size], int(*samples or [LARGEST_GROUP]))
    print(json.dumps(figures(chunk, repeats=CHUNK_FRAMES)))


if __name__ == "__main__":
    main()
