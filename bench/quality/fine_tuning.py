"""Fine-tuning: a model of one half of the recordings is a better start for the other half than random weights.

    python -m bench.quality.fine_tuning --corpus FOLDER [--seeds 1 2 3] [--epochs N] [--work FOLDER]

Trains on every second recording, then on the others: once from random weights, and once from the first model
(train.initial_model) for half as many epochs, in which the learning rate is halved as often. Counts the steps until the
training from a model reaches the lowest validation loss of the one from random weights. Three trainings per seed.
Writes bench/quality/fine-tuning-CORPUS.json.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from bench.common import ROOT, Claim, report
from bench.quality.workspace import Workspace
from stages.corpus.files import named_audio
from stages.parameters import load_params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of recordings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=load_params(ROOT / "params.yaml").train.epochs)
    parser.add_argument("--work", type=Path, default=Path("fine-tuning"), help="folder in which the models are made")
    arguments = parser.parse_args()
    halves = [arguments.work / "recordings" / half for half in ("first", "second")]
    for number, path in enumerate(sorted(filter(named_audio, arguments.corpus.rglob("*")))):
        copy = halves[number % 2] / path.relative_to(arguments.corpus)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists():
            shutil.copy(path, copy)
    runs = [run(arguments, halves, seed) for seed in arguments.seeds]
    content = {"epochs": arguments.epochs, "seeds": arguments.seeds, "runs": runs}
    path = ROOT / f"bench/quality/fine-tuning-{arguments.corpus.name}.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    shares = [found["epochs_needed"] / found["epochs_from_random_weights"] for found in runs]
    report(Claim.at_most(0.5, "steps of fine-tuning, by those from random weights to the same loss", shares, "x"))


def run(arguments: argparse.Namespace, halves: list[Path], seed: int) -> dict[str, Any]:
    """Epochs of both trainings on the second half, and their lowest validation losses."""
    epochs, models = arguments.epochs, trained(arguments, halves[0], seed, "first").folder.absolute() / "models"
    scratch = losses(trained(arguments, halves[1], seed, "second"))
    tuned = losses(trained(arguments, halves[1], seed, "tuned", epochs=epochs // 2, initial=models))
    reached = [epoch for epoch, loss in enumerate(tuned, start=1) if loss <= min(scratch)]
    return {
        "epochs_from_random_weights": scratch.index(min(scratch)) + 1,
        "epochs_needed": reached[0] if reached else float("inf"),
        "loss_from_random_weights": min(scratch),
        "loss_of_fine_tuning": min(tuned),
    }


def trained(
    arguments: argparse.Namespace,
    corpus: Path,
    seed: int,
    name: str,
    epochs: int | None = None,
    initial: Path | None = None,
) -> Workspace:
    """Train the default model on a corpus, from random weights or from the model in the folder ``initial``."""
    epochs = epochs or arguments.epochs
    train: dict[str, Any] = {"seed": seed, "epochs": epochs, "lr_halving_epochs": max(1, epochs // 4)}
    if initial:
        train["initial_model"] = str(initial)
    changes = {"corpus": {"path": str(corpus.absolute())}, "train": train, "execution": {"preview_every": None}}
    workspace = Workspace(arguments.work / f"{name}-{seed}", "params.yaml", changes)
    workspace.prepare()
    workspace.run("model", made="models/melnet.json")
    workspace.run("train", "tier-1", made="metrics/train/tier-1.json")
    return workspace


def losses(workspace: Workspace) -> list[float]:
    """Validation loss after each epoch."""
    return list(pd.read_csv(workspace.folder / "metrics/history/tier-1.csv")["val_loss"])


if __name__ == "__main__":
    main()
