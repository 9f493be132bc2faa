"""Which kernel computes the recurrent layers: the loop for CPUs, or on an accelerator the one that is made for it.

No test can run on every accelerator, compiler and driver. So on an accelerator both kernels first compute one small
batch. Where they disagree, the loop for CPUs is used, which is slower there.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from keras import ops

from melnet import backend
from melnet.backend import Tensor
from melnet.model.recurrent import Recurrent
from melnet.model.recurrent_accelerator import Job, run_together

TOLERANCE = 0.02
"""largest difference that counts as rounding, relative to a tensor's largest value: GPUs multiply float32 with 10 bits
of mantissa by default"""

STEPS, ROWS, FEATURES, HIDDEN = 11, 4, 8, 16


@cache
def accelerated(cell: type[Recurrent]) -> bool:
    """Whether recurrent layers of a cell run by :mod:`melnet.model.recurrent_accelerator`.

    The first call for a cell may compute, so it must not come from a function that is being traced.
    """
    if not backend.has_accelerator():
        return False
    found = difference(cell)
    if found <= TOLERANCE:
        return True
    warnings.warn(
        f"{cell.__name__}: on this accelerator, results of the kernel for accelerators differ by {found:.2g} of the "
        f"largest value from those of the kernel for CPUs, more than {TOLERANCE:g}; the latter, slower one is used",
        stacklevel=2,
    )
    return False


def difference(cell: type[Recurrent]) -> float:
    """Largest difference between both kernels, forward and reversed, in hidden states and all gradients.

    It is relative to the largest value of each tensor, and infinite if a value is not finite.
    """
    rng = np.random.default_rng(0)
    columns = cell.gates * HIDDEN
    weights = {
        "kernel": (FEATURES, columns),
        "recurrent": (HIDDEN, columns),
        "bias": (columns,),
        "recurrent_bias": (columns,),  # not every cell has it
        "initial": (cell.states, HIDDEN),
    }
    shapes = [(STEPS, ROWS, FEATURES), *weights.values(), *weights.values()]
    sizes = [int(np.prod(shape)) for shape in shapes]
    inputs = rng.normal(scale=0.5, size=sum(sizes)).astype(np.float32)
    factors = rng.normal(size=(2, STEPS, ROWS, HIDDEN)).astype(np.float32)

    def jobs(flat: Tensor) -> list[Job]:
        parts = ops.split(flat, np.cumsum(sizes)[:-1].tolist())
        x, *tensors = (ops.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True))
        rnns = [cell(HIDDEN, reverse=reverse, name="compared") for reverse in (False, True)]
        for i, rnn in enumerate(rnns):
            # Not by `build`, whose random weights would be others in all models that are built after these.
            for name, tensor in zip(weights, tensors[i * len(weights) :], strict=False):
                setattr(rnn, name, tensor)
        return [(rnn, x) for rnn in rnns]

    def computed(run: Callable[[list[Job]], list[Tensor]]) -> list[np.ndarray]:
        def hidden(flat: Tensor) -> Tensor:
            return ops.stack(run(jobs(flat)))

        [gradient] = backend.gradients(lambda flat: ops.sum(hidden(flat) * factors))(inputs)
        values: Any = backend.compiled(hidden)(inputs)
        return [ops.convert_to_numpy(values), *np.split(ops.convert_to_numpy(gradient), np.cumsum(sizes)[:-1])]

    expected, actual = computed(lambda jobs: [rnn.call(x) for rnn, x in jobs]), computed(run_together)
    if not all(np.isfinite(tensor).all() for tensor in (*expected, *actual)):
        return float("inf")
    pairs = [(a, b, np.abs(b).max()) for a, b in zip(actual, expected, strict=True)]
    return max(float(np.abs(a - b).max() / (scale or 1)) for a, b, scale in pairs)
