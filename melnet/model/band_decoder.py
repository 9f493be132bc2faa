"""The frequency-delayed stack on an accelerator: draws a frame from the lowest band up, in few kernels for each band.

It computes what :meth:`melnet.model.tier.Tier.frame_step` does, up to rounding. An accelerator spends its time on
starting kernels, and a band needs all layers one after the other. So a layer is one matmul and one pass over its gates:

- The input of a layer is the sum of the hidden states h_j of the layers below, each times its projection P_j. Times the
  kernel K_l of the layer that is a sum of h_j (P_j K_l), where the products of weights are the same for all frames. So
  one matmul, h_j [R_j | P_j K_j+1 | P_j K_j+2 | ... | P_j W], gives all that h_j is needed for: its layer's own next
  step, with the recurrent kernel R_j, the layers above, and the head W.
- What the other stacks, the conditions and the biases add is computed for all bands before the first one.
- The loop is unrolled: a pass of it draws :data:`UNROLL` bands.

With ``bfloat16`` (:mod:`melnet.model.precision`) the one matmul of a layer is rounded, its share of the head included.

The matmuls grow with the square of the number of layers, so stacks of more than :data:`MOST_LAYERS` do not gain.
"""

from typing import TYPE_CHECKING

from keras import ops

from melnet.backend import Tensor
from melnet.model.recurrent import Recurrent, State, Tensors, row

if TYPE_CHECKING:
    from melnet.model.tier import SampleFn, Tier

UNROLL = 8
"""bands in one pass of the loop"""
MOST_LAYERS = 6


class BandDecoder:
    """The frequency-delayed stack of a tier with the products of its weights, made inside a compiled function.

    >>> import numpy as np
    >>> from melnet.backend import compiled
    >>> from melnet.model.tier import Tier
    >>> tier = Tier(bands=3, layers=2, hidden=4, num_components=2, min_sigma=0.01)
    >>> def means(contexts, condition):
    ...     return BandDecoder(tier)(contexts, lambda mixtures, band: mixtures[:, 0], condition)[0]
    >>> contexts, condition = np.zeros((3, 2, 5, 4), "float32"), np.zeros((1, 3, 1, 4), "float32")
    >>> tuple(compiled(means)(contexts, condition).shape)
    (5, 3)
    """

    def __init__(self, tier: "Tier") -> None:
        self._bands, self._layers = tier.bands, tier.frequency_delayed
        self._cells = [layer.up for layer in self._layers]
        kernels, self._recurrent, biases, self._state_biases = zip(*map(_weights, self._cells), strict=True)
        projections = [ops.convert_to_tensor(layer.project.kernel) for layer in self._layers]
        # Of each layer and of the head: what its input is multiplied with, and what is added to the product.
        self._kernels = [*kernels, ops.convert_to_tensor(tier.head.kernel)]
        self._biases = [*biases, ops.convert_to_tensor(tier.head.bias)]
        self._offsets = [ops.convert_to_tensor(tier.frequency_input.bias)]
        for layer in self._layers:
            self._offsets.append(self._offsets[-1] + layer.project.bias)
        self._by_value = [ops.matmul(tier.frequency_input.kernel, kernel) for kernel in self._kernels]
        self._by_hidden = [
            ops.concatenate([own, *(ops.matmul(projection, kernel) for kernel in self._kernels[j + 1 :])], axis=-1)
            for j, (own, projection) in enumerate(zip(self._recurrent, projections, strict=True))
        ]

    def __call__(self, contexts: Tensor, sample_fn: "SampleFn", condition: Tensor) -> tuple[Tensor, Tensor]:
        """Draw a frame.

        contexts (bands, layers, batch, hidden) and ``condition`` (1, bands, batch or 1, hidden) give the values (batch,
        bands) and their mixture parameters (batch, bands, 3 K).
        """
        batch = contexts.shape[2]
        known = self._known(contexts, condition[0])

        def band(f: Tensor, value: Tensor, own: list[Tensor], states: list[State]) -> tuple:
            """The value of a band; ``own`` is what each layer's hidden state of the band below adds to its gates."""
            sums = [
                row(tensor, f) + ops.expand_dims(value, -1) * by_value
                for tensor, by_value in zip(known, self._by_value, strict=True)
            ]
            own_after, after = [], []
            for j, cell in enumerate(self._cells):
                state, _ = cell.activate(_projected(sums[j], own[j], self._state_biases[j]), states[j])
                after.append(state)
                widths = [kernel.shape[-1] for kernel in (self._recurrent[j], *self._kernels[j + 1 : -1])]
                ends = [sum(widths[: i + 1]) for i in range(len(widths))]
                added, *rest = ops.split(cell.matmul(state[0], self._by_hidden[j]), ends, axis=-1)
                own_after.append(added)
                for above, part in enumerate(rest, start=j + 1):
                    sums[above] = sums[above] + part
            return sample_fn(sums[-1], f), own_after, after, sums[-1]

        def bands(
            first: Tensor, count: int, value: Tensor, own: list[Tensor], states: list[State], *stored: Tensor
        ) -> tuple:
            values, mixtures = [], []
            for i in range(count):
                value, own, states, parameters = band(first + i, value, own, states)
                values.append(value)
                mixtures.append(parameters)
            values, mixtures = ops.stack(values), ops.stack(mixtures)
            stored = (
                ops.slice_update(stored[0], (first, 0), values),
                ops.slice_update(stored[1], (first, 0, 0), mixtures),
            )
            return first + count, value, own, states, *stored

        states = [cell.initial_state(batch) for cell in self._cells]
        carried = (
            ops.convert_to_tensor(0, "int32"),
            ops.zeros((batch,), contexts.dtype),
            [
                cell.matmul(state[0], kernel)
                for cell, state, kernel in zip(self._cells, states, self._recurrent, strict=True)
            ],
            states,
            ops.zeros((self._bands, batch), contexts.dtype),
            ops.zeros((self._bands, batch, self._kernels[-1].shape[-1]), contexts.dtype),
        )
        rest = self._bands % UNROLL
        if self._bands > rest:
            carried = ops.while_loop(
                lambda f, *_: f < self._bands - rest, lambda f, *others: bands(f, UNROLL, *others), carried
            )
        if rest:
            carried = bands(carried[0], rest, *carried[1:])
        values, parameters = carried[-2:]
        return ops.transpose(values), ops.transpose(parameters, (1, 0, 2))

    def _known(self, contexts: Tensor, condition: Tensor) -> list[Tensor]:
        """For each layer and the head, what is known before a band is drawn, (bands, batch, columns)."""
        inputs = [condition + offset for offset in self._offsets]
        for j in range(len(self._layers)):
            inputs[j] = inputs[j] + contexts[:, j]
        inputs[-1] = ops.broadcast_to(inputs[-1], (*contexts.shape[:1], *contexts.shape[2:]))
        products = [cell.matmul for cell in self._cells] + [ops.matmul]  # the head's is in float32
        terms = zip(products, inputs, self._kernels, self._biases, strict=True)
        return [product(x, kernel) + bias for product, x, kernel, bias in terms]


def _weights(cell: Recurrent) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Kernel and recurrent kernel of a cell, the bias of both and, if the latter has its own, that."""
    first, bias, *others = cell.projections()
    if others:
        return first, others[0], bias, others[1]
    features = first.shape[0] - cell.hidden
    return first[:features], first[features:], bias, None


def _projected(over_input: Tensor, over_state: Tensor, state_bias: Tensor | None) -> Tensors:
    """What :meth:`melnet.model.recurrent.Recurrent.activate` takes."""
    return (over_input + over_state,) if state_bias is None else (over_input, over_state + state_bias)
