"""The recurrent kernel of a GRU, built like that of the LSTM: two large matmuls around a loop with a small one.

The reset gate acts on the projected state, as in cuDNN and ``keras.layers.GRU``'s default, so that the recurrent
projections of all gates are one matmul.
"""

from collections.abc import Callable

import keras
from keras import ops

from melnet.model.recurrent import Recurrent, State, Tensor, before, put_row, row


def gates(x: Tensor, h: Tensor, hidden: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One GRU step from its projections.

    Parameters
    ----------
    x, h : (rows, 3 hidden), the input's and the state's parts of the update, reset and candidate gates
    hidden : (rows, hidden)

    Returns
    -------
    the new hidden state (rows, hidden) and the three activated gates
    """
    x_z, x_r, x_n = ops.split(x, 3, axis=-1)
    h_z, h_r, h_n = ops.split(h, 3, axis=-1)
    z, r = ops.sigmoid(x_z + h_z), ops.sigmoid(x_r + h_r)
    n = ops.tanh(x_n + r * h_n)
    return z * hidden + (1 - z) * n, (z, r, n)


def _forward(
    reverse: bool, projections: Tensor, recurrent: Tensor, bias: Tensor, hidden: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of every step: activated gates (steps, rows, 3 hidden), the state's candidate part and the hidden state."""
    steps, rows, width = ops.shape(projections)

    def step(t: Tensor, h: Tensor, activated: Tensor, parts: Tensor, hiddens: Tensor) -> tuple:
        at = steps - 1 - t if reverse else t
        projected = ops.matmul(h, recurrent) + bias
        h, activations = gates(row(activated, at), projected, h)
        activated = put_row(activated, at, ops.concatenate(activations, axis=-1))
        return t + 1, h, activated, put_row(parts, at, projected[:, 2 * width // 3 :]), put_row(hiddens, at, h)

    empty = ops.zeros((steps, rows, width // 3), projections.dtype)
    # The activated gates overwrite the projections they came from: one large buffer less.
    _, _, activated, parts, hiddens = ops.while_loop(
        lambda t, *_: t < steps, step, (ops.convert_to_tensor(0, "int32"), hidden, projections, empty, empty)
    )
    return activated, parts, hiddens


def _backward(
    recurrent: Tensor, initial: Tensor, reverse: bool, kept: tuple[Tensor, Tensor, Tensor], upstream: Tensor
) -> tuple[Tensor, ...]:
    """Gradients with respect to the projections, the recurrent kernel, its bias and the initial state."""
    activated, parts, hiddens = kept
    steps, rows, hidden = ops.shape(hiddens)
    transposed = ops.transpose(recurrent)
    hiddens_before = before(hiddens, initial, reverse)

    def step(t: Tensor, d_hidden: Tensor, d_projections: Tensor, d_parts: Tensor) -> tuple[Tensor, ...]:
        at = t if reverse else steps - 1 - t
        z, r, n = ops.split(row(activated, at), 3, axis=-1)
        d_hidden = d_hidden + row(upstream, at)
        d_z = d_hidden * (row(hiddens_before, at) - n) * z * (1 - z)
        d_n = d_hidden * (1 - z) * (1 - n * n)
        d_r = d_n * row(parts, at) * r * (1 - r)
        d_part = d_n * r
        d_projections = put_row(d_projections, at, ops.concatenate([d_z, d_r, d_n], axis=-1))
        d_hidden = d_hidden * z + ops.matmul(ops.concatenate([d_z, d_r, d_part], axis=-1), transposed)
        return t + 1, d_hidden, d_projections, put_row(d_parts, at, d_part)

    start = (ops.convert_to_tensor(0, "int32"), ops.zeros((rows, hidden), hiddens.dtype))
    _, d_hidden, d_projections, d_parts = ops.while_loop(
        lambda t, *_: t < steps, step, (*start, ops.zeros_like(activated), ops.zeros_like(parts))
    )
    d_recurrent_projections = ops.concatenate([d_projections[..., : 2 * hidden], d_parts], axis=-1)
    flat = ops.reshape(d_recurrent_projections, (steps * rows, 3 * hidden))
    d_recurrent = ops.matmul(ops.transpose(ops.reshape(hiddens_before, (steps * rows, hidden))), flat)
    return d_projections, d_recurrent, ops.sum(flat, axis=0), d_hidden


def _recurrence(reverse: bool) -> Callable[..., Tensor]:
    @ops.custom_gradient
    def recurrence(projections: Tensor, recurrent: Tensor, bias: Tensor, hidden: Tensor) -> tuple[Tensor, Callable]:
        kept = _forward(reverse, projections, recurrent, bias, hidden)

        def gradient(upstream: Tensor, *_: object, **__: object) -> tuple[Tensor, ...]:
            return _backward(recurrent, hidden, reverse, kept, upstream)

        return kept[2], gradient

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

    def call(self, sequence: Tensor) -> Tensor:
        """Hidden states (steps, rows, hidden) of a sequence (steps, rows, features)."""
        # custom_gradient takes tensors, not variables.
        weights = self.recurrent * 1.0, self.recurrent_bias * 1.0
        return _recurrence(self.reverse)(self.project(sequence), *weights, *self.initial_state(ops.shape(sequence)[1]))

    def warm(self, sequence: Tensor, state: State) -> tuple[Tensor, State]:
        """Hidden states (steps, rows, hidden) from a given state, and the state after the last step; no gradient."""
        weights = self.recurrent * 1.0, self.recurrent_bias * 1.0
        _, _, hiddens = _forward(self.reverse, self.project(sequence), *weights, *state)
        return hiddens, (hiddens[0 if self.reverse else -1],)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Advance by one step: x (rows, features) and a state give the new hidden state and state."""
        (hidden,) = state
        projected = ops.matmul(hidden, self.recurrent) + self.recurrent_bias
        hidden, _ = gates(ops.matmul(x, self.kernel) + self.bias, projected, hidden)
        return hidden, (hidden,)
