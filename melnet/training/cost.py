"""Memory and work of training, computed from the weights of the tiers before anything is trained."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from melnet.backend import parts_of
from melnet.model.multiscale import Shape, shape
from melnet.model.tier import Tier
from melnet.saved import ModelConfig, TierConfig, build_tier

FLOAT_BYTES = 4
# Memory of TensorFlow itself, and of what compiling leaves behind for each recurrent layer (bench/train_memory.py).
RUNTIME_BYTES = 1.15 * 2**30
COMPILED_LAYER_BYTES = 39 * 2**20
# Copies of the weights during training: themselves, gradient, RMSprop's mean square and momentum, moving average; with
# micro-batches also the sum of their gradients.
WEIGHT_COPIES = 5


@dataclass(frozen=True)
class Cost:
    """Memory and work of one training step of one tier."""

    shape: Shape
    """frames and bands of the tier"""
    layers: int
    """of each stack"""
    feature_layers: int
    """layers of the feature-extraction network; 0 in the first tier"""
    hidden: int
    weights: int
    flop: float
    """floating-point operations of all matrix products of a step, forward and backward"""
    batch_size: int
    accumulate: int
    """micro-batches of a step"""
    window_memory: float
    """bytes that the forward pass keeps of each window for the backward pass"""
    runtime: float
    """bytes that are needed besides, whatever the batch size"""

    @property
    def memory(self) -> float:
        """Bytes of weights, optimizer, and what the forward pass keeps for the backward pass."""
        return self._memory(self.accumulate)

    @property
    def peak(self) -> float:
        """Bytes that the training process takes."""
        return self.peak_with(self.accumulate)

    def fewest_micro_batches(self, memory: float) -> int | None:
        """The least ``accumulate`` with which training takes at most so many bytes; None: a window alone takes more."""
        divisors = (count for count in range(1, self.batch_size + 1) if self.batch_size % count == 0)
        return next((count for count in divisors if self.peak_with(count) <= memory), None)

    def peak_with(self, accumulate: int) -> float:
        """:attr:`peak` with another number of micro-batches."""
        return self.runtime + self._memory(accumulate)

    def _memory(self, accumulate: int) -> float:
        micro_batch = self.batch_size // accumulate
        at_once = min(1.0, (os.cpu_count() or 1) / parts_of(micro_batch))
        copies = WEIGHT_COPIES + (accumulate > 1)
        return FLOAT_BYTES * copies * self.weights + at_once * micro_batch * self.window_memory


def cost(tier: Tier, batch_size: int, frames: int, accumulate: int = 1) -> Cost:
    """Cost of a step on ``batch_size`` windows of ``frames`` frames, in ``accumulate`` micro-batches.

    A matrix of n weights that is applied to e vectors takes 2 n e operations forward and twice as many backward. For
    each vector a recurrent layer keeps its input and its states, and its gates unless they are recomputed; a dense
    layer keeps its output. All but the gates exist twice, transposed or as a gradient. Only as many parts of a
    micro-batch are kept at a time as there are cores.

    >>> tier = Tier(bands=8, layers=1, hidden=4, num_components=2, min_sigma=0.02)
    >>> cost(tier, batch_size=2, frames=10).shape
    Shape(frames=10, bands=8)
    """
    flop = kept = gates = 0.0
    runtime = RUNTIME_BYTES
    for weight in tier.weights:
        if not weight.path.endswith("kernel"):
            continue
        _, layer, *_, name = weight.path.split("/")
        rows, columns = weight.shape
        # The centralised stack runs over whole frames, everything else over their elements.
        whole_frames = layer.startswith(("centralised", "frame_input", "singer_to"))
        vectors = frames * (1 if whole_frames else tier.bands)  # of one window
        flop += 6 * batch_size * vectors * rows * columns
        if name == "recurrent_kernel":
            kept += 2 * vectors * rows
            gates += 4 * vectors * rows
            runtime += COMPILED_LAYER_BYTES
        else:
            kept += vectors * (rows if columns > 2 * rows else columns)
    return Cost(
        Shape(frames, tier.bands),
        len(tier.time_delayed),
        len(tier.features),
        tier.hidden,
        tier.count_params(),
        flop,
        batch_size,
        accumulate,
        FLOAT_BYTES * (2 * kept + (0 if tier.recompute else gates)),
        runtime,
    )


def costs(
    config: ModelConfig,
    tiers: Mapping[str, TierConfig],
    batch_size: int,
    recompute: bool = False,
    accumulate: int = 1,
) -> dict[str, Cost]:
    """Cost of each tier of a model, by its name, for windows of ``config.frames`` frames."""
    found = {}
    for name in config.tiers:
        frames = shape(*config.tier_index(name), config.frames, config.mel.n_mels).frames
        tier = build_tier(config, name, tiers[name], recompute=recompute)
        found[name] = cost(tier, batch_size, frames, accumulate)
    return found
