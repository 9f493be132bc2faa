"""The LSTM cell: one step and its gradient."""

from typing import Any

import keras
from keras import ops

from melnet.backend import Tensor
from melnet.model.recurrent import Recurrent, State, Tensors


@keras.saving.register_keras_serializable("melnet")
class LSTM(Recurrent):
    """An LSTM with the gates and weights of ``keras.layers.LSTM``: input, forget, candidate and output gate.

    The forget bias starts at one. A state is the hidden state and the cell. Each step is one matmul: the input and the
    hidden state side by side, times both kernels one above the other. Parameters: see :class:`Recurrent`.

    >>> import numpy as np
    >>> from melnet.backend import compiled
    >>> lstm = LSTM(4)
    >>> lstm.build((None, None, 3))
    >>> tuple(compiled(lstm)(np.zeros((7, 2, 3), "float32")).shape)
    (7, 2, 4)
    """

    gates = 4
    states = 2

    def add_biases(self) -> None:
        self.bias = self.add_weight(name="bias", shape=(4 * self.hidden,), initializer=self._forget_bias)

    def _forget_bias(self, shape: tuple[int, ...], dtype: str | None = None) -> Tensor:
        ones = ops.ones((self.hidden,), dtype)
        return ops.concatenate([0 * ones, ones, 0 * ones, 0 * ones])

    def biases(self) -> tuple[Any, ...]:
        return (self.bias,)

    def projections(self) -> Tensors:
        return ops.concatenate([self.kernel, self.recurrent]), self.bias * 1.0

    @staticmethod
    def operands(x: Tensor, hidden: Tensor) -> Tensors:
        return (ops.concatenate([x, hidden], axis=-1),)

    @staticmethod
    def activate(projected: Tensors, state: State) -> tuple[State, Tensors]:
        i, f, g, o = ops.split(projected[0], 4, axis=-1)
        i, f, g, o = ops.sigmoid(i), ops.sigmoid(f), ops.tanh(g), ops.sigmoid(o)
        cell = f * state[1] + i * g
        return (o * ops.tanh(cell), cell), (i, f, g, o)

    @staticmethod
    def activate_gradient(activations: Tensors, before: State, after: State, d_after: State) -> tuple[Tensors, State]:
        i, f, g, o = activations
        d_hidden, d_cell = d_after
        tanh_cell = ops.tanh(after[1])
        d_cell = d_cell + d_hidden * o * (1 - tanh_cell * tanh_cell)
        d_gates = [
            d_cell * g * i * (1 - i),
            d_cell * before[1] * f * (1 - f),
            d_cell * i * (1 - g * g),
            d_hidden * tanh_cell * o * (1 - o),
        ]
        return (ops.concatenate(d_gates, axis=-1),), (0.0, d_cell * f)
