"""One tier against three tiers, on the same recordings, with equal work per step and equally many steps.

    python -m bench.quality.tiers --corpus FOLDER [--work FOLDER]

Trains params/three-tiers.yaml, and one tier of 4 layers on the same 64 frames x 64 bands, whose step takes about as
many operations as the three tiers' together. About half an hour each on two cores. Writes bench/quality/tiers.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from bench.common import ROOT
from bench.quality.workspace import Workspace
from stages.train import model_costs

RESULTS = ROOT / "bench/quality/tiers.json"
BASE = "params/three-tiers.yaml"
ONE = {"tier-1": {"layers": 4, "hidden": 64}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of recordings")
    parser.add_argument(
        "--work", type=Path, default=Path("tiers"), help="folder in which the two models are made and stay"
    )
    arguments = parser.parse_args()
    corpus = {"corpus": {"path": str(arguments.corpus.absolute())}}
    results = {
        "corpus": arguments.corpus.name,
        "one tier": measured(Workspace(arguments.work / "one", BASE, corpus | {"model": {"tiers": ONE}})),
        "three tiers": measured(Workspace(arguments.work / "three", BASE, corpus)),
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(table(results))


def measured(workspace: Workspace) -> dict[str, Any]:
    """Train, evaluate and generate; return the figures."""
    workspace.finish()
    evaluated, generated = workspace.metrics("evaluate"), workspace.metrics("generate")
    params = workspace.params
    work = sum(cost.flop for cost in model_costs(params).values())
    return {
        "epochs": params.train.epochs,
        "gigaflop_per_step": round(work / 1e9),
        **{name: evaluated[name] for name in ("nll", "baseline_band_nll", "baseline_previous_frame_nll", "tiers")},
        **{name: generated[name] for name in ("frechet", "frechet_train", "frechet_band_baseline")},
    }


def table(results: dict[str, Any]) -> str:
    """A table in Markdown for the README."""
    rows = [
        ("epochs", "epochs"),
        ("work per step, GFLOP", "gigaflop_per_step"),
        ("test nll, nats per element", "nll"),
        ("band mixture", "baseline_band_nll"),
        ("previous frame", "baseline_previous_frame_nll"),
        ("Fréchet distance of samples", "frechet"),
        ("of the train split", "frechet_train"),
        ("of the band mixture", "frechet_band_baseline"),
    ]
    lines = [f"| {results['corpus']} | one tier | three tiers |", "| --- | ---: | ---: |"]
    for label, name in rows:
        lines.append(f"| {label} | {results['one tier'][name]:.3g} | {results['three tiers'][name]:.3g} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
