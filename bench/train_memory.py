"""Memory of training: peak resident memory of a step, and which of the paper's tiers fit into 24 GiB.

Starting from the reference tier (4 layers, hidden 64, batch 16 of 50 x 32), one size at a time is doubled, with gates
stored and with gates recomputed (``train.recompute``). The peak is that of the whole process, with TensorFlow and the
compiler, as `python -m stages.train --describe` shows it. The first of the paper's tiers (params/blizzard.yaml: hidden
512) is trained for two steps with batch 1; for the others the largest batch is computed (melnet/training/cost.py).
"""

import json
import statistics
from concurrent.futures import ThreadPoolExecutor

from bench.common import ROOT, Claim, python, report
from stages.parameters import load_params
from stages.train import model_costs

LIMIT = 24 * 2**30
REFERENCE = {"bands": 32, "frames": 50, "layers": 4, "hidden": 64, "batch": 16, "recompute": False}
SIZES = {
    "reference": {},
    "frames x 2": {"frames": 100},
    "bands x 2": {"bands": 64},
    "layers x 2": {"layers": 8},
    "hidden x 2": {"hidden": 128},
}
RECOMPUTED = ("reference", "frames x 2")
BLIZZARD = ROOT / "params/blizzard.yaml"


def main() -> None:
    with ThreadPoolExecutor(2) as pool:  # most of the time is spent on compiling, which uses one core
        running = {name: pool.submit(step, **change) for name, change in SIZES.items()}
        recomputing = {name: pool.submit(step, **SIZES[name], recompute=True) for name in RECOMPUTED}
    kept = {name: future.result() for name, future in running.items()}
    again = {name: future.result() for name, future in recomputing.items()}
    for name, found in [*kept.items(), *((f"{name}, recomputed", found) for name, found in again.items())]:
        print(
            f"{name}: peak {found['peak']:.0f} MiB, {found['seconds']:.2f} s per step; expected {found['expected']:.0f}"
        )
    paper = paper_tier()
    print(f"the paper's first tier, batch 1, recomputed: peak {paper['peak'] / 1024:.1f} GiB, {paper['seconds']:.0f} s")
    fits()
    ratios = [found["peak"] / found["expected"] for found in (*kept.values(), *again.values(), paper)]
    report(
        Claim.at_most(
            0.9,
            "memory of training with train.recompute, against without",
            [found["peak"] / kept[name]["peak"] for name, found in again.items()],
            "x",
        ),
        Claim.at_most(1.25, "training memory, largest measured against --describe", [max(ratios)], "x"),
        Claim.at_least(0.75, "training memory, smallest measured against --describe", [min(ratios)], "x"),
        Claim.at_most(
            1.5,
            "training step with train.recompute, time against without",
            [statistics.median(again[name]["seconds"] / kept[name]["seconds"] for name in again)],
            "x",
        ),
        Claim.at_most(24, "memory of the paper's first tier, batch 1, recomputed", [paper["peak"] / 1024], "GiB"),
    )


def step(**change: object) -> dict[str, float]:
    found: dict[str, float] = json.loads(
        python("-m", "bench._memory_of_a_step", json.dumps(REFERENCE | change), cwd=ROOT).splitlines()[-1]
    )
    return found


def paper_tier() -> dict[str, float]:
    shape = model_costs(load_params(BLIZZARD))["tier-1"].shape
    settings = load_params(BLIZZARD).model.tiers["tier-1"]
    return step(
        bands=shape.bands,
        frames=shape.frames,
        layers=settings.layers,
        hidden=settings.hidden,
        batch=1,
        recompute=True,
    )


def fits() -> None:
    """Print the largest computed batch within the limit, for each of the paper's tiers."""
    params = load_params(BLIZZARD)
    for recompute in (False, True):
        fitting: dict[str, int] = {}
        for batch in (1, 2, 4, 8, 16, 32):
            train = params.train.model_copy(update={"recompute": recompute, "batch_size": batch})
            for name, cost in model_costs(params.model_copy(update={"train": train})).items():
                fitting[name] = max(fitting.get(name, 0), batch if cost.peak <= LIMIT else 0)
        said = ", ".join(f"{name} {f'batch {batch}' if batch else 'none'}" for name, batch in fitting.items())
        print(f"largest batch in 24 GiB, computed, gates {'recomputed' if recompute else 'stored'}: {said}")


if __name__ == "__main__":
    main()
