"""Training step and sampling with the JAX backend on a GPU: ``KERAS_BACKEND=jax python -m bench.gpu``.

Needs keras and jax, no TensorFlow. The reference configuration (4 layers, hidden 64, batch 16 of 50 x 32), and on a GPU
also 8 layers of 512 on 64 x 64; a CPU runs a small model instead, which only shows that the code works. Measures the
time per step, the rate in GFLOP/s, and its share of the rate of a large matmul in the same process. On a GPU it writes
bench/gpu.json, with the device's name; otherwise it writes nothing.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from keras import ops

from bench.common import ROOT, report
from melnet.backend import compiled
from melnet.model.tier import Tier
from melnet.sampling import Sampler
from melnet.training.cost import cost
from melnet.training.fit import TrainConfig, compile_tier
from stages.parameters import load_params

RESULTS = ROOT / "bench/gpu.json"
BATCH, ROUNDS, STEPS = 16, 5, 3
REFERENCE = {"frames": 50, "bands": 32, "layers": 4, "hidden": 64}
LARGE = {"frames": 64, "bands": 64, "layers": 8, "hidden": 512}
SMALL = {"frames": 16, "bands": 16, "layers": 2, "hidden": 32}


def main() -> None:
    if keras.backend.backend() != "jax":
        sys.exit(f"bench.gpu: KERAS_BACKEND is {keras.backend.backend()}, not jax")
    import jax

    device = jax.devices()[0]
    gpu = device.platform != "cpu"
    peak = matmul(8192 if gpu else 2048)
    print(f"{device.device_kind}: {peak:.0f} GFLOP/s in a float32 matmul")
    found = {"reference": measured(REFERENCE, peak)}
    found["large" if gpu else "small"] = measured(LARGE if gpu else SMALL, peak)
    if gpu:
        content = {"device": device.device_kind, "matmul_gflop_per_s": peak, **found}
        RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))
    report()  # no targets: the figures depend on the GPU


def measured(size: dict[str, int], peak: float) -> dict[str, Any]:
    """Median times and rates of a training step and of sampling one batch."""
    frames = size["frames"]
    tier = Tier(bands=size["bands"], layers=size["layers"], hidden=size["hidden"], num_components=10, min_sigma=0.02)
    compile_tier(tier, TrainConfig(**load_params(ROOT / "params.yaml").train.schedule))
    x = np.random.default_rng(0).normal(size=(BATCH, frames, size["bands"])).astype("float32")
    weights = np.ones(BATCH, "float32")

    def steps() -> None:
        for _ in range(STEPS):
            tier.train_on_batch({"x": x}, x, sample_weight=weights)

    bound = np.full(size["bands"], 4, np.float32)
    sampler = Sampler([tier], -bound, bound)
    step = median(steps) / STEPS
    sampling = median(lambda: sampler.sample(BATCH, frames, seed=0))
    flop = cost(tier, BATCH, frames).flop
    return {
        **size,
        "batch": BATCH,
        "step_s": step,
        "step_gflop_per_s": flop / step / 1e9,
        "step_share_of_matmul": flop / step / 1e9 / peak,
        "sampling_s": sampling,
        "sampling_gflop_per_s": flop / 3 / sampling / 1e9,
    }


def median(work: Callable[[], object]) -> float:
    """Median seconds of a call; the first call is not counted."""
    work()
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def matmul(size: int) -> float:
    """Rate of a float32 matmul in GFLOP/s."""
    multiply = compiled(lambda a: ops.matmul(a, a))
    square = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(size, size)).astype("float32"))

    def ten() -> None:
        for _ in range(10):
            result = multiply(square)
        ops.convert_to_numpy(result[:1, :1])

    return 10 * 2 * size**3 / 1e9 / median(ten)


if __name__ == "__main__":
    main()
