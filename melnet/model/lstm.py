"""The recurrent kernel: an LSTM over the leading axis with a hand-written gradient.

One matmul projects all inputs before the loop, and one more collects the weight gradients after it, so that the loop
itself holds a single small matmul and the element-wise gates. The activated gates are kept for the backward pass.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
from keras import ops

Tensor: TypeAlias = Any  # what keras.ops take and give, whatever the backend
State = tuple[Tensor, Tensor]


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


def row(sequence: Tensor, index: Tensor) -> Tensor:
    """``sequence[index]`` for an index known only when running."""
    rest = ops.shape(sequence)[1:]
    return ops.squeeze(ops.slice(sequence, (index, *(0 for _ in rest)), (1, *rest)), 0)


def put_row(sequence: Tensor, index: Tensor, value: Tensor) -> Tensor:
    """``sequence`` with ``value`` at ``index``; in place when compiled."""
    rest = ops.shape(sequence)[1:]
    return ops.slice_update(sequence, (index, *(0 for _ in rest)), ops.expand_dims(value, 0))


def _backward(
    recurrent: Tensor, initial: State, reverse: bool, kept: tuple[Tensor, ...], upstream: Tensor
) -> tuple[Tensor, ...]:
    """Gradients with respect to the projections, the recurrent kernel and the initial state."""
    activated, cells, hiddens = kept
    steps, rows, hidden = ops.shape(hiddens)
    transposed = ops.transpose(recurrent)
    # The state that each step started from.
    if reverse:
        before = [
            ops.concatenate([x[1:], ops.expand_dims(x0, 0)]) for x, x0 in zip((hiddens, cells), initial, strict=True)
        ]
    else:
        before = [
            ops.concatenate([ops.expand_dims(x0, 0), x[:-1]]) for x, x0 in zip((hiddens, cells), initial, strict=True)
        ]

    def step(t: Tensor, d_hidden: Tensor, d_cell: Tensor, d_projections: Tensor) -> tuple[Tensor, ...]:
        at = t if reverse else steps - 1 - t
        i, f, g, o = ops.split(row(activated, at), 4, axis=-1)
        tanh_cell = ops.tanh(row(cells, at))
        d_hidden = d_hidden + row(upstream, at)
        d_cell = d_cell + d_hidden * o * (1 - tanh_cell * tanh_cell)
        d_z = ops.concatenate(
            [
                d_cell * g * i * (1 - i),
                d_cell * row(before[1], at) * f * (1 - f),
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
        ops.transpose(ops.reshape(before[0], (steps * rows, hidden))),
        ops.reshape(d_projections, (steps * rows, 4 * hidden)),
    )
    return d_projections, d_recurrent, d_hidden, d_cell


def _recurrence(reverse: bool) -> Callable[..., Tensor]:
    @ops.custom_gradient
    def recurrence(projections: Tensor, recurrent: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Callable]:
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

        def gradient(upstream: Tensor, *_: object, **__: object) -> tuple[Tensor, ...]:
            return _backward(recurrent, (hidden, cell), reverse, tuple(kept), upstream)

        return kept[2], gradient

    return recurrence


@keras.saving.register_keras_serializable("melnet")
class LSTM(keras.layers.Layer):
    """An LSTM over the leading axis of ``(steps, rows, features)``, from the first step or, reversed, from the last.

    Gates and weights are those of ``keras.layers.LSTM``: input, forget, candidate, output; forget bias one. Needs a
    compiled function (``jit_compile=True``) on TensorFlow, whose eager mode has no in-place slice update.
    """

    def __init__(self, hidden: int, *, reverse: bool = False, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.hidden = hidden
        self.reverse = reverse

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        features = input_shape[-1]
        self.kernel = self.add_weight(name="kernel", shape=(features, 4 * self.hidden), initializer="glorot_uniform")
        self.recurrent = self.add_weight(
            name="recurrent_kernel", shape=(self.hidden, 4 * self.hidden), initializer="orthogonal"
        )
        self.bias = self.add_weight(name="bias", shape=(4 * self.hidden,), initializer=self._forget_bias)

    def _forget_bias(self, shape: tuple[int, ...], dtype: str | None = None) -> Tensor:
        ones = ops.ones((self.hidden,), dtype)
        return ops.concatenate([0 * ones, ones, 0 * ones, 0 * ones])

    def call(self, sequence: Tensor) -> Tensor:
        """Hidden states (steps, rows, hidden) of a sequence (steps, rows, features)."""
        steps, rows, features = ops.shape(sequence)  # the batch may be unknown while tracing
        flat = ops.reshape(sequence, (steps * rows, features))
        projections = ops.reshape(ops.matmul(flat, self.kernel) + self.bias, (steps, rows, 4 * self.hidden))
        hidden, cell = self.initial_state(rows)
        # custom_gradient takes tensors, not variables.
        return _recurrence(self.reverse)(projections, self.recurrent * 1.0, hidden, cell)

    def initial_state(self, rows: int) -> State:
        """Hidden state and cell before the first step, both (rows, hidden)."""
        zeros = ops.zeros((rows, self.hidden), self.compute_dtype)
        return zeros, zeros

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Advance by one step: x (rows, features) and a state give the new hidden state and state."""
        hidden, cell = state
        hidden, cell, _ = gates(ops.matmul(x, self.kernel) + self.bias + ops.matmul(hidden, self.recurrent), cell)
        return hidden, (hidden, cell)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.hidden)

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "hidden": self.hidden, "reverse": self.reverse}
