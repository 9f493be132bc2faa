"""Alignment: how far from the truth a model that reads texts without times places the beginnings of symbols.

    python -m bench.quality.alignment [--corpus FOLDER] [--steps 300 600] [--seeds 1 2 3] [--work FOLDER]

Makes the built-in voice of params/text.yaml, or takes a corpus whose recordings have .lab files, and trains the reader
of its first tier as the stage train does. Its texts come without times; the times in the label files are what its
alignment of the test split is compared with. Writes bench/quality/alignment-NAME.json: after each number of steps, mean
and median of the distance of a symbol's beginning from the true one, in frames of the first tier, and the seconds that
they took.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from bench.common import ROOT
from bench.quality.results import summary
from bench.quality.workspace import Workspace
from melnet.backend import compiled
from melnet.data.dataset import TrainingWindows, read_stretches
from melnet.data.frame_conditions import frame_seconds
from melnet.data.labels.htk import read_htk
from melnet.data.shards import Shards
from melnet.data.texts import padded, utterances
from melnet.model.multiscale import frame_rows, target_and_context
from melnet.model.tier import Tier
from melnet.saved import ModelConfig, TierConfig, build_tier, load_config, read_texts
from melnet.training.alignment import learn_to_read
from melnet.training.fit import TrainConfig, TrainingData
from stages.corpus.label_files import cuts_of
from stages.corpus.manifest import read_manifest

PARAMS = "params/text.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="recordings with .lab files; the built-in voice if left out")
    parser.add_argument("--steps", type=int, nargs="+", default=[300, 600])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--work", type=Path, default=Path("alignment-work"), help="folder in which the data are made")
    arguments = parser.parse_args()
    changes: dict[str, dict[str, Any]] = {}
    if arguments.corpus:
        changes = {"corpus": {"path": str(arguments.corpus.absolute())}, "mel": {"fmin": 80.0}}
    workspace = Workspace(arguments.work, PARAMS, changes)
    if not arguments.corpus:
        workspace.run("demo", made="data/demo")
    workspace.prepare()
    workspace.run("model", made="models/melnet.json")
    runs = [run(workspace, seed, arguments.steps) for seed in arguments.seeds]
    name = arguments.corpus.name if arguments.corpus else "demo"
    content = {"seeds": arguments.seeds, "metrics": summary(runs)}
    (ROOT / f"bench/quality/alignment-{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(content["metrics"], indent=2))


def run(workspace: Workspace, seed: int, steps: list[int]) -> dict[str, float]:
    """Train a reader once for each number of steps; its errors and times by metric."""
    folder, params = workspace.folder, workspace.params
    config = load_config(folder / "models")
    texts = read_texts(config, folder / "data/tracks")
    assert texts
    train_split, valid = (Shards(folder / f"data/shards/{split}") for split in ("train", "valid"))
    data = TrainingData(train_split, valid, config.normalisation, config.tier_index("tier-1"), texts=texts)
    train = TrainConfig(**{**params.train.schedule, "seed": seed})
    windows = data.windows(train)
    metrics: dict[str, Any] = {}
    for count in steps:
        size = TierConfig(**params.model.tiers["tier-1"].model_dump())
        tier = build_tier(config, "tier-1", size, seed=seed)
        started = time.monotonic()
        learn_to_read(tier, lambda epoch: data.train_batches(windows, train, epoch), count, train.batch_size)
        metrics[f"{count}_steps.seconds"] = time.monotonic() - started
        errors, constant = boundary_errors(workspace, config, tier, train.window_frames)
        metrics[f"{count}_steps.mean"], metrics[f"{count}_steps.median"] = errors.mean(), np.median(errors)
        metrics["constant_speed.mean"], metrics["constant_speed.median"] = constant.mean(), np.median(constant)
        metrics["symbols"] = len(errors)
        print(seed, count, f"mean {errors.mean():.2f}, median {np.median(errors):.2f} frames", flush=True)
    return {name: float(value) for name, value in metrics.items()}


def boundary_errors(
    workspace: Workspace, config: ModelConfig, tier: Tier, frames: int
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the beginnings of symbols from the true ones, by the tier and at constant speed, in its frames."""
    texts = read_texts(config, workspace.folder / "data/tracks")
    assert texts
    test = Shards(workspace.folder / "data/shards/test")
    symbols = TrainingWindows(test, frames, texts=texts).symbols
    align, step = compiled(tier.alignment, tier.weights), frame_rows(*config.tier_index("tier-1")).step
    rows = {row["path"]: row for row in read_manifest(workspace.folder / "data/24k") if row["status"] == "ok"}
    errors: list[float] = []
    constant: list[float] = []
    for stretch in read_stretches(test, 2**20, seed=0):
        begins = true_beginnings(workspace, config, rows[stretch.recording])
        for frame, text in texts.windows(stretch.recording, stretch.start_frame, len(stretch.log_mel), frames):
            first = frame - stretch.start_frame
            x = config.normalisation.normalise(stretch.log_mel[first : first + frames])
            x, _ = target_and_context(x, *config.tier_index("tier-1"))
            inputs = {"x": x[None], "text": padded([text], symbols)}
            weights = ops.convert_to_numpy(align(inputs))[0]
            position = np.append(weights @ np.arange(symbols), np.inf)
            true = (begins[begins >= frame] - frame) / step
            for at in range(1, min(len(true), len(text))):
                if true[at] < len(x):
                    errors.append(abs(int(np.argmax(position > at - 0.5)) - true[at]))
                    constant.append(abs(at / tier.text_speed - true[at]))
    return np.array(errors), np.array(constant)


def true_beginnings(workspace: Workspace, config: ModelConfig, row: Any) -> np.ndarray:
    """The frames at which the labels of a recording begin, (labels,)."""
    mel = config.mel
    seconds = frame_seconds(round(row["seconds_out"] * mel.sample_rate), mel, cuts_of(row, mel.sample_rate))
    corpus = Path(workspace.params.corpus.path)
    path = (corpus if corpus.is_absolute() else workspace.folder / corpus) / Path(row["path"]).with_suffix(".lab")
    labels = [label for own in utterances(read_htk(path, row["seconds_in"]).labels) for label in own]
    return np.searchsorted(seconds, [label.start for label in labels])


if __name__ == "__main__":
    main()
