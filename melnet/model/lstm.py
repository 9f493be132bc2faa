"""The recurrent kernel: an LSTM over the leading axis with a hand-written gradient.

One matmul projects all inputs before the loop, and one more collects the weight gradients after it, so that the loop
itself holds a single small matmul and the element-wise gates. The activated gates are kept for the backward pass.
"""

from collections.abc import Callable

import keras
from keras import ops

from melnet.model.recurrent import Recurrent, State, Tensor, before, put_row, row


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


def _backward(
    recurrent: Tensor, initial: State, reverse: bool, kept: tuple[Tensor, ...], upstream: Tensor
) -> tuple[Tensor, ...]:
    """Gradients with respect to the projections, the recurrent kernel and the initial state."""
    activated, cells, hiddens = kept
    steps, rows, hidden = ops.shape(hiddens)
    transposed = ops.transpose(recurrent)
    hiddens_before, cells_before = (before(x, x0, reverse) for x, x0 in zip((hiddens, cells), initial, strict=True))

    def step(t: Tensor, d_hidden: Tensor, d_cell: Tensor, d_projections: Tensor) -> tuple[Tensor, ...]:
        at = t if reverse else steps - 1 - t
        i, f, g, o = ops.split(row(activated, at), 4, axis=-1)
        tanh_cell = ops.tanh(row(cells, at))
        d_hidden = d_hidden + row(upstream, at)
        d_cell = d_cell + d_hidden * o * (1 - tanh_cell * tanh_cell)
        d_z = ops.concatenate(
            [
                d_cell * g * i * (1 - i),
                d_cell * row(cells_before, at) * f * (1 - f),
                d_cell * i * (1 - g * g),
                d_hidden * tanh_cell * o * (1 - o),
            ],
            axis=-1,
        )
        # A buffer of its own: written over `activated`, XLA would copy all of it at every step.
        return t + 1, ops.matmul(d_z, transposed), d_cell * f, put_row(d_projections, at, d_z)

    start = ops.zeros((rows, hidden), hiddens.dtype)
    _, d_hidden, d_cell, d_projections = ops.while_loop(
        lambda t, *_: t < steps, step, (ops.convert_to_tensor(0, "int32"), start, start, ops.zeros_like(activated))
    )
    d_recurrent = ops.matmul(
        ops.transpose(ops.reshape(hiddens_before, (steps * rows, hidden))),
        ops.reshape(d_projections, (steps * rows, 4 * hidden)),
    )
    return d_projections, d_recurrent, d_hidden, d_cell


def _forward(reverse: bool, projections: Tensor, recurrent: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, ...]:
    """Activated gates (steps, rows, 4 hidden), cells and hidden states (steps, rows, hidden) of every step."""
    steps, rows, width = ops.shape(projections)

    def step(t: Tensor, h: Tensor, c: Tensor, activated: Tensor, cells: Tensor, hiddens: Tensor) -> tuple:
        at = steps - 1 - t if reverse else t
        h, c, activations = gates(row(activated, at) + ops.matmul(h, recurrent), c)
        activated = put_row(activated, at, ops.concatenate(activations, axis=-1))
        return t + 1, h, c, activated, put_row(cells, at, c), put_row(hiddens, at, h)

    empty = ops.zeros((steps, rows, width // 4), projections.dtype)
    # The activated gates overwrite the projections they came from: one large buffer less.
    _, _, _, *kept = ops.while_loop(
        lambda t, *_: t < steps,
        step,
        (ops.convert_to_tensor(0, "int32"), hidden, cell, projections, empty, empty),
    )
    return tuple(kept)


def _recurrence(reverse: bool) -> Callable[..., Tensor]:
    @ops.custom_gradient
    def recurrence(projections: Tensor, recurrent: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Callable]:
        kept = _forward(reverse, projections, recurrent, hidden, cell)

        def gradient(upstream: Tensor, *_: object, **__: object) -> tuple[Tensor, ...]:
            return _backward(recurrent, (hidden, cell), reverse, kept, upstream)

        return kept[2], gradient

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

    def call(self, sequence: Tensor) -> Tensor:
        """Hidden states (steps, rows, hidden) of a sequence (steps, rows, features)."""
        # custom_gradient takes tensors, not variables.
        initial = self.initial_state(ops.shape(sequence)[1])
        return _recurrence(self.reverse)(self.project(sequence), self.recurrent * 1.0, *initial)

    def warm(self, sequence: Tensor, state: State) -> tuple[Tensor, State]:
        """Hidden states (steps, rows, hidden) from a given state, and the state after the last step; no gradient."""
        _, cells, hiddens = _forward(self.reverse, self.project(sequence), self.recurrent * 1.0, *state)
        last = 0 if self.reverse else -1
        return hiddens, (hiddens[last], cells[last])

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Advance by one step: x (rows, features) and a state give the new hidden state and state."""
        hidden, cell = state
        hidden, cell, _ = gates(ops.matmul(x, self.kernel) + self.bias + ops.matmul(hidden, self.recurrent), cell)
        return hidden, (hidden, cell)
