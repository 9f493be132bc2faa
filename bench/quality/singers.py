"""Singers: samples for each are nearer to that singer's held-out recordings than to any other's.

    python -m bench.quality.singers --corpus FOLDER [--work FOLDER]

FOLDER holds a folder of recordings for each singer. Trains the default model with model.condition_on: singer, about
fifteen minutes on two cores. The distance is the one in metrics/generate.json, here to the validation and test splits
together, since in a small corpus a singer may have no block in one of them. It is measured at several temperatures and
claimed at the lowest: a model trained on minutes of a singer has wide distributions, and at temperature 1 its samples
are noisier than any recording. Writes bench/quality/singers.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import ROOT, Claim, report
from bench.quality.workspace import Workspace
from melnet.comparison import frechet_by_singer, recorded_statistics
from melnet.data.shards import Shards
from melnet.singing import load

RESULTS = ROOT / "bench/quality/singers.json"
TEMPERATURES = (0.8, 0.9, 1.0)
COUNT = 32  # samples for each singer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with a folder of recordings for each singer")
    parser.add_argument(
        "--work", type=Path, default=Path("singers"), help="folder in which the model is made and stays"
    )
    arguments = parser.parse_args()
    changes: dict[str, dict[str, Any]] = {
        "corpus": {"path": str(arguments.corpus.absolute())},
        "model": {"condition_on": "singer"},
        # A tenth of two minutes, in blocks of 20 s, would be a single passage, too little to stand for a singer.
        "slice": {"block_seconds": 5.0, "test": 0.2},
        "generate": {"temperature": TEMPERATURES[0]},
    }
    workspace = Workspace(arguments.work, "params.yaml", changes)
    workspace.finish()
    distances = {str(temperature): measured(workspace, temperature) for temperature in TEMPERATURES}
    content = {"nll": workspace.metrics("evaluate")["nll"], "frechet_by_singer_at_temperature": distances}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    report(
        *(
            Claim.at_most(
                1.0,
                f"Fréchet distance of samples for {sung} from own recordings, against the nearest other's",
                [heard[sung] / min(distance for name, distance in heard.items() if name != sung)],
                "x",
            )
            for sung, heard in distances[str(TEMPERATURES[0])].items()
        )
    )


def measured(workspace: Workspace, temperature: float) -> dict[str, dict[str, float]]:
    """Distance of the samples for each singer from the held-out recordings of each singer."""
    model = load(workspace.folder / "models", warm_up=False)
    config = model.config
    splits = (Shards(workspace.folder / "data/shards" / split) for split in ("valid", "test"))
    _, recorded = recorded_statistics(config, *splits)
    settings = workspace.params.generate
    singers = np.repeat(np.arange(len(config.singers)), COUNT)
    sampled = model.sample(
        settings.frames,
        count=len(singers),
        temperature=temperature,
        seed=settings.seed,
        singer=[config.singers[singer_id] for singer_id in singers],
    )
    return frechet_by_singer(config.singers, config.normalisation.normalise(sampled), singers, recorded)


if __name__ == "__main__":
    main()
