"""One epoch of training in the current folder: reads all its batches and trains on the first ``STEPS``.

Writes epoch.json, and saves the initial weights as those of the model.
"""

import json
import time
from pathlib import Path

import numpy as np

from melnet.data.dataset import TrainingWindows
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
    settings = TrainConfig(**params.train.schedule)
    compile_tier(tier, settings)
    windows, steps = TrainingWindows(shards, settings.window_frames), settings.steps_per_epoch
    stream = windows.batches(config.normalisation, settings.batch_size, steps, seed=settings.seed, epoch=0)
    took = []
    for number, batch in enumerate(stream):
        if number < STEPS:
            inputs, target = inputs_and_target(batch.x, batch.singers, config.tier_index(NAME))
            started = time.perf_counter()
            tier.train_on_batch(inputs, target, sample_weight=batch.weights)
            took.append(time.perf_counter() - started)
    about = {"seconds per step": float(np.median(took)), "steps not taken": max(0, steps - STEPS)}
    Path("epoch.json").write_text(json.dumps(about), encoding="utf-8")


if __name__ == "__main__":
    main()
