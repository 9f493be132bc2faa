"""Trials: other settings of the model and its training, at equal time or in equally many steps.

    python -m bench.quality.trials --corpus FOLDER [--minutes 3 | --epochs N] [--seeds 1 2 3] [--only NAME ...]
        [--name NAME] [--work FOLDER]

With --minutes, first times a step of each trial. Then trains each trial, seed after seed, for as many epochs of
100 steps as fit into the minutes, or for --epochs; the learning rate is halved three times in each. Whole recordings
are held out. Each figure is written as soon as it is there, to bench/quality/trials-NAME.json, and a training that is
done is not done again. Without --only all trials are run but those of the look-ahead, which need a corpus with label
files. Prints the table: nats per element of the validation and of the test split, and how well samples are told apart
from recordings (docs/formats.md).
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.common import ENVIRONMENT, ROOT
from bench.quality.results import HELD_OUT, summary
from bench.quality.results import table as results_table
from bench.quality.workspace import Workspace
from stages.parameters import load_params
from stages.report_page.versions import flat

Changes = dict[str, dict[str, Any]]
TRIALS: dict[str, Changes] = {
    "default": {},
    "batch 2": {"train": {"batch_size": 2}},
    "batch 8": {"train": {"batch_size": 8}},
    "windows of 25 frames": {"train": {"window_frames": 25, "batch_size": 8}},
    "windows of 100 frames": {"train": {"window_frames": 100, "batch_size": 2}},
    "1 layer of 96": {"model": {"tiers": {"tier-1": {"layers": 1, "hidden": 96}}}},
    "3 layers of 48": {"model": {"tiers": {"tier-1": {"layers": 3, "hidden": 48}}}},
    "4 layers of 64": {"model": {"tiers": {"tier-1": {"layers": 4, "hidden": 64}}}},
    "5 components": {"model": {"num_components": 5}},
    "20 components": {"model": {"num_components": 20}},
    "GRU": {"model": {"cell": "gru"}},
    "averages over 1,000 steps": {"train": {"ema_decay": 0.999}},
    "rate 1.4e-3": {"train": {"learning_rate": 1.4e-3}},
}
TOLD = {"condition_on": ["melody", "phonemes"]}
LOOKAHEADS: dict[str, Changes] = {
    f"lookahead {frames}": {"model": TOLD | {"lookahead": frames}} for frames in (0, 4, 8, 16, 32)
}
"""trials that need a corpus with label files, and are run only if they are named"""
ALL = TRIALS | LOOKAHEADS
STEPS_PER_EPOCH = 100
ROWS = {
    "val_loss": ("nats per element, validation split", 3),
    "nll": ("nats per element, test split", 3),
    "told_apart.windows.mean": ("told apart, windows", 2),
    "told_apart.patches.mean": ("told apart, patches", 2),
    "steps": ("steps", 0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of recordings")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=3.0, help="of each training")
    length.add_argument("--epochs", type=int, help="of each training, of 100 steps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", choices=ALL, default=list(TRIALS), metavar="NAME", help="trials to run")
    parser.add_argument("--name", help="of the results; the corpus' name if left out")
    parser.add_argument(
        "--work", type=Path, default=Path("trials"), help="folder in which the models are made and stay"
    )
    arguments = parser.parse_args()
    results = ROOT / f"bench/quality/trials-{arguments.name or arguments.corpus.name}.json"
    told: Changes = {"model": TOLD} if LOOKAHEADS.keys() & set(arguments.only) else {}
    shared = Workspace(arguments.work / "data", "params.yaml", changes(arguments.corpus, told, seed=1))
    shared.prepare()
    epochs = {name: arguments.epochs or epochs_in(arguments, name) for name in arguments.only}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in arguments.only}
    for seed in arguments.seeds:
        for name in arguments.only:
            runs[name].append(run(arguments, name, seed, epochs[name]))
            content = {
                "minutes": None if arguments.epochs else arguments.minutes,
                "trials": {trial: {"seeds": len(done), **summary(done)} for trial, done in runs.items() if done},
            }
            results.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(results_table({name: summary(done) for name, done in runs.items()}, ROWS))


def changes(corpus: Path, trial: Changes, seed: int, epochs: int = 1) -> Changes:
    """Settings of a training that differ from the default ones."""
    batch_size = trial.get("train", {}).get("batch_size") or load_params(ROOT / "params.yaml").train.batch_size
    train = {
        "epochs": epochs,
        "lr_halving_epochs": max(1, round(epochs / 4)),
        "windows_per_epoch": STEPS_PER_EPOCH * batch_size,
        "seed": seed,
    }
    # The vocoder has no part in these metrics.
    return {
        "corpus": {"path": str(corpus.absolute())},
        "slice": HELD_OUT,
        "model": trial.get("model", {}),
        "train": trial.get("train", {}) | train,
        "generate": {"seed": seed, "inversion": "griffin-lim"},
        "execution": {"preview_every": None},
    }


def workspace(arguments: argparse.Namespace, name: str, seed: int, epochs: int, folder: str) -> Workspace:
    """A folder for one training, on the shards that all trials share."""
    path = arguments.work / name.replace(" ", "-") / folder
    made = Workspace(path, "params.yaml", changes(arguments.corpus, ALL[name], seed, epochs))
    if not (path / "data").exists():
        (path / "data").symlink_to((arguments.work / "data/data").absolute())
    made.run("model", made="models/melnet.json")
    return made


def epochs_in(arguments: argparse.Namespace, name: str) -> int:
    """As many epochs as fit into the minutes, by the time of a step in the second epoch of a training; at least 4."""
    folder = workspace(arguments, name, seed=1, epochs=2, folder="timing").folder
    log = folder / "train.log"
    if not log.exists():
        command = [sys.executable, "-m", "stages.train", "tier-1"]
        done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=True, capture_output=True, text=True)
        log.write_text(done.stdout, encoding="utf-8")
    seconds = float(re.findall(r"([\d.]+) s per step", log.read_text(encoding="utf-8"))[-1])
    return max(4, round(60 * arguments.minutes / seconds / STEPS_PER_EPOCH))


def run(arguments: argparse.Namespace, name: str, seed: int, epochs: int) -> dict[str, float]:
    """Metrics of one training by their flat names."""
    made = workspace(arguments, name, seed, epochs, folder=f"seed-{seed}")
    made.run("train", "tier-1", made="metrics/train/tier-1.json")
    made.run("evaluate", made="metrics/evaluate.json")
    made.run("generate", made="metrics/generate.json")
    metrics = flat(made.metrics("train/tier-1") | made.metrics("evaluate") | made.metrics("generate"))
    steps = metrics["epochs"] * STEPS_PER_EPOCH  # of the training that is there, which may be one of an earlier call
    return {key: float(value) for key, value in metrics.items() if key in ROWS} | {"steps": steps}


if __name__ == "__main__":
    main()
