"""The GRU cell: one step and its gradient."""

from typing import Any

import keras
from keras import ops

from melnet.backend import Tensor
from melnet.model.recurrent import Recurrent, State, Tensors


@keras.saving.register_keras_serializable("melnet")
class GRU(Recurrent):
    """A GRU with the gates and weights of ``keras.layers.GRU``: update gate, reset gate and candidate.

    A state is the hidden state alone. As in cuDNN and in Keras' default, the reset gate acts on the projected state, so
    the recurrent projections of all gates are one matmul. Parameters: see :class:`Recurrent`.

    >>> import numpy as np
    >>> from melnet.backend import compiled
    >>> gru = GRU(4, reverse=True)
    >>> gru.build((None, None, 3))
    >>> tuple(compiled(gru)(np.zeros((7, 2, 3), "float32")).shape)
    (7, 2, 4)
    """

    gates = 3
    states = 1

    def add_biases(self) -> None:
        self.bias = self.add_weight(name="bias", shape=(3 * self.hidden,), initializer="zeros")
        self.recurrent_bias = self.add_weight(name="recurrent_bias", shape=(3 * self.hidden,), initializer="zeros")

    def biases(self) -> tuple[Any, ...]:
        return self.bias, self.recurrent_bias

    def projections(self) -> Tensors:
        return self.kernel * 1.0, self.bias * 1.0, self.recurrent * 1.0, self.recurrent_bias * 1.0

    @staticmethod
    def operands(x: Tensor, hidden: Tensor) -> Tensors:
        return x, hidden

    @staticmethod
    def activate(projected: Tensors, state: State) -> tuple[State, Tensors]:
        x_z, x_r, x_n = ops.split(projected[0], 3, axis=-1)
        h_z, h_r, h_n = ops.split(projected[1], 3, axis=-1)
        z, r = ops.sigmoid(x_z + h_z), ops.sigmoid(x_r + h_r)
        n = ops.tanh(x_n + r * h_n)
        return (z * state[0] + (1 - z) * n,), (z, r, n, h_n)

    @staticmethod
    def activate_gradient(activations: Tensors, before: State, after: State, d_after: State) -> tuple[Tensors, State]:
        z, r, n, h_n = activations
        [d_hidden] = d_after
        d_z = d_hidden * (before[0] - n) * z * (1 - z)
        d_n = d_hidden * (1 - z) * (1 - n * n)
        d_r = d_n * h_n * r * (1 - r)
        return tuple(ops.concatenate([d_z, d_r, d], axis=-1) for d in (d_n, d_n * r)), (d_hidden * z,)
