"""Training: one step (forward, backward, RMSprop) of the reference tier against matmul and against keras.layers.LSTM.

Reference configuration: 4 layers, hidden 64, K = 10, centralised stack, batch 16 of 50 frames x 32 bands, float32; 90
GFLOP per step. The same tier on ``keras.layers.LSTM`` is trained without XLA, as a plain ``fit`` would.
"""

import time

import keras
import numpy as np
from keras import ops

from bench._reference import ReferenceTier
from bench.common import ROOT, Claim, alternate, report, seconds
from melnet.backend import compiled
from melnet.model.mixture import MixtureLoss
from melnet.model.tier import Tier
from melnet.training.fit import TrainConfig, compile_tier
from stages.parameters import load_params

BATCH, FRAMES, BANDS, LAYERS, HIDDEN, COMPONENTS = 16, 50, 32, 4, 64, 10
GFLOP = 90.0
MATMUL = 2048
SETTINGS = load_params(ROOT / "params.yaml").train
STEPS, ROUNDS = 3, 5


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, FRAMES, BANDS)).astype("float32")
    weights = np.ones(BATCH, "float32")
    square = ops.convert_to_tensor(rng.normal(size=(MATMUL, MATMUL)).astype("float32"))
    multiply = compiled(lambda a: ops.matmul(a, a))

    tier = Tier(bands=BANDS, layers=LAYERS, hidden=HIDDEN, num_components=COMPONENTS, min_sigma=0.02)
    compile_tier(tier, TrainConfig(**SETTINGS.schedule))
    compile_seconds = seconds(lambda: tier.train_on_batch({"x": x}, x, sample_weight=weights))
    print(f"ours: {tier.count_params():,} weights, first step {compile_seconds:.1f} s")

    stock = ReferenceTier(batch=BATCH, bands=BANDS, layers=LAYERS, hidden=HIDDEN, components=COMPONENTS)
    stock.compile(
        optimizer=keras.optimizers.RMSprop(SETTINGS.learning_rate, momentum=0.9, global_clipnorm=1.0),
        loss=MixtureLoss(0.02),
        jit_compile=False,
    )
    stock.train_on_batch(x, x)
    print(f"keras.layers.LSTM: {stock.count_params():,} weights")

    def matmul() -> float:
        started = time.perf_counter()
        for _ in range(10):
            result = multiply(square)
        ops.convert_to_numpy(result[:1, :1])
        return 10 * 2 * MATMUL**3 / 1e9 / (time.perf_counter() - started)

    def ours() -> float:
        return seconds(lambda: [tier.train_on_batch({"x": x}, x, sample_weight=weights) for _ in range(STEPS)]) / STEPS

    def theirs() -> float:
        return seconds(lambda: [stock.train_on_batch(x, x) for _ in range(STEPS)]) / STEPS

    print("GFLOP/s of a matmul, seconds per step of ours, of keras.layers.LSTM")
    rounds = alternate(ROUNDS, matmul, ours, theirs)
    report(
        Claim.at_least(55.0, "training step, share of matmul rate", [100 * GFLOP / o / m for m, o, _ in rounds], "%"),
        Claim.at_least(1.7, "training step, speed against keras.layers.LSTM", [t / o for _, o, t in rounds], "x"),
        Claim.at_most(15.0, "training step, compilation", [compile_seconds], "s"),
    )


if __name__ == "__main__":
    main()
