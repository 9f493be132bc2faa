"""Samples: how well classifiers tell them from held-out recordings, and what their voice is like.

    python -m bench.quality.samples --corpus FOLDER [--params FILE] [--seeds 1 2 3] [--epochs N] [--work FOLDER]

Runs all stages up to `generate` on a corpus, once per seed; whole recordings are held out. --epochs replaces
train.epochs, and the learning rate is halved as often as before. Writes bench/quality/samples-NAME.json: the metrics
(docs/formats.md), mean, least and largest over the seeds, the settings and the seconds of training.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from bench.common import ROOT
from bench.quality.vocoder import WHOLE_RECORDINGS, summary
from bench.quality.workspace import Workspace
from stages.parameters import load_params
from stages.report_page.versions import flat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of recordings")
    parser.add_argument("--params", default="params.yaml", help="parameter file of the project")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, help="instead of train.epochs")
    parser.add_argument("--work", type=Path, default=Path("samples-work"), help="folder in which the models are made")
    parser.add_argument("--name", help="of the results; the corpus' name if left out")
    arguments = parser.parse_args()
    runs = [run(arguments, seed) for seed in arguments.seeds]
    content = {
        "seeds": arguments.seeds,
        "params": arguments.params,
        "train": runs[0][2],
        "seconds": [round(seconds) for _, seconds, _ in runs],
        "metrics": summary([metrics for metrics, _, _ in runs]),
    }
    path = ROOT / f"bench/quality/samples-{arguments.name or arguments.corpus.name}.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for name, figure in content["metrics"].items():
        print(f"{name}: {figure['mean']:.4g} ({figure['least']:.4g} to {figure['largest']:.4g})")


def run(arguments: argparse.Namespace, seed: int) -> tuple[dict[str, float], float, dict[str, Any]]:
    """Metrics of the test split by their flat names, the seconds of training, and its settings."""
    train: dict[str, Any] = {"seed": seed}
    if arguments.epochs:
        before = load_params(ROOT / arguments.params).train
        halvings = before.epochs / before.lr_halving_epochs
        train |= {"epochs": arguments.epochs, "lr_halving_epochs": max(1, round(arguments.epochs / halvings))}
    changes: dict[str, dict[str, Any]] = {
        "corpus": {"path": str(arguments.corpus.absolute())},
        "slice": {"block_seconds": WHOLE_RECORDINGS, "test": 0.2},
        "train": train,
        "generate": {"seed": seed},
    }
    workspace = Workspace(arguments.work / f"seed-{seed}", arguments.params, changes)
    workspace.prepare()
    workspace.run("model", made="models/melnet.json")
    started = time.monotonic()
    for tier in workspace.params.model.tier_names:
        workspace.run("train", tier, made=f"metrics/train/{tier}.json")
    seconds = time.monotonic() - started
    workspace.finish()
    metrics = flat(workspace.metrics("evaluate") | workspace.metrics("generate"))
    return {name: float(value) for name, value in metrics.items()}, seconds, workspace.params.train.model_dump()


if __name__ == "__main__":
    main()
