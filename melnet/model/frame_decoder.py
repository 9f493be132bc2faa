"""Drawing a frame on an accelerator: all stacks of a tier, in few kernels.

It computes what :meth:`melnet.model.tier.Tier.frame_step` does, up to rounding. An accelerator spends its time on
starting kernels, and a frame is a long chain of small ones: in each layer of the time-delayed stack two RNNs run over
the bands, and in the frequency-delayed stack each band needs all layers one after the other. So each link of the chain
is one kernel:

- Products of small matrices are sums over windows (:func:`fused_matmul`), which XLA computes in the same kernel as the
  gates that they are for; a matmul would be a kernel of its own. Large products are matmuls.
- The input of a layer of the frequency-delayed stack is the sum of the hidden states h_j of the layers below, each
  times its projection P_j. Times the kernel K_l of the layer that is a sum of h_j (P_j K_l), where the products of
  weights are the same for all frames. So no kernel is needed between two layers.
- What the other stacks, the conditions and the biases add to a band is computed for all bands before the first one.
- A value is drawn in one kernel (:func:`melnet.model.mixture.sample`). The values of the frame are then drawn once
  more, from the same parameters and noise, for all bands at once, since storing each would be a kernel too.
- Loops are unrolled: a pass draws :data:`UNROLL` bands, or makes :data:`UNROLL_TIME_DELAYED` steps.

With ``bfloat16`` (:mod:`melnet.model.precision`) matmuls are rounded, sums over windows are not.

The products of weights grow with the square of the number of layers, so stacks of more than :data:`MOST_LAYERS` do not
gain.
"""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, TypeAlias

from keras import ops

from melnet.backend import Tensor
from melnet.model.recurrent import Recurrent, State, row
from melnet.model.recurrent_accelerator import unrolled

if TYPE_CHECKING:
    from melnet.model.stacks import CentralisedLayer, TimeDelayedLayer
    from melnet.model.tier import DecoderState, SampleFn, Tier

Blocks: TypeAlias = list[Tensor]
"""columns of a product, such as those of each gate, each (..., rows, columns)"""

UNROLL = 8
"""bands in one pass of the loop over a frame's bands"""
UNROLL_TIME_DELAYED = 32
"""steps in one pass of a loop in the time-delayed stack, whose kernels are smaller and compile faster"""
MOST_LAYERS = 6
FUSED_FLOP = 1e8
"""floating-point operations of the largest product that is a sum over windows; they take some microseconds"""


def fused_matmul(a: Tensor, b: Tensor) -> Tensor:
    """The product of matrices (..., rows, n) and (..., n, columns), as XLA can fuse it with what follows.

    XLA gives every matmul a kernel of its own, and most sums, but not sums over windows.

    >>> fused_matmul(ops.ones((5, 2, 3)), ops.ones((5, 3, 4))).shape == (5, 2, 4)
    True
    """
    products = ops.expand_dims(a, -1) * ops.expand_dims(b, -3)
    *outer, n, columns = ops.shape(products)
    means = ops.average_pool(ops.reshape(products, (-1, n, columns)), n, strides=n, data_format="channels_last")
    return n * ops.reshape(means, (*outer, columns))


class Product:
    """Multiplication by weights whose columns lie in several blocks, which are taken apart.

    >>> product = Product([ops.ones((3, 4)), ops.ones((3, 2))], ops.matmul)
    >>> [tuple(block.shape) for block in product(ops.ones((5, 3)))]
    [(5, 4), (5, 2)]
    """

    def __init__(self, blocks: Sequence[Tensor], matmul: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._blocks, self._matmul = list(blocks), matmul
        self._weights = ops.concatenate(self._blocks, axis=-1)
        self._ends = [0, *accumulate(block.shape[-1] for block in self._blocks)]

    def __call__(self, x: Tensor) -> Blocks:
        if 2 * math.prod(x.shape) * self._weights.shape[-1] <= FUSED_FLOP:
            return [fused_matmul(x, block) for block in self._blocks]
        product = self._matmul(x, self._weights)
        return [product[..., first:end] for first, end in pairwise(self._ends)]


class Cell:
    """The weights of a recurrent layer, or of several that step together, gate by gate."""

    def __init__(self, cells: Sequence[Recurrent]) -> None:
        self.cell, stacked = cells[0], len(cells) > 1
        weights = [ops.stack(w) if stacked else w[0] for w in zip(*map(_weights, cells), strict=True)]
        self.kernels, self.recurrent, self.biases, *state_biases = (self.gates(w) for w in weights)
        self.state_biases = state_biases[0] if state_biases else None
        self.over_state = Product(self.recurrent, self.cell.matmul)
        self._cells = cells

    def gates(self, x: Tensor) -> Blocks:
        """The parts of x (..., gates * hidden) that belong to each gate."""
        return ops.split(x, self.cell.gates, axis=-1)

    def initial_state(self, rows: int) -> State:
        states = zip(*(cell.initial_state(rows) for cell in self._cells), strict=True)
        return tuple(ops.stack(tensors) if len(tensors) > 1 else tensors[0] for tensors in states)

    def step(self, over_input: Blocks, over_state: Blocks, state: State) -> State:
        """The next state, from what the input, biases included, and the hidden state add to each gate."""
        if self.state_biases is None:
            projected: tuple[Tensor, ...] = (ops.concatenate(_sums(over_input, over_state), axis=-1),)
        else:
            over_state = _sums(over_state, self.state_biases)
            projected = ops.concatenate(over_input, axis=-1), ops.concatenate(over_state, axis=-1)
        return self.cell.activate(projected, state)[0]


class TimeDelayed:
    """One layer of the time-delayed stack; see :class:`melnet.model.stacks.TimeDelayedLayer`."""

    def __init__(self, layer: "TimeDelayedLayer", batch: int) -> None:
        self._time, self._both, self._matmul = Cell([layer.time]), Cell([layer.up, layer.down]), layer.time.matmul
        cells = layer.time, layer.up, layer.down
        self._kernel = ops.concatenate([cell.kernel * 1.0 for cell in cells], axis=-1)
        self._bias = ops.concatenate([cell.biases()[0] * 1.0 for cell in cells], axis=-1)
        self._project = ops.concatenate([layer.project_time.kernel * 1.0, layer.project_frequency.kernel * 1.0])
        self._project_bias = ops.convert_to_tensor(layer.project_time.bias)
        self._initial = self._both.initial_state(batch)

    def __call__(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The next layer's features from x (bands, batch, hidden), and the new state of the RNN over time."""
        bands, batch, hidden = x.shape
        projected = self._matmul(ops.reshape(x, (-1, hidden)), self._kernel) + self._bias
        over_time, *_ = ops.split(projected, 3, axis=-1)
        state = self._time.step(self._time.gates(over_time), self._time.over_state(state[0]), state)
        over_bands = ops.reshape(projected, (bands, batch, -1))

        def steps(first: Tensor, count: int, carried: tuple[State, Tensor]) -> tuple[State, Tensor]:
            (both, stored), values = carried, []
            for i in range(count):
                up, down = (ops.split(row(over_bands, f), 3, axis=-1) for f in (first + i, bands - 1 - first - i))
                inputs = ops.stack([up[1], down[2]])
                both = self._both.step(self._both.gates(inputs), self._both.over_state(both[0]), both)
                values.append(both[0])
            return both, ops.slice_update(stored, (first, 0, 0, 0), ops.stack(values))

        stored = ops.zeros((bands, 2, batch, hidden), x.dtype)
        _, stored = unrolled(0, bands, steps, (self._initial, stored), UNROLL_TIME_DELAYED)
        parts = state[0], *(ops.reshape(over, (-1, hidden)) for over in (stored[:, 0], ops.flip(stored[:, 1], 0)))
        added = self._matmul(ops.concatenate(parts, axis=-1), self._project) + self._project_bias
        return x + ops.reshape(added, x.shape), state


class Centralised:
    """One layer of the centralised stack; see :class:`melnet.model.stacks.CentralisedLayer`."""

    def __init__(self, layer: "CentralisedLayer") -> None:
        self._time = Cell([layer.time])
        self._over_input = Product(self._time.kernels, layer.time.matmul)
        self._project = Product([ops.convert_to_tensor(layer.project.kernel)], layer.time.matmul)
        self._project_bias = ops.convert_to_tensor(layer.project.bias)

    def __call__(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The next layer's features from x (batch, hidden), and the new state."""
        over_input = _sums(self._over_input(x), self._time.biases)
        state = self._time.step(over_input, self._time.over_state(state[0]), state)
        [projected] = self._project(state[0])
        return x + projected + self._project_bias, state


class FrameDecoder:
    """Draws frames for ``batch`` samples; it is made, with the products of a tier's weights, in a compiled function.

    >>> import numpy as np
    >>> from melnet.backend import compiled
    >>> from melnet.model.tier import Tier
    >>> tier = Tier(bands=3, layers=2, hidden=4, num_components=2, min_sigma=0.01)
    >>> def means(state):
    ...     return FrameDecoder(tier, 5)(state, lambda parameters, band: parameters[..., 0])[0].frame
    >>> tuple(compiled(means)(tier.initial(5)).shape)
    (5, 3)
    """

    def __init__(self, tier: "Tier", batch: int) -> None:
        self._tier, self._bands, self._batch = tier, tier.bands, batch
        self._time_delayed = [TimeDelayed(layer, batch) for layer in tier.time_delayed]
        self._centralised = [Centralised(layer) for layer in tier.centralised]
        layers = tier.frequency_delayed
        self._cells = [Cell([layer.up]) for layer in layers]
        # Of each layer and of the head: what its input is multiplied with, in blocks, and what is added to the product.
        self._kernels = [*(cell.kernels for cell in self._cells), [ops.convert_to_tensor(tier.head.kernel)]]
        self._joined = [ops.concatenate(blocks, axis=-1) for blocks in self._kernels]
        self._biases = [*(cell.biases for cell in self._cells), [ops.convert_to_tensor(tier.head.bias)]]
        # What of the input of each is the same for all frames, and what the value of the band below is multiplied with.
        self._offsets = [ops.convert_to_tensor(tier.frequency_input.bias)]
        for layer in layers:
            self._offsets.append(self._offsets[-1] + layer.project.bias)
        self._by_value = [
            [ops.matmul(tier.frequency_input.kernel, block)[0] for block in blocks] for blocks in self._kernels
        ]
        # What each hidden state adds to the layers above and to the head.
        self._above = []
        for j, layer in enumerate(layers):
            blocks = [ops.matmul(layer.project.kernel, block) for above in self._kernels[j + 1 :] for block in above]
            self._above.append(Product(blocks, layer.up.matmul))
        self._initial = [cell.initial_state(batch) for cell in self._cells]

    def __call__(
        self, state: "DecoderState", sample_fn: "SampleFn", condition: dict[str, Tensor] | None = None
    ) -> tuple["DecoderState", Tensor]:
        """Draw a frame; the arguments and what is given are those of :meth:`melnet.model.tier.Tier.frame_step`.

        ``sample_fn`` is also called for all bands at once, with parameters (bands, batch, 3 K) and None for the band.
        """
        tier, condition = self._tier, condition or {}
        last_frame = ops.expand_dims(ops.transpose(state.frame), 0)
        condition, reading = tier._read(last_frame, state, condition)
        by_time, whole = tier._time_inputs(last_frame, condition)
        features, whole = by_time[0], None if whole is None else whole[0]
        contexts, time_delayed, centralised = [], [], []
        for i, layer in enumerate(self._time_delayed):
            features, after = layer(features, state.time_delayed[i])
            time_delayed.append(after)
            context = features
            if whole is not None:
                whole, after = self._centralised[i](whole, state.centralised[i])
                centralised.append(after)
                context = features + whole
            contexts.append(context)
        parameters = self._draw(contexts, sample_fn, tier._frequency_condition(condition)[0])
        frame = ops.transpose(sample_fn(parameters, None))
        return type(state)(frame, time_delayed, centralised, reading), ops.transpose(parameters, (1, 0, 2))

    def _draw(self, contexts: Sequence[Tensor], sample_fn: "SampleFn", condition: Tensor) -> Tensor:
        """Mixture parameters (bands, batch, 3 K), each drawn from before the next.

        ``contexts`` are those of each layer, (bands, batch, hidden); ``condition`` is (bands, batch or 1, hidden).
        """
        known = self._known(contexts, condition)

        def band(f: Tensor, value: Tensor, states: list[State]) -> tuple[Tensor, list[State]]:
            """Parameters of a band from the value and the states of the band below."""
            value = ops.expand_dims(value, -1)
            sums = []
            for tensor, biases, by_value in zip(known, self._biases, self._by_value, strict=True):
                blocks = ops.split(row(tensor, f), len(biases), axis=-1)
                sums.append([x + bias + value * w for x, bias, w in zip(blocks, biases, by_value, strict=True)])
            after = []
            for j, cell in enumerate(self._cells):
                after.append(cell.step(sums[j], cell.over_state(states[j][0]), states[j]))
                added = iter(self._above[j](after[-1][0]))
                for above in range(j + 1, len(sums)):
                    sums[above] = [x + next(added) for x in sums[above]]
            return sums[-1][0], after

        def bands(first: Tensor, count: int, carried: tuple) -> tuple:
            value, states, stored = carried
            drawn = []
            for i in range(count):
                parameters, states = band(first + i, value, states)
                value = sample_fn(parameters, first + i)
                drawn.append(parameters)
            return value, states, ops.slice_update(stored, (first, 0, 0), ops.stack(drawn))

        shape = self._bands, self._batch, self._kernels[-1][0].shape[-1]
        start = ops.zeros(self._batch, condition.dtype), self._initial, ops.zeros(shape, condition.dtype)
        return unrolled(0, self._bands, bands, start, UNROLL)[-1]

    def _known(self, contexts: Sequence[Tensor], condition: Tensor) -> list[Tensor]:
        """The part of each layer's gates, and of the head, that is known before any band is drawn.

        Each is (bands, batch or 1, columns), without the bias.
        """
        inputs = [condition + offset for offset in self._offsets]
        inputs = [*(x + context for x, context in zip(inputs, contexts, strict=False)), inputs[-1]]
        products = [*(cell.cell.matmul for cell in self._cells), ops.matmul]  # the head's is in float32
        return [matmul(x, kernel) for matmul, x, kernel in zip(products, inputs, self._joined, strict=True)]


def _sums(a: Blocks, b: Blocks) -> Blocks:
    return [x + y for x, y in zip(a, b, strict=True)]


def _weights(cell: Recurrent) -> list[Tensor]:
    """Kernel, recurrent kernel and biases of a cell, all as matrices."""
    biases = [ops.expand_dims(bias, 0) for bias in cell.biases()]
    return [weight * 1.0 for weight in (cell.kernel, cell.recurrent, *biases)]
