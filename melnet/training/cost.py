"""What training a model will take, worked out from its weights before anything is trained."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from melnet.backend import parts_of
from melnet.data.dataset import Normalisation
from melnet.model.multiscale import Shape, shape
from melnet.model.tier import Tier
from melnet.saved import Description, build_tier
from stages.parameters import Params

FLOAT = 4  # bytes
# Bytes of TensorFlow itself, and of what compiling leaves behind for each recurrent layer (bench/train_memory.py).
RUNTIME = 1.15 * 2**30
COMPILED = 39 * 2**20
# Copies of the weights while training: themselves, gradient, RMSprop's mean square and momentum, moving average.
WEIGHT_COPIES = 5


@dataclass(frozen=True)
class Cost:
    """Of one training step of one tier."""

    shape: Shape
    weights: int
    flop: float
    """floating-point operations of all matrix products, forward and backward"""
    memory: float
    """bytes: weights and optimizer, and what the forward pass keeps for the backward pass"""
    runtime: float
    """bytes that are needed besides, whatever the size of a batch"""
    feature_layers: int
    """of the network that conditions the tier on the earlier ones; 0 for the first"""

    @property
    def peak(self) -> float:
        """Bytes that the process of a training takes."""
        return self.runtime + self.memory


def cost(tier: Tier, batch: int, frames: int) -> Cost:
    """Of a step on ``batch`` slices of ``frames`` frames.

    A matrix of n weights that is applied to e vectors takes 2 n e operations forward and twice as many backward. For
    each vector a recurrent layer keeps its input and its states, and its activated gates unless they are recomputed; a
    dense layer keeps its output. All but the gates is there twice, transposed or as a gradient. Of the parts of a
    batch no more are kept at a time than there are cores.
    """
    flop = kept = gates = 0.0
    runtime = RUNTIME
    for weight in tier.weights:
        _, part, *_, name = weight.path.split("/")
        if not name.endswith("kernel"):
            continue
        rows, columns = weight.shape
        # The centralised stack runs over whole frames, everything else over their elements.
        whole_frames = part.startswith(("centralised", "frame_input", "singer_to"))
        vectors = batch * frames * (1 if whole_frames else tier.bands)
        flop += 6 * vectors * rows * columns
        if name == "recurrent_kernel":
            kept += 2 * vectors * rows
            gates += 4 * vectors * rows
            runtime += COMPILED
        else:
            kept += vectors * (rows if columns > 2 * rows else columns)
    at_once = min(1.0, (os.cpu_count() or 1) / parts_of(batch))
    memory = FLOAT * (WEIGHT_COPIES * tier.count_params() + at_once * (2 * kept + (0 if tier.recompute else gates)))
    return Cost(Shape(frames, tier.bands), tier.count_params(), flop, memory, runtime, len(tier.features))


def costs(params: Params, singers: int = 2) -> dict[str, Cost]:
    """Of each tier of the model that the settings describe; ``singers`` where it knows any."""
    batch = params.train.batch_size
    return {name: cost(tier, batch, frames) for name, tier, frames in tiers(params, singers)}


def tiers(params: Params, singers: int = 2) -> Iterator[tuple[str, Tier, int]]:
    """Each tier of the model that the settings describe: its name, the tier itself, its frames."""
    bands = params.mel.n_mels
    description = Description.of(
        params.model,
        sample_rate=params.downsample.sample_rate,
        frames=params.slice.frames,
        mel=params.mel,
        singers=[str(number) for number in range(singers)],
        normalisation=Normalisation(*np.zeros((4, bands), np.float32)),
    )
    for name in description.tiers:
        index = description.tier_index(name)
        frames = shape(index.number, index.count, params.slice.frames, bands).frames
        tier = build_tier(description, name, params.model.tiers[name], recompute=params.train.recompute)
        yield name, tier, frames


def table(params: Params) -> str:
    """A line per tier, and their sum."""
    lines = [("tier", "frames x bands", "layers", "hidden", "weights", "memory of training", "work per step")]
    found = costs(params)
    for name, tier in found.items():
        settings = params.model.tiers[name]
        features = f" + {tier.feature_layers}" if tier.feature_layers else ""
        lines.append(
            (
                name,
                f"{tier.shape.frames} x {tier.shape.bands}",
                f"{settings.layers}{features}",
                str(settings.hidden),
                f"{tier.weights:,}",
                f"{tier.peak / 2**30:.1f} GiB",
                f"{tier.flop / 1e9:,.0f} GFLOP",
            )
        )
    if len(found) > 1:
        together = f"{params.slice.frames} x {params.mel.n_mels}", "", "", f"{sum(c.weights for c in found.values()):,}"
        most = f"{max(c.peak for c in found.values()) / 2**30:.1f} GiB at most"
        lines.append(("all", *together, most, f"{sum(c.flop for c in found.values()) / 1e9:,.0f} GFLOP"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
