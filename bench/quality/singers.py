"""Singers: samples for each are nearer to that singer's held-out recordings than to any other's.

    python -m bench.quality.singers --corpus FOLDER [--work FOLDER]

FOLDER holds a folder of recordings for each singer. Trains the default model with model.condition_on: singer, some
twenty minutes on two cores. The distance is that of metrics/generate.json, here to the validation and test splits
together: in a small corpus a singer may have no block in one of them. Writes bench/quality/singers.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from bench.common import ROOT, Claim, report
from bench.quality.workspace import Workspace
from melnet.dataset import batches
from melnet.metrics import FrameStatistics, frame_statistics, frechet_distance
from melnet.saved import load_description
from melnet.shards import Shards

RESULTS = ROOT / "bench/quality/singers.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with a folder of recordings for each singer")
    parser.add_argument("--work", type=Path, default=Path("singers"), help="where the model is made, and kept")
    arguments = parser.parse_args()
    changes = {
        "corpus": {"path": str(arguments.corpus.absolute())},
        "model": {"condition_on": "singer"},
        # Of two minutes of a singer, a tenth in blocks of 20 s would be one passage, which is like no other.
        "slice": {"block_seconds": 5.0, "test": 0.2},
    }
    workspace = Workspace(arguments.work, "params/three-tiers.yaml", changes)
    workspace.finish()
    distances = measured(workspace)
    content = {"nll": workspace.metrics("evaluate")["nll"], "frechet_by_singer": distances}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    report(
        *(
            Claim.at_most(
                1.0,
                f"Fréchet distance of samples for {sung} from own recordings, against the nearest other's",
                [heard[sung] / min(distance for name, distance in heard.items() if name != sung)],
                "x",
            )
            for sung, heard in distances.items()
        )
    )


def measured(workspace: Workspace) -> dict[str, dict[str, float]]:
    """Distance of the samples for each singer from the held-out recordings of each."""
    description = load_description(workspace.folder / "models")
    recorded: dict[str, FrameStatistics] = {}
    for split in ("valid", "test"):
        shards = Shards(workspace.folder / "data/shards" / split)
        for batch in batches(shards, description.normalisation, 512, description.singers):
            for place in np.unique(batch.singers[batch.weights > 0]).tolist():
                statistics = recorded.setdefault(description.singers[place], FrameStatistics(description.mel.n_mels))
                statistics.update(batch.x[(batch.weights > 0) & (batch.singers == place)])
    table = pq.read_table(workspace.folder / "samples/spectrograms.parquet")
    sung_by = np.array(table["singer"].to_pylist())
    mels = np.array(table["mel"].to_pylist(), np.float32).reshape(len(sung_by), -1, description.mel.n_mels)
    sampled = description.normalisation.normalise(mels)
    return {
        str(singer): {
            name: frechet_distance(frame_statistics(sampled[sung_by == singer]), statistics.gaussian())
            for name, statistics in sorted(recorded.items())
        }
        for singer in np.unique(sung_by)
    }


if __name__ == "__main__":
    main()
