"""One epoch of training in the current folder: reads all batches and trains on the first ``STEPS``.

Writes epoch.json, and saves the initial weights as those of the model.
"""

import json
import time
from itertools import islice
from pathlib import Path

import numpy as np

from melnet.data.dataset import shuffled_batches, steps_per_epoch
from melnet.data.shards import Shards
from melnet.model.multiscale import inputs_and_target
from melnet.saved import TierConfig, build_tier, load_config, save_tier
from melnet.training.fit import TrainConfig, compile_tier
from stages.parameters import load_params
from stages.paths import MODELS, SHARDS

STEPS = 40
NAME = "tier-1"


def main() -> None:
    params = load_params(Path("params.yaml"))
    config = load_config(MODELS)
    tier_config = TierConfig(**params.model.tiers[NAME].model_dump())
    shards = Shards(SHARDS / "train")
    tier = build_tier(config, NAME, tier_config, recompute=params.train.recompute, seed=params.train.seed)
    save_tier(MODELS, config, NAME, tier_config, tier)
    compile_tier(tier, TrainConfig(**params.train.model_dump()))
    size = params.train.batch_size
    stream = shuffled_batches(shards, config.normalisation, size, seed=params.train.seed)
    steps = steps_per_epoch(len(shards), size)
    took = []
    for number, batch in enumerate(islice(stream, steps)):
        if number < STEPS:
            inputs, target = inputs_and_target(batch.x, batch.singers, config.tier_index(NAME))
            started = time.perf_counter()
            tier.train_on_batch(inputs, target, sample_weight=batch.weights)
            took.append(time.perf_counter() - started)
    about = {"seconds per step": float(np.median(took)), "steps not taken": max(0, steps - STEPS)}
    Path("epoch.json").write_text(json.dumps(about), encoding="utf-8")


if __name__ == "__main__":
    main()
