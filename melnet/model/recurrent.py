"""Recurrent layers over the leading axis, with a hand-written gradient.

:class:`Recurrent` holds the two loops, one forward and one backward in time; a cell (:class:`melnet.model.lstm.LSTM`,
:class:`melnet.model.gru.GRU`) supplies its weights, one step, and the gradient of that step.

Each loop does all matmuls of a step inside the step, while its rows are in the cache. Projecting all inputs before the
loop, and summing the weights' gradient after it, would write and read four times as much memory. On an accelerator that
is the faster way: :mod:`melnet.model.recurrent_accelerator` computes the same there.
"""

from typing import Any, ClassVar

import keras
from keras import ops

from melnet.backend import Tensor
from melnet.model import precision as precisions
from melnet.model.precision import Precision, float32

Tensors = tuple[Tensor, ...]
State = tuple[Tensor, ...]
"""what a cell hands from one step to the next, each tensor (rows, hidden); the hidden state comes first"""

ACTIVATIONS = 4
"""tensors (rows, hidden) of a step that a cell's gradient needs besides the states"""


def row(sequence: Tensor, index: Tensor) -> Tensor:
    """``sequence[index]`` for an index that is known only at run time.

    >>> tuple(row(ops.zeros((5, 2, 3)), 4).shape)
    (2, 3)
    """
    rest = ops.shape(sequence)[1:]
    return ops.squeeze(ops.slice(sequence, (index, *(0 for _ in rest)), (1, *rest)), 0)


def put_row(sequence: Tensor, index: Tensor, value: Tensor) -> Tensor:
    """A copy of ``sequence`` with ``value`` at ``index``; compiled code updates it in place."""
    rest = ops.shape(sequence)[1:]
    return ops.slice_update(sequence, (index, *(0 for _ in rest)), ops.expand_dims(value, 0))


def row_before(sequence: Tensor, index: Tensor, initial: Tensor, reverse: bool) -> Tensor:
    """The state (rows, hidden) before step ``index``, from the states (steps, rows, hidden) after each step.

    It selects one row, because a shifted copy of the states would take as much memory as the states.
    """
    last = ops.shape(sequence)[0] - 1
    earlier = index + 1 if reverse else index - 1
    return ops.where(index == (last if reverse else 0), initial, row(sequence, ops.clip(earlier, 0, last)))


class Recurrent(keras.layers.Layer):
    """A recurrent layer over the leading axis: (steps, rows, features) to (steps, rows, hidden).

    The state before the first step is trained, and the same for all rows (arXiv 1906.01083, table 1). On TensorFlow the
    layer runs in XLA-compiled functions only (:func:`melnet.backend.compiled`), because TensorFlow's eager mode cannot
    update slices in place.

    Parameters
    ----------
    hidden
        Number of units.
    reverse
        Whether to run from the last step to the first.
    recompute
        Whether the gradient computes the gate activations again instead of storing them in the forward pass. This
        takes less memory and a third more arithmetic.
    precision
        Of the operands of matrix products, see :mod:`melnet.model.precision`.
    """

    gates: ClassVar[int]
    """gates of the cell; a kernel has ``hidden`` columns for each"""
    states: ClassVar[int]
    """tensors in a :data:`State`"""

    def __init__(
        self,
        hidden: int,
        *,
        reverse: bool = False,
        recompute: bool = False,
        precision: Precision = "float32",
        **kwargs: Any,
    ) -> None:
        super().__init__(**float32(kwargs))
        self.hidden = hidden
        self.reverse = reverse
        self.recompute = recompute
        self.precision: Precision = precision

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        width = self.gates * self.hidden
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], width), initializer="glorot_uniform")
        self.recurrent = self.add_weight(name="recurrent_kernel", shape=(self.hidden, width), initializer="orthogonal")
        self.add_biases()
        self.initial = self.add_weight(name="initial_state", shape=(self.states, self.hidden), initializer="zeros")

    # A cell supplies the next six methods. The loops below project each of its operands, ``operand @ kernel + bias``,
    # and compute the gradients of these projections.

    def add_biases(self) -> None:
        """Add the bias weights."""
        raise NotImplementedError

    def biases(self) -> tuple[Any, ...]:
        """The bias weights: of the input and, in a cell that projects it apart from the input, of the hidden state."""
        raise NotImplementedError

    def projections(self) -> Tensors:
        """The kernel and bias of each operand in turn, as tensors: ``custom_gradient`` does not take variables."""
        raise NotImplementedError

    @staticmethod
    def operands(x: Tensor, hidden: Tensor) -> Tensors:
        """Tensors to project; side by side they are x (rows, features) followed by hidden (rows, hidden)."""
        raise NotImplementedError

    @staticmethod
    def activate(projected: Tensors, state: State) -> tuple[State, Tensors]:
        """The next state, and the :data:`ACTIVATIONS` tensors that :meth:`activate_gradient` needs."""
        raise NotImplementedError

    @staticmethod
    def activate_gradient(activations: Tensors, before: State, after: State, d_after: State) -> tuple[Tensors, State]:
        """Gradients with respect to ``projected`` and, through other paths than it, to the state before."""
        raise NotImplementedError

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """The product of matrices in this layer's precision; without a gradient of its own."""
        return precisions.matmul(a, b, self.precision)

    def call(self, sequence: Tensor) -> Tensor:
        """Hidden states (steps, rows, hidden) of a sequence (steps, rows, features)."""
        weights = self.projections()

        @ops.custom_gradient
        def recurrence(sequence: Tensor, *tensors: Tensor) -> tuple[Tensor, Any]:
            inputs = sequence, tensors[: len(weights)], tensors[len(weights) :]
            residuals = self._forward(*inputs, keep=not self.recompute)
            return residuals[0], lambda upstream, *_, **__: self._backward(*inputs, residuals, upstream)

        return recurrence(sequence, *weights, *self.initial_state(ops.shape(sequence)[1]))

    def advance(self, sequence: Tensor, state: State) -> tuple[Tensor, State]:
        """Hidden states (steps, rows, hidden) from a given state on, and the state after the last step; no gradient."""
        if sequence.shape[0] == 1:  # a loop would take longer to compile
            hidden, state = self.step(sequence[0], state)
            return ops.expand_dims(hidden, 0), state
        states = self._forward(sequence, self.projections(), state, keep=False)
        return states[0], tuple(tensor[0 if self.reverse else -1] for tensor in states)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Advance by one step: x (rows, features) and a state give the new hidden state and the new state."""
        state, _ = self._step(x, state, self.projections())
        return state[0], state

    def initial_state(self, rows: int) -> State:
        """The state before the first step, each tensor (rows, hidden)."""
        weights = ops.convert_to_tensor(self.initial)
        return tuple(ops.broadcast_to(weights[i : i + 1], (rows, self.hidden)) for i in range(self.states))

    def _step(self, x: Tensor, state: State, weights: Tensors) -> tuple[State, Tensors]:
        projections = zip(self.operands(x, state[0]), weights[::2], weights[1::2], strict=True)
        return self.activate(tuple(self.matmul(operand, kernel) + bias for operand, kernel, bias in projections), state)

    def _forward(self, sequence: Tensor, weights: Tensors, initial: State, *, keep: bool) -> Tensors:
        """States after each step, all (steps, rows, hidden); with ``keep`` also activations (steps, rows, 4 hidden)."""
        steps, rows, _ = ops.shape(sequence)

        def step(t: Tensor, state: State, stored: Tensors) -> tuple:
            at = steps - 1 - t if self.reverse else t
            state, activations = self._step(row(sequence, at), state, weights)
            values = (*state, ops.concatenate(activations, axis=-1)) if keep else state
            return t + 1, state, tuple(put_row(s, at, value) for s, value in zip(stored, values, strict=True))

        widths = [self.hidden] * self.states + [ACTIVATIONS * self.hidden] * keep
        empty = tuple(ops.zeros((steps, rows, width), sequence.dtype) for width in widths)
        start = (ops.convert_to_tensor(0, "int32"), initial, empty)
        return tuple(ops.while_loop(lambda t, *_: t < steps, step, start)[2])

    def _backward(
        self, sequence: Tensor, weights: Tensors, initial: State, residuals: Tensors, upstream: Tensor
    ) -> Tensors:
        """Gradients with respect to the sequence, the weights and the initial state."""
        states, stored = residuals[: self.states], residuals[self.states :]
        steps, rows, features = ops.shape(sequence)
        transposed = [ops.transpose(kernel) for kernel in weights[::2]]
        ones = ops.ones((1, rows), sequence.dtype)

        def step(t: Tensor, d_state: State, d_weights: Tensors, d_sequence: Tensor) -> tuple:
            at = t if self.reverse else steps - 1 - t
            x = row(sequence, at)
            before = tuple(row_before(s, at, s0, self.reverse) for s, s0 in zip(states, initial, strict=True))
            after = tuple(row(s, at) for s in states)
            if stored:
                activations = tuple(ops.split(row(stored[0], at), ACTIVATIONS, axis=-1))
            else:
                _, activations = self._step(x, before, weights)
            d_after = (d_state[0] + row(upstream, at), *d_state[1:])
            d_projected, d_before = self.activate_gradient(activations, before, after, d_after)
            added = []
            for operand, d in zip(self.operands(x, before[0]), d_projected, strict=True):
                # The condition always holds. On a CPU, XLA adds a selected matmul much faster than a plain one, and
                # sums over rows several times faster if the sum is a matmul with ones.
                added += [ops.where(t < steps, self.matmul(ops.transpose(operand), d), 0.0), ops.matmul(ones, d)]
            d_weights = tuple(total + a for total, a in zip(d_weights, added, strict=True))
            d_operands = [self.matmul(d, kernel) for d, kernel in zip(d_projected, transposed, strict=True)]
            d_x, d_hidden = ops.split(ops.concatenate(d_operands, axis=-1), [features], axis=-1)
            return t + 1, (d_before[0] + d_hidden, *d_before[1:]), d_weights, put_row(d_sequence, at, d_x)

        start = (
            ops.convert_to_tensor(0, "int32"),
            tuple(ops.zeros((rows, self.hidden), sequence.dtype) for _ in initial),
            tuple(ops.zeros_like(ops.reshape(weight, (-1, weight.shape[-1]))) for weight in weights),  # biases as rows
            ops.zeros_like(sequence),
        )
        _, d_state, d_weights, d_sequence = ops.while_loop(lambda t, *_: t < steps, step, start)
        return d_sequence, *(ops.reshape(d, w.shape) for d, w in zip(d_weights, weights, strict=True)), *d_state

    def get_config(self) -> dict[str, object]:
        stored = ("hidden", "reverse", "recompute", "precision")
        return {**super().get_config(), **{name: getattr(self, name) for name in stored}}
