"""Recurrent layers on an accelerator: the results of :class:`melnet.model.recurrent.Recurrent` in few kernels.

An accelerator spends some microseconds on starting a kernel, however little that computes, and computes a large matmul
at a much higher rate than a small one. So only what depends on the step before stays in the loop:

- Inputs are projected before the loop, and the gradients of inputs, kernels and biases are computed after it.
- Several RNNs advance in one loop (:func:`run_together`), those with as many steps and rows as a batch of matmuls.
  Rows that one of them lacks are padded where that costs less than kernels of its own.
- The loop is unrolled: a pass of it makes :data:`UNROLL` steps, and stores what they give at once.

With ``recompute`` the gates need no loop either, since the backward pass knows all states.

A group of R RNNs holds its tensors as (R, steps, rows, ...), with the steps in the order in which the RNN takes them.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import keras
from keras import ops

from melnet.backend import Tensor
from melnet.model.precision import Precision, matmul
from melnet.model.recurrent import ACTIVATIONS, Recurrent, State, Tensors

Job: TypeAlias = tuple[Recurrent, Tensor]
"""an RNN and its sequence (steps, ..., features); the axes between are its rows"""

UNROLL = 8
"""steps in one pass of the loop"""
PADDING_FLOP = 1e8
"""floating-point operations that padding may cost in a step: as many as a GPU makes while it starts two kernels"""


class Group(NamedTuple):
    """R RNNs that make each step as one batch."""

    x: Tensor
    """(R, steps, rows, features)"""
    kernel: Tensor
    """(R, features, columns)"""
    recurrent: Tensor
    """(R, hidden, columns)"""
    biases: Tensors
    """each (R, columns); see :meth:`melnet.model.recurrent.Recurrent.biases`"""
    initial: State
    """the state before the first step, each tensor (R, rows, hidden)"""


def run_together(jobs: Sequence[Job]) -> list[Tensor]:
    """Hidden states (steps, ..., hidden) of several RNNs, each over its own sequence.

    The RNNs have one cell and one number of units. They advance in one loop, which is as long as the longest sequence.

    >>> import numpy as np
    >>> from melnet.backend import compiled
    >>> from melnet.model.gru import GRU
    >>> up, down = GRU(4), GRU(4, reverse=True)
    >>> for rnn in (up, down):
    ...     rnn.build((None, None, 3))
    >>> both = compiled(lambda x: run_together([(up, x), (down, x)]))(np.zeros((7, 2, 3), "float32"))
    >>> [tuple(hidden.shape) for hidden in both]
    [(7, 2, 4), (7, 2, 4)]
    """
    cell, members = jobs[0][0], _members(jobs)

    @ops.custom_gradient
    def recurrence(*groups: Group) -> tuple[tuple[Tensor, ...], Any]:
        states, activations = _forward(cell, groups, keep=not cell.recompute)

        def gradient(*upstream: Any, **_: Any) -> Any:
            return _backward(cell, groups, states, activations, keras.tree.flatten(upstream))

        return tuple(_after(group_states[0]) for group_states in states), gradient

    groups = [_group([jobs[i] for i in indices]) for indices in members]
    results: dict[int, Tensor] = {}
    for indices, hidden in zip(members, recurrence(*groups), strict=True):
        for place, index in enumerate(indices):
            rnn, x = jobs[index]
            own = hidden[place] if _rows(x) is None else hidden[place, :, : _rows(x)]
            own = ops.flip(own, axis=0) if rnn.reverse else own
            results[index] = ops.reshape(own, (*ops.shape(x)[:-1], rnn.hidden))
    return [results[index] for index in range(len(jobs))]


def _rows(x: Tensor) -> int | None:
    """Number of rows of a sequence (steps, ..., features), if it is known while the function is traced."""
    sizes = tuple(x.shape)[1:-1]
    return None if None in sizes else math.prod(sizes)


def _members(jobs: Sequence[Job]) -> list[list[int]]:
    """The indices of the jobs in each group; the first has the most rows, to which the others are padded."""
    by_shape: dict[tuple[int | None, ...], list[int]] = {}
    for index, (_, x) in enumerate(jobs):
        by_shape.setdefault(tuple(x.shape), []).append(index)
    found: list[list[int]] = []
    for indices in sorted(by_shape.values(), key=lambda indices: -(_rows(jobs[indices[0]][1]) or 0)):
        own = [jobs[i] for i in indices]
        wide = [group for group in found if _padding_flop(jobs[group[0]], own) <= PADDING_FLOP]
        if wide:
            wide[0].extend(indices)
        else:
            found.append(indices)
    return found


def _padding_flop(widest: Job, jobs: Sequence[Job]) -> float:
    """Floating-point operations in a step that padding jobs of one shape to another job's rows would cost."""
    (rnn, x), y = widest, jobs[0][1]
    have, need = _rows(y), _rows(x)
    if have is None or need is None or (x.shape[0], x.shape[-1]) != (y.shape[0], y.shape[-1]):
        return math.inf
    return len(jobs) * (need - have) * 2 * rnn.hidden * rnn.gates * rnn.hidden


def _group(jobs: Sequence[Job]) -> Group:
    rnns = [rnn for rnn, _ in jobs]
    most = _rows(jobs[0][1])  # the first has the most

    def ordered(rnn: Recurrent, x: Tensor) -> Tensor:
        sequence = ops.reshape(x, (x.shape[0], -1, x.shape[-1]))
        missing = 0 if most is None else most - sequence.shape[1]
        sequence = ops.pad(sequence, ((0, 0), (0, missing), (0, 0))) if missing else sequence
        return ops.flip(sequence, axis=0) if rnn.reverse else sequence

    x = ops.stack([ordered(*job) for job in jobs])
    initial = [rnn.initial_state(ops.shape(x)[2]) for rnn in rnns]
    return Group(
        x,
        _stacked([rnn.kernel for rnn in rnns]),
        _stacked([rnn.recurrent for rnn in rnns]),
        tuple(_stacked(biases) for biases in zip(*(rnn.biases() for rnn in rnns), strict=True)),
        tuple(ops.stack(tensors) for tensors in zip(*initial, strict=True)),
    )


def _stacked(weights: Sequence[Any]) -> Tensor:
    """Weights side by side, as a tensor: ``custom_gradient`` does not take variables."""
    return ops.stack([weight * 1.0 for weight in weights])


def _forward(cell: Recurrent, groups: Sequence[Group], *, keep: bool) -> tuple[list[Tensors], list[Tensor]]:
    """States before the first and after each step, and with ``keep`` the activations of each step, of each group.

    Each tensor of the states is (R, 1 + steps, rows, hidden), the activations are (R, steps, rows, 4 hidden).
    """
    projected = [_project(group.x, group.kernel, cell.precision, group.biases[0]) for group in groups]

    def chunk(g: int, first: Tensor, count: int, carried: tuple[State, Tensors]) -> tuple[State, Tensors]:
        state, stored = carried
        inputs = _steps(projected[g], first, count)
        values = []
        for i in range(count):
            over_state = matmul(state[0], groups[g].recurrent, cell.precision)
            state, activations = cell.activate(_joined(inputs[:, i], over_state, groups[g].biases), state)
            values.append((*state, ops.concatenate(activations, axis=-1)) if keep else state)
        offsets = [first + 1] * len(state) + [first] * keep  # the initial state comes before the first step's
        rows = [ops.stack(tensors, axis=1) for tensors in zip(*values, strict=True)]
        return state, tuple(_put(s, at, r) for s, at, r in zip(stored, offsets, rows, strict=True))

    start = []
    for group, inputs in zip(groups, projected, strict=True):
        after_initial = ((0, 0), (0, group.x.shape[1]), (0, 0), (0, 0))
        stored = [ops.pad(ops.expand_dims(s, 1), after_initial) for s in group.initial]
        start.append((group.initial, (*stored, *[_room(inputs, ACTIVATIONS * cell.hidden)] * keep)))
    ended = _loop([group.x.shape[1] for group in groups], chunk, start)
    states = [stored[: cell.states] for _, stored in ended]
    return states, [stored[-1] for _, stored in ended] if keep else []


def _backward(
    cell: Recurrent,
    groups: Sequence[Group],
    states: Sequence[Tensors],
    activations: Sequence[Tensor],
    upstream: Sequence[Tensor],
) -> tuple[Group, ...]:
    """Gradients with respect to the groups; ``upstream`` are those with respect to the hidden states of each group."""
    activations = activations or [
        _activations(cell, group, s, d_hidden) for group, s, d_hidden in zip(groups, states, upstream, strict=True)
    ]
    transposed = [_transposed(group.recurrent) for group in groups]

    def chunk(g: int, first: Tensor, count: int, carried: tuple[State, Tensors]) -> tuple[State, Tensors]:
        d_state, stored = carried
        known = [_steps(tensor, first, count + 1) for tensor in states[g]]
        kept, d_hidden = _steps(activations[g], first, count), _steps(upstream[g], first, count)
        values = []
        for i in reversed(range(count)):
            before, after = (tuple(tensor[:, at] for tensor in known) for at in (i, i + 1))
            d_after = (d_state[0] + d_hidden[:, i], *d_state[1:])
            d_projected, d_before = cell.activate_gradient(
                tuple(ops.split(kept[:, i], ACTIVATIONS, axis=-1)), before, after, d_after
            )
            d_state = (d_before[0] + matmul(d_projected[-1], transposed[g], cell.precision), *d_before[1:])
            values.append(d_projected)
        rows = [ops.stack(tensors[::-1], axis=1) for tensors in zip(*values, strict=True)]
        return d_state, tuple(_put(s, first, r) for s, r in zip(stored, rows, strict=True))

    start = []
    for group, d_hidden in zip(groups, upstream, strict=True):
        d_projected = tuple(_room(d_hidden, group.kernel.shape[-1]) for _ in group.biases)
        start.append((tuple(ops.zeros_like(s) for s in group.initial), d_projected))
    ended = _loop([group.x.shape[1] for group in groups], chunk, start, backwards=True)
    return tuple(
        Group(
            x=_project(d_projected[0], _transposed(group.kernel), cell.precision),
            kernel=_kernel_gradient(group.x, d_projected[0], cell.precision),
            recurrent=_kernel_gradient(_before(group_states[0]), d_projected[-1], cell.precision),
            biases=tuple(ops.sum(d, axis=(1, 2)) for d in d_projected),
            initial=d_state,
        )
        for group, group_states, (d_state, d_projected) in zip(groups, states, ended, strict=True)
    )


def _loop(
    lengths: Sequence[int],
    chunk: Callable[[int, Tensor, int, Any], Any],
    carried: Sequence[Any],
    *,
    backwards: bool = False,
) -> list[Any]:
    """What groups of the given lengths carry after all their steps.

    ``chunk(group, first, count, carried)`` makes the steps from ``first`` to ``first + count - 1`` of a group. A loop
    ends wherever a group does, and the next one goes on without it.
    """
    carried, ends = list(carried), sorted(set(lengths))
    spans = list(zip([0, *ends[:-1]], ends, strict=True))
    for first, last in reversed(spans) if backwards else spans:
        active = [g for g, length in enumerate(lengths) if length >= last]
        advance = partial(_advance, active, chunk)
        span = unrolled(first, last, advance, [carried[g] for g in active], UNROLL, backwards=backwards)
        for g, group_carried in zip(active, span, strict=True):
            carried[g] = group_carried
    return carried


def _advance(groups: Sequence[int], chunk: Callable[..., Any], first: Tensor, count: int, carried: Any) -> list[Any]:
    return [chunk(g, first, count, own) for g, own in zip(groups, carried, strict=True)]


def unrolled(
    first: int,
    last: int,
    advance: Callable[[Any, int, Any], Any],
    carried: Any,
    unroll: int,
    *,
    backwards: bool = False,
) -> Any:
    """Make the steps from ``first`` to before ``last``; gives what ``carried`` becomes.

    ``advance(at, count, carried)`` makes ``count`` steps from ``at`` on: ``unroll`` of them in each pass of a loop, and
    those that remain at the end.

    >>> int(unrolled(0, 10, lambda at, count, total: total + count * at, ops.convert_to_tensor(0), unroll=4))
    32
    """
    passes, rest = divmod(last - first, unroll)

    def one_pass(done: Tensor, carried: Any) -> tuple[Tensor, Any]:
        at = first + unroll * (passes - 1 - done if backwards else done)
        return done + 1, advance(at, unroll, carried)

    if rest and backwards:
        carried = advance(last - rest, rest, carried)
    if passes == 1:
        carried = advance(first, unroll, carried)
    elif passes:
        start = ops.convert_to_tensor(0, "int32"), carried
        _, carried = ops.while_loop(lambda done, _: done < passes, one_pass, start)
    if rest and not backwards:
        carried = advance(last - rest, rest, carried)
    return carried


def _activations(cell: Recurrent, group: Group, states: Tensors, upstream: Tensor) -> Tensor:
    """The activations of all steps, computed again from the states.

    The kernels are made to depend on ``upstream``, the gradient with respect to the hidden states. Otherwise compilers
    see the products of the forward pass in these ones, and compute the activations of all layers before the backward
    pass begins.
    """
    nothing = 0.0 * upstream[:, 0, :1, :1]
    before = tuple(_before(s) for s in states)
    over_input = _project(group.x, group.kernel + nothing, cell.precision, group.biases[0])
    over_state = _project(before[0], group.recurrent + nothing, cell.precision)
    biases = tuple(ops.expand_dims(bias, 1) for bias in group.biases)
    _, activations = cell.activate(_joined(over_input, over_state, biases), before)
    return ops.concatenate(activations, axis=-1)


def _joined(over_input: Tensor, over_state: Tensor, biases: Tensors) -> Tensors:
    """What :meth:`Recurrent.activate` takes; ``over_input`` already contains the first bias, ``over_state`` none."""
    if len(biases) == 1:
        return (over_input + over_state,)
    return over_input, over_state + ops.expand_dims(biases[1], -2)


def _project(x: Tensor, kernel: Tensor, precision: Precision, bias: Tensor | None = None) -> Tensor:
    """(R, steps, rows, features) times (R, features, columns)."""
    count, steps, rows, features = ops.shape(x)
    projected = matmul(ops.reshape(x, (count, -1, features)), kernel, precision)
    if bias is not None:
        projected = projected + ops.expand_dims(bias, 1)
    return ops.reshape(projected, (count, steps, rows, kernel.shape[-1]))


def _kernel_gradient(operand: Tensor, d_projected: Tensor, precision: Precision) -> Tensor:
    """Gradient (R, features, columns) with respect to the kernel of :func:`_project`."""
    operand, d = (ops.reshape(tensor, (tensor.shape[0], -1, tensor.shape[-1])) for tensor in (operand, d_projected))
    return matmul(_transposed(operand), d, precision)


def _transposed(kernel: Tensor) -> Tensor:
    return ops.transpose(kernel, (0, 2, 1))


def _before(states: Tensor) -> Tensor:
    """The states before each step."""
    return states[:, :-1]


def _after(states: Tensor) -> Tensor:
    """The states after each step."""
    return states[:, 1:]


def _room(like: Tensor, width: int) -> Tensor:
    """A tensor (R, steps, rows, width) for a loop to overwrite; steps and rows are those of ``like``.

    It is filled from ``like``, so that it cannot exist before. Compilers fill the zeros of all layers at once, at the
    start of a training step, and their memory is then taken from there on.
    """
    return ops.broadcast_to(like[:, :, :, :1], (*ops.shape(like)[:-1], width))


def _steps(tensor: Tensor, first: Tensor, count: int) -> Tensor:
    """The steps from ``first`` on of a tensor (R, steps, rows, width)."""
    groups, _, rows, width = ops.shape(tensor)
    return ops.slice(tensor, (0, first, 0, 0), (groups, count, rows, width))


def _put(tensor: Tensor, first: Tensor, steps: Tensor) -> Tensor:
    """A copy of ``tensor`` with other steps from ``first`` on; compiled code updates it in place."""
    return ops.slice_update(tensor, (0, first, 0, 0), steps)
