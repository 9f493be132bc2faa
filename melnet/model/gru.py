"""The recurrent kernel of a GRU, built like that of the LSTM: two loops, each with all matmuls of a step.

The reset gate acts on the projected state, as in cuDNN and ``keras.layers.GRU``'s default, so that the recurrent
projections of all gates are one matmul.
"""

from collections.abc import Callable

import keras
from keras import ops

from melnet.model.recurrent import Recurrent, State, Tensor, put_row, row, row_before

Weights = tuple[Tensor, Tensor, Tensor, Tensor]  # kernel, recurrent kernel, bias, recurrent bias


def gates(x: Tensor, h: Tensor, hidden: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One GRU step from its projections.

    Parameters
    ----------
    x, h : (rows, 3 hidden), the input's and the state's parts of the update, reset and candidate gates
    hidden : (rows, hidden)

    Returns
    -------
    the new hidden state (rows, hidden), and the three activated gates with the state's part of the candidate
    """
    x_z, x_r, x_n = ops.split(x, 3, axis=-1)
    h_z, h_r, h_n = ops.split(h, 3, axis=-1)
    z, r = ops.sigmoid(x_z + h_z), ops.sigmoid(x_r + h_r)
    n = ops.tanh(x_n + r * h_n)
    return z * hidden + (1 - z) * n, (z, r, n, h_n)


def _step(x: Tensor, hidden: Tensor, weights: Weights) -> tuple[Tensor, tuple[Tensor, ...]]:
    kernel, recurrent, bias, recurrent_bias = weights
    return gates(ops.matmul(x, kernel) + bias, ops.matmul(hidden, recurrent) + recurrent_bias, hidden)


def _forward(reverse: bool, sequence: Tensor, weights: Weights, hidden: Tensor, *, keep: bool) -> tuple[Tensor, ...]:
    """Hidden states of every step, (steps, rows, hidden); with ``keep`` also (steps, rows, 4 hidden) of the gates."""
    steps, rows, _ = ops.shape(sequence)
    units = ops.shape(hidden)[-1]

    def step(t: Tensor, h: Tensor, hiddens: Tensor, *activated: Tensor) -> tuple:
        at = steps - 1 - t if reverse else t
        h, activations = _step(row(sequence, at), h, weights)
        activated = tuple(put_row(a, at, ops.concatenate(activations, axis=-1)) for a in activated)
        return t + 1, h, put_row(hiddens, at, h), *activated

    empty = [ops.zeros((steps, rows, width), sequence.dtype) for width in ((units, 4 * units) if keep else (units,))]
    start = (ops.convert_to_tensor(0, "int32"), hidden, *empty)
    return tuple(ops.while_loop(lambda t, *_: t < steps, step, start)[2:])


def _backward(
    reverse: bool, sequence: Tensor, weights: Weights, initial: Tensor, kept: tuple[Tensor, ...], upstream: Tensor
) -> tuple[Tensor, ...]:
    """Gradients with respect to the sequence, both kernels, both biases and the initial state."""
    hiddens, *activated = kept
    steps, rows, units = ops.shape(hiddens)
    kernel, recurrent, _, _ = weights
    transposed, recurrent_transposed = ops.transpose(kernel), ops.transpose(recurrent)
    ones = ops.ones((1, rows), hiddens.dtype)

    def step(t: Tensor, d_hidden: Tensor, d_weights: Weights, d_sequence: Tensor) -> tuple[Tensor, ...]:
        at = t if reverse else steps - 1 - t
        x, hidden = row(sequence, at), row_before(hiddens, at, initial, reverse)
        if activated:
            z, r, n, part = ops.split(row(activated[0], at), 4, axis=-1)
        else:
            _, (z, r, n, part) = _step(x, hidden, weights)
        d_hidden = d_hidden + row(upstream, at)
        d_z = d_hidden * (hidden - n) * z * (1 - z)
        d_n = d_hidden * (1 - z) * (1 - n * n)
        d_r = d_n * part * r * (1 - r)
        d_x = ops.concatenate([d_z, d_r, d_n], axis=-1)
        d_h = ops.concatenate([d_z, d_r, d_n * r], axis=-1)
        d_kernel, d_recurrent, d_bias, d_recurrent_bias = d_weights
        d_weights = (
            d_kernel + ops.matmul(ops.transpose(x), d_x),
            d_recurrent + ops.matmul(ops.transpose(hidden), d_h),
            d_bias + ops.matmul(ones, d_x),  # sums over rows
            d_recurrent_bias + ops.matmul(ones, d_h),
        )
        d_hidden = d_hidden * z + ops.matmul(d_h, recurrent_transposed)
        return t + 1, d_hidden, d_weights, put_row(d_sequence, at, ops.matmul(d_x, transposed))

    bias = ops.zeros((1, 3 * units), hiddens.dtype)
    _, d_hidden, d_weights, d_sequence = ops.while_loop(
        lambda t, *_: t < steps,
        step,
        (
            ops.convert_to_tensor(0, "int32"),
            ops.zeros((rows, units), hiddens.dtype),
            (ops.zeros_like(kernel), ops.zeros_like(recurrent), bias, bias),
            ops.zeros_like(sequence),
        ),
    )
    d_kernel, d_recurrent, d_bias, d_recurrent_bias = d_weights
    return d_sequence, d_kernel, d_recurrent, d_bias[0], d_recurrent_bias[0], d_hidden


def _recurrence(reverse: bool, recompute: bool) -> Callable[..., Tensor]:
    @ops.custom_gradient
    def recurrence(
        sequence: Tensor, kernel: Tensor, recurrent: Tensor, bias: Tensor, recurrent_bias: Tensor, hidden: Tensor
    ) -> tuple[Tensor, Callable]:
        weights = kernel, recurrent, bias, recurrent_bias
        kept = _forward(reverse, sequence, weights, hidden, keep=not recompute)

        def gradient(upstream: Tensor, *_: object, **__: object) -> tuple[Tensor, ...]:
            return _backward(reverse, sequence, weights, hidden, kept, upstream)

        return kept[0], gradient

    return recurrence


@keras.saving.register_keras_serializable("melnet")
class GRU(Recurrent):
    """A GRU whose gates and weights are those of ``keras.layers.GRU``: update, reset, candidate; a bias on either side.

    A state is the hidden state alone.
    """

    blocks = 3
    states = 1

    def add_biases(self) -> None:
        self.bias = self.add_weight(name="bias", shape=(3 * self.hidden,), initializer="zeros")
        self.recurrent_bias = self.add_weight(name="recurrent_bias", shape=(3 * self.hidden,), initializer="zeros")

    def _weights(self) -> Weights:
        """As tensors: custom_gradient takes no variables."""
        return self.kernel * 1.0, self.recurrent * 1.0, self.bias * 1.0, self.recurrent_bias * 1.0

    def call(self, sequence: Tensor) -> Tensor:
        """Hidden states (steps, rows, hidden) of a sequence (steps, rows, features)."""
        initial = self.initial_state(ops.shape(sequence)[1])
        return _recurrence(self.reverse, self.recompute)(sequence, *self._weights(), *initial)

    def warm(self, sequence: Tensor, state: State) -> tuple[Tensor, State]:
        """Hidden states (steps, rows, hidden) from a given state, and the state after the last step; no gradient."""
        (hiddens,) = _forward(self.reverse, sequence, self._weights(), *state, keep=False)
        return hiddens, (hiddens[0 if self.reverse else -1],)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Advance by one step: x (rows, features) and a state give the new hidden state and state."""
        (hidden,) = state
        hidden, _ = _step(x, hidden, self._weights())
        return hidden, (hidden,)
