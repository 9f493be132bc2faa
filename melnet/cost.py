"""What training a model will take, worked out from its weights before anything is trained."""

from dataclasses import dataclass

import numpy as np

from melnet.config import Params
from melnet.dataset import Normalisation
from melnet.model.multiscale import Shape, shape
from melnet.model.tier import Tier
from melnet.saved import Description, build_tier

FLOAT = 4  # bytes
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


def cost(tier: Tier, batch: int, frames: int) -> Cost:
    """Of a step on ``batch`` parts of ``frames`` frames.

    A matrix of n weights that is applied to e vectors takes 2 n e operations forward and twice as many backward. For
    each vector a recurrent layer keeps its input, its activated gates and its states, and needs the gates' gradient; a
    dense layer keeps its output.
    """
    flop = kept = 0.0
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
            kept += vectors * (2 * columns + 2 * rows)
        else:
            kept += vectors * (rows if columns > 3 * rows else columns)
    memory = FLOAT * (WEIGHT_COPIES * tier.count_params() + kept)
    return Cost(Shape(frames, tier.bands), tier.count_params(), flop, memory)


def table(params: Params, singers: int = 2) -> str:
    """A line per tier of the model that the settings describe, and their sum; ``singers`` where it knows any."""
    bands = params.mel.n_mels
    description = Description.of(
        params.model,
        sample_rate=params.downsample.sample_rate,
        frames=params.slice.frames,
        mel=params.mel,
        singers=[str(number) for number in range(singers)],
        normalisation=Normalisation(*np.zeros((4, bands), np.float32)),
    )
    lines = [("tier", "frames x bands", "layers", "hidden", "weights", "memory of training", "work per step")]
    costs = []
    for name in description.tiers:
        settings = params.model.tiers[name]
        tier = build_tier(description, name, settings)
        frames = shape(*description.place(name), params.slice.frames, bands).frames
        costs.append(cost(tier, params.train.batch_size, frames))
        extracted = f" + {len(tier.features)}" if tier.features else ""
        lines.append(
            (
                name,
                f"{costs[-1].shape.frames} x {costs[-1].shape.bands}",
                f"{settings.layers}{extracted}",
                str(settings.hidden),
                f"{costs[-1].weights:,}",
                f"{costs[-1].memory / 2**30:.2f} GiB",
                f"{costs[-1].flop / 1e9:,.0f} GFLOP",
            )
        )
    if len(costs) > 1:
        together = f"{params.slice.frames} x {bands}", "", "", f"{sum(c.weights for c in costs):,}"
        most = f"{max(c.memory for c in costs) / 2**30:.2f} GiB at most"
        lines.append(("all", *together, most, f"{sum(c.flop for c in costs) / 1e9:,.0f} GFLOP"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
