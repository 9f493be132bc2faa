"""One epoch of training in the folder it is run in: all batches, of which the first few are trained on.

Writes epoch.json, and the weights it began with as those of the model.
"""

import json
import time
from itertools import islice
from pathlib import Path

import keras
import numpy as np

from melnet.data.dataset import shuffled_batches, steps_per_epoch
from melnet.data.shards import Shards
from melnet.model.multiscale import inputs_and_target
from melnet.saved import build_tier, load_description, save_tier
from melnet.training.fit import compile_tier
from stages.command import MODELS, SHARDS
from stages.parameters import load_params

STEPS = 40
NAME = "tier-1"


def main() -> None:
    params = load_params(Path("params.yaml"))
    description, settings = load_description(MODELS), params.model.tiers[NAME]
    shards = Shards(SHARDS / "train")
    keras.utils.set_random_seed(params.train.seed)
    tier = build_tier(description, NAME, settings, recompute=params.train.recompute)
    save_tier(MODELS, description, NAME, settings, tier)
    compile_tier(tier, params.train)
    size = params.train.batch_size
    stream = shuffled_batches(shards, description.normalisation, size, seed=params.train.seed)
    steps = steps_per_epoch(len(shards), size)
    took = []
    for number, batch in enumerate(islice(stream, steps)):
        if number < STEPS:
            inputs, target = inputs_and_target(batch.x, batch.singers, description.tier_index(NAME))
            started = time.perf_counter()
            tier.train_on_batch(inputs, target, sample_weight=batch.weights)
            took.append(time.perf_counter() - started)
    about = {"seconds per step": float(np.median(took)), "steps not taken": max(0, steps - STEPS)}
    Path("epoch.json").write_text(json.dumps(about), encoding="utf-8")


if __name__ == "__main__":
    main()
