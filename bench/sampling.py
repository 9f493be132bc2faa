"""Sampling with a decoder state: its time, and its speed against one full forward pass per element.

Reference configuration: 4 layers, hidden 64, K = 10, 32 bands, 50 frames, batch 16. An implementation without a decoder
state needs a full forward pass for each element; a few passes are measured, and the time of all 50 x 32 is extrapolated
from them.
"""

import time

import numpy as np
from keras import ops

from bench.common import Claim, alternate, report, seconds
from melnet.backend import compiled
from melnet.model.tier import Tier
from melnet.sampling import Sampler

BATCH, FRAMES, BANDS, LAYERS, HIDDEN, COMPONENTS = 16, 50, 32, 4, 64, 10
PASSES, ROUNDS = 3, 5


def main() -> None:
    tier = Tier(bands=BANDS, layers=LAYERS, hidden=HIDDEN, num_components=COMPONENTS, min_sigma=0.02)
    low, high = np.full(BANDS, -4, np.float32), np.full(BANDS, 4, np.float32)
    sampler = Sampler([tier], low, high)
    forward = compiled(tier)
    x = np.zeros((BATCH, FRAMES, BANDS), np.float32)

    def sampled(count: int, frames: int) -> float:
        return seconds(lambda: sampler.sample(count, frames, seed=0))

    def passes() -> float:
        started = time.perf_counter()
        for _ in range(PASSES):
            ops.convert_to_numpy(forward({"x": x}))[0, 0, 0, 0]
        return (time.perf_counter() - started) / PASSES * FRAMES * BANDS

    print(f"compilation: {sampled(BATCH, FRAMES):.1f} s; of batches of 1 and 64: ", end="")
    print(f"{sampled(1, FRAMES):.1f} s, {sampled(64, FRAMES):.1f} s")
    passes()
    print("seconds for 16 x 50, 16 x 200, 1 x 50, 64 x 50 frames, and for 16 x 50 by full passes (extrapolated)")
    rounds = alternate(
        ROUNDS,
        lambda: sampled(BATCH, FRAMES),
        lambda: sampled(BATCH, 4 * FRAMES),
        lambda: sampled(1, FRAMES),
        lambda: sampled(64, FRAMES),
        passes,
    )
    short, long, single, many, full = zip(*rounds, strict=True)
    report(
        Claim.at_most(0.5, "sampling 16 x 50 x 32", short, "s"),
        Claim.at_least(
            1000,
            "sampling, speed against a full pass per element",
            [f / s for f, s in zip(full, short, strict=True)],
            "x",
        ),
        Claim.at_most(
            4.2, "sampling, time of 200 frames against 50", [a / b for a, b in zip(long, short, strict=True)], "x"
        ),
        Claim.at_most(0.5, "sampling 1 x 50 x 32", single, "s"),
        Claim.at_most(2.0, "sampling 64 x 50 x 32", many, "s"),
    )


if __name__ == "__main__":
    main()
