"""The recurrent kernel: an LSTM over the leading axis with a hand-written gradient.

Everything happens in two loops, one forth and one back, each with a few matmuls of a step's rows, so that what a step
computes is used again while it is in the cache: projecting all inputs before the loop, and collecting the weights'
gradient after it, would write and read four times as much memory. Of the forward pass the states are kept, and the
activated gates unless they are to be computed again.
"""

from collections.abc import Callable

import keras
from keras import ops

from melnet.model.recurrent import Recurrent, State, Tensor, put_row, row, row_before


def gates(z: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """One LSTM step from its summed projections.

    Parameters
    ----------
    z : (rows, 4 hidden), pre-activations of the input, forget, candidate and output gates
    cell : (rows, hidden)

    Returns
    -------
    the new hidden state and cell, both (rows, hidden), and the four activated gates
    """
    i, f, g, o = ops.split(z, 4, axis=-1)
    i, f, g, o = ops.sigmoid(i), ops.sigmoid(f), ops.tanh(g), ops.sigmoid(o)
    cell = f * cell + i * g
    return o * ops.tanh(cell), cell, (i, f, g, o)


def _forward(
    reverse: bool, sequence: Tensor, kernel: Tensor, bias: Tensor, hidden: Tensor, cell: Tensor, *, keep: bool
) -> tuple[Tensor, ...]:
    """Hidden states and cells of every step, (steps, rows, hidden); with ``keep`` also (steps, rows, 4 hidden) gates.

    ``kernel`` (features + hidden, 4 hidden) is applied to an input and the state before it, side by side.
    """
    steps, rows, _ = ops.shape(sequence)
    units = ops.shape(hidden)[-1]

    def step(t: Tensor, h: Tensor, c: Tensor, hiddens: Tensor, cells: Tensor, *activated: Tensor) -> tuple:
        at = steps - 1 - t if reverse else t
        h, c, activations = gates(ops.matmul(ops.concatenate([row(sequence, at), h], axis=-1), kernel) + bias, c)
        activated = tuple(put_row(a, at, ops.concatenate(activations, axis=-1)) for a in activated)
        return t + 1, h, c, put_row(hiddens, at, h), put_row(cells, at, c), *activated

    widths = (units, units, 4 * units) if keep else (units, units)
    empty = [ops.zeros((steps, rows, width), sequence.dtype) for width in widths]
    start = (ops.convert_to_tensor(0, "int32"), hidden, cell, *empty)
    return tuple(ops.while_loop(lambda t, *_: t < steps, step, start)[3:])


def _backward(
    reverse: bool,
    sequence: Tensor,
    kernel: Tensor,
    bias: Tensor,
    initial: State,
    kept: tuple[Tensor, ...],
    upstream: Tensor,
) -> tuple[Tensor, ...]:
    """Gradients with respect to the sequence, the kernel, the bias and the initial state."""
    hiddens, cells, *activated = kept
    steps, rows, units = ops.shape(hiddens)
    features = ops.shape(sequence)[-1]
    transposed = ops.transpose(kernel)
    ones = ops.ones((1, rows), hiddens.dtype)

    def step(
        t: Tensor, d_hidden: Tensor, d_cell: Tensor, d_kernel: Tensor, d_bias: Tensor, d_sequence: Tensor
    ) -> tuple[Tensor, ...]:
        at = t if reverse else steps - 1 - t
        hidden, cell = (row_before(x, at, x0, reverse) for x, x0 in zip((hiddens, cells), initial, strict=True))
        inputs = ops.concatenate([row(sequence, at), hidden], axis=-1)
        if activated:
            i, f, g, o = ops.split(row(activated[0], at), 4, axis=-1)
        else:
            _, _, (i, f, g, o) = gates(ops.matmul(inputs, kernel) + bias, cell)
        tanh_cell = ops.tanh(row(cells, at))
        d_hidden = d_hidden + row(upstream, at)
        d_cell = d_cell + d_hidden * o * (1 - tanh_cell * tanh_cell)
        d_z = ops.concatenate(
            [
                d_cell * g * i * (1 - i),
                d_cell * cell * f * (1 - f),
                d_cell * i * (1 - g * g),
                d_hidden * tanh_cell * o * (1 - o),
            ],
            axis=-1,
        )
        d_inputs = ops.matmul(d_z, transposed)
        # The condition always holds. On a CPU, XLA adds what it has chosen much faster than what it only adds.
        d_kernel = d_kernel + ops.where(t < steps, ops.matmul(ops.transpose(inputs), d_z), 0.0)
        # A sum over rows; as a matmul it is several times faster on a CPU.
        d_bias = d_bias + ops.matmul(ones, d_z)
        d_sequence = put_row(d_sequence, at, d_inputs[:, :features])
        return t + 1, d_inputs[:, features:], d_cell * f, d_kernel, d_bias, d_sequence

    none = ops.zeros((rows, units), hiddens.dtype)
    _, d_hidden, d_cell, d_kernel, d_bias, d_sequence = ops.while_loop(
        lambda t, *_: t < steps,
        step,
        (
            ops.convert_to_tensor(0, "int32"),
            none,
            none,
            ops.zeros_like(kernel),
            ops.zeros((1, 4 * units), hiddens.dtype),
            ops.zeros_like(sequence),
        ),
    )
    return d_sequence, d_kernel, d_bias[0], d_hidden, d_cell


def _recurrence(reverse: bool, recompute: bool) -> Callable[..., Tensor]:
    @ops.custom_gradient
    def recurrence(
        sequence: Tensor, kernel: Tensor, bias: Tensor, hidden: Tensor, cell: Tensor
    ) -> tuple[Tensor, Callable]:
        kept = _forward(reverse, sequence, kernel, bias, hidden, cell, keep=not recompute)

        def gradient(upstream: Tensor, *_: object, **__: object) -> tuple[Tensor, ...]:
            return _backward(reverse, sequence, kernel, bias, (hidden, cell), kept, upstream)

        return kept[0], gradient

    return recurrence


@keras.saving.register_keras_serializable("melnet")
class LSTM(Recurrent):
    """An LSTM whose gates and weights are those of ``keras.layers.LSTM``: input, forget, candidate, output.

    Forget bias one. A state is the hidden state and the cell.
    """

    blocks = 4
    states = 2

    def add_biases(self) -> None:
        self.bias = self.add_weight(name="bias", shape=(4 * self.hidden,), initializer=self._forget_bias)

    def _forget_bias(self, shape: tuple[int, ...], dtype: str | None = None) -> Tensor:
        ones = ops.ones((self.hidden,), dtype)
        return ops.concatenate([0 * ones, ones, 0 * ones, 0 * ones])

    def _weights(self) -> tuple[Tensor, Tensor]:
        """Both kernels, one above the other, and the bias; custom_gradient takes tensors, not variables."""
        return ops.concatenate([self.kernel, self.recurrent]), self.bias * 1.0

    def call(self, sequence: Tensor) -> Tensor:
        """Hidden states (steps, rows, hidden) of a sequence (steps, rows, features)."""
        initial = self.initial_state(ops.shape(sequence)[1])
        return _recurrence(self.reverse, self.recompute)(sequence, *self._weights(), *initial)

    def warm(self, sequence: Tensor, state: State) -> tuple[Tensor, State]:
        """Hidden states (steps, rows, hidden) from a given state, and the state after the last step; no gradient."""
        hiddens, cells = _forward(self.reverse, sequence, *self._weights(), *state, keep=False)
        last = 0 if self.reverse else -1
        return hiddens, (hiddens[last], cells[last])

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Advance by one step: x (rows, features) and a state give the new hidden state and state."""
        hidden, cell = state
        kernel, bias = self._weights()
        hidden, cell, _ = gates(ops.matmul(ops.concatenate([x, hidden], axis=-1), kernel) + bias, cell)
        return hidden, (hidden, cell)
