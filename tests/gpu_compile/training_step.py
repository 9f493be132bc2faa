"""Compile one training step for a GPU that is not there: ``python -m tests.gpu_compile.training_step GPU SIZE``.

Prints as JSON the kernels of a step, its memory in bytes, and the instructions that exchange data with the host. With
``cpu`` as a third argument it compiles the loop for CPUs, for comparison. Keras runs on JAX's CPU; only the compiler is
the GPU's, and takes nvcc's folder from XLA_FLAGS.
"""

import json
import sys

import jax
import keras

from melnet.model import kernel_choice
from melnet.model.tier import Tier
from melnet.training.fit import TrainConfig, compile_tier
from tests.gpu_compile.sizes import SIZES
from tests.gpu_compile.target import figures, shapes_on


def compiled(gpu, size):
    """A whole step of a first tier: forward, backward, optimizer, average of the weights, metrics."""
    shaped = shapes_on(gpu)
    with keras.StatelessScope(initialize_variables=False):  # shapes suffice
        tier = Tier(
            bands=size.bands,
            layers=size.layers,
            hidden=size.hidden,
            num_components=10,
            min_sigma=0.02,
            recompute=size.recompute,
        )
    compile_tier(tier, TrainConfig(epochs=1, batch_size=size.batch, windows_per_epoch=size.batch))
    x = shaped((size.batch, size.frames, size.bands))
    weights = shaped((size.batch,))
    kinds = tier.trainable_variables, tier.non_trainable_variables, tier.optimizer.variables, tier.metrics_variables
    state = tuple([shaped(variable.shape, variable.dtype) for variable in variables] for variables in kinds)
    return jax.jit(tier.train_step, donate_argnums=0).lower(state, ({"x": x}, x, weights)).compile()


def main():
    gpu, size, *kernel = sys.argv[1:]
    kernel_choice.accelerated = lambda cell: kernel != ["cpu"]
    step = compiled(gpu, SIZES[size])
    print(json.dumps(figures(step)))


if __name__ == "__main__":
    main()
