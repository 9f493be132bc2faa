"""Memory of training one tier for two steps; prints MiB and seconds as JSON.

python -m bench._memory_of_a_step '{"bands": 32, "frames": 50, "layers": 4, "hidden": 64, "batch": 16, ...}'
"""

import json
import resource
import sys
import threading
import time

import numpy as np
import psutil

from bench.common import ROOT
from melnet.model.tier import Tier
from melnet.training.cost import cost
from melnet.training.fit import TrainConfig, compile_tier
from stages.parameters import load_params


def main() -> None:
    given = json.loads(sys.argv[1])
    frames, batch, bands = given.pop("frames"), given.pop("batch"), given["bands"]
    changes = {"batch_size": batch, "recompute": given["recompute"]}
    settings = load_params(ROOT / "params.yaml").train.model_copy(update=changes)
    config = TrainConfig(**settings.schedule)
    tier = Tier(num_components=10, min_sigma=0.02, **given)
    compile_tier(tier, config)
    x = np.random.default_rng(0).normal(size=(batch, frames, bands)).astype("float32")
    inputs = {"x": x, "context": x} if given.get("feature_layers") else {"x": x}
    before = psutil.Process().memory_info().rss
    # Compiling needs memory of its own, all of it before the first step; so the second step is measured separately.
    tier.train_on_batch(inputs, x, sample_weight=np.ones(batch, "float32"))
    started, peak = time.perf_counter(), _Peak()
    tier.train_on_batch(inputs, x, sample_weight=np.ones(batch, "float32"))
    seconds, step = time.perf_counter() - started, peak.stop()
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            {
                "peak": whole / 2**20,
                "training": (step - before) / 2**20,
                "expected": cost(tier, batch, frames).peak / 2**20,
                "seconds": seconds,
            }
        )
    )


class _Peak:
    """The peak memory of this process in bytes until :meth:`stop`."""

    def __init__(self) -> None:
        self._stopped, self._process, self._peak = threading.Event(), psutil.Process(), 0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped.wait(0.005):
            self._peak = max(self._peak, self._process.memory_info().rss)

    def stop(self) -> int:
        self._stopped.set()
        self._thread.join()
        return self._peak


if __name__ == "__main__":
    main()
