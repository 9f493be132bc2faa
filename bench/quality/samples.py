"""Samples: how well classifiers tell them from held-out recordings, and what their voice is like.

    python -m bench.quality.samples --corpus FOLDER [--params FILE] [--seeds 1 2 3] [--epochs N] [--work FOLDER]

Runs all stages up to `generate` on a corpus, once per seed; whole recordings are held out. --epochs replaces
train.epochs, and the learning rate is halved as often as before. Writes bench/quality/samples-NAME.json: the metrics
(docs/formats.md), mean, least and largest over the seeds, the settings and the seconds of training; and prints the
table of the README, which has all results in bench/quality.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from bench.common import ROOT
from bench.quality.results import HELD_OUT, summary
from bench.quality.results import table as results_table
from bench.quality.workspace import Workspace
from stages.parameters import load_params
from stages.report_page.versions import flat

ROWS = {
    "told_apart.windows.mean": ("told apart from recordings: windows of 1 s", 2),
    "told_apart_train.windows.mean": ("train recordings", 2),
    "told_apart_noise.windows.mean": ("noise with the covariances of neighbouring frames", 2),
    "told_apart.patches.mean": ("told apart from recordings: patches of 0.2 s", 2),
    "told_apart_train.patches.mean": ("train recordings", 2),
    "told_apart_noise.patches.mean": ("noise", 2),
    "mmd.value": ("MMD, windows of 1 s", 2),
    "memorised.ratio": ("distance from the train split, by that of test recordings", 2),
    "nll": ("nats per element, test split", 2),
    "nll_train": ("train split", 2),
    "baseline_linear_nll": ("linear baseline", 2),
    "baseline_previous_frame_nll": ("previous frame", 2),
    "voice.voiced_share": ("voiced share", 2),
    "voice_recorded.voiced_share": ("of recordings", 2),
    "voice.jitter_cents": ("jitter of the pitch, cents", 0),
    "voice_recorded.jitter_cents": ("of recordings", 0),
}


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
    print(table())


def table() -> str:
    """Markdown: a row per metric and a column per result."""
    results = {
        path.stem.removeprefix("samples-"): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "bench/quality").glob("samples-*.json"))
    }
    took = "; ".join(
        f"{name} {result['train']['epochs']} epochs in {min(result['seconds']) / 60:.0f} min at least, "
        f"{len(result['seeds'])} seed{'s' if len(result['seeds']) > 1 else ''}"
        for name, result in results.items()
    )
    columns = {name: result["metrics"] for name, result in results.items()}
    return f"{results_table(columns, ROWS)}\n\nMean (least to largest of the seeds). Training: {took}."


def run(arguments: argparse.Namespace, seed: int) -> tuple[dict[str, float], float, dict[str, Any]]:
    """Metrics of the test split by their flat names, the seconds of training, and its settings."""
    train: dict[str, Any] = {"seed": seed}
    if arguments.epochs:
        before = load_params(ROOT / arguments.params).train
        halvings = before.epochs / before.lr_halving_epochs
        train |= {"epochs": arguments.epochs, "lr_halving_epochs": max(1, round(arguments.epochs / halvings))}
    changes: dict[str, dict[str, Any]] = {
        "corpus": {"path": str(arguments.corpus.absolute())},
        "slice": HELD_OUT,
        "train": train,
        "generate": {"seed": seed},
    }
    workspace = Workspace(arguments.work / f"seed-{seed}", arguments.params, changes)
    workspace.prepare()
    workspace.run("model", made="models/melnet.json")
    took = workspace.folder / "training-seconds.txt"  # kept, since a finished training is not run again
    started = time.monotonic()
    for tier in workspace.params.model.tier_names:
        workspace.run("train", tier, made=f"metrics/train/{tier}.json")
    if not took.exists():
        took.write_text(str(time.monotonic() - started), encoding="utf-8")
    workspace.finish()
    metrics = flat(workspace.metrics("evaluate") | workspace.metrics("generate"))
    seconds = float(took.read_text(encoding="utf-8"))
    return {name: float(value) for name, value in metrics.items()}, seconds, workspace.params.train.model_dump()


if __name__ == "__main__":
    main()
