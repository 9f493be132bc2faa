"""What the recurrent layers share: the loop's rows, the weights, the trained initial state, the passes."""

from typing import Any, ClassVar, TypeAlias

import keras
from keras import ops

Tensor: TypeAlias = Any  # what keras.ops take and give, whatever the backend
State = tuple[Tensor, ...]  # what a cell carries from step to step, each (rows, hidden); the hidden state comes first


def row(sequence: Tensor, index: Tensor) -> Tensor:
    """``sequence[index]`` for an index known only when running."""
    rest = ops.shape(sequence)[1:]
    return ops.squeeze(ops.slice(sequence, (index, *(0 for _ in rest)), (1, *rest)), 0)


def put_row(sequence: Tensor, index: Tensor, value: Tensor) -> Tensor:
    """``sequence`` with ``value`` at ``index``; in place when compiled."""
    rest = ops.shape(sequence)[1:]
    return ops.slice_update(sequence, (index, *(0 for _ in rest)), ops.expand_dims(value, 0))


def row_before(sequence: Tensor, index: Tensor, initial: Tensor, reverse: bool) -> Tensor:
    """The state (rows, hidden) that the step ``index`` started from, of the states (steps, rows, hidden) after each.

    A shifted copy of all of them would be as large as what a layer keeps.
    """
    last = ops.shape(sequence)[0] - 1
    earlier = index + 1 if reverse else index - 1
    return ops.where(index == (last if reverse else 0), initial, row(sequence, ops.clip(earlier, 0, last)))


class Recurrent(keras.layers.Layer):
    """A recurrent layer over the leading axis of ``(steps, rows, features)``; reversed, from the last step on.

    The state before the first step is trained, one for all rows (arXiv 1906.01083, table 1). Needs a compiled function
    (``jit_compile=True``) on TensorFlow, whose eager mode has no in-place slice update.

    Parameters
    ----------
    hidden
        Units.
    reverse
        From the last step on.
    recompute
        Compute the activated gates again for the gradient instead of keeping them: less memory, a third more work.
    """

    blocks: ClassVar[int]
    """matrices of ``hidden`` columns in a kernel, one per gate"""
    states: ClassVar[int]
    """tensors in a :data:`State`"""

    def __init__(self, hidden: int, *, reverse: bool = False, recompute: bool = False, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.hidden = hidden
        self.reverse = reverse
        self.recompute = recompute

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        width = self.blocks * self.hidden
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], width), initializer="glorot_uniform")
        self.recurrent = self.add_weight(name="recurrent_kernel", shape=(self.hidden, width), initializer="orthogonal")
        self.add_biases()
        self.initial = self.add_weight(name="initial_state", shape=(self.states, self.hidden), initializer="zeros")

    def add_biases(self) -> None:
        """Add the weights ``bias``, and others of the cell."""
        raise NotImplementedError

    def call(self, sequence: Tensor) -> Tensor:
        """Hidden states (steps, rows, hidden) of a sequence (steps, rows, features)."""
        raise NotImplementedError

    def warm(self, sequence: Tensor, state: State) -> tuple[Tensor, State]:
        """Hidden states (steps, rows, hidden) from a given state, and the state after the last step; no gradient."""
        raise NotImplementedError

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Advance by one step: x (rows, features) and a state give the new hidden state and state."""
        raise NotImplementedError

    def initial_state(self, rows: int) -> State:
        """The state before the first step, each tensor (rows, hidden)."""
        weights = ops.convert_to_tensor(self.initial)
        return tuple(ops.broadcast_to(weights[i : i + 1], (rows, self.hidden)) for i in range(self.states))

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "hidden": self.hidden, "reverse": self.reverse, "recompute": self.recompute}
