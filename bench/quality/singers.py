"""Two singers: samples for each are nearer to that singer's test recordings than to the other's.

    python -m bench.quality.singers --corpus FOLDER [--work FOLDER]

FOLDER holds a folder of recordings for each singer. Trains the default model with model.condition_on: singer, some ten
minutes on two cores. Writes bench/quality/singers.json.
"""

import argparse
import json
from pathlib import Path

from bench.common import ROOT, Claim, report
from bench.quality.workspace import Workspace

RESULTS = ROOT / "bench/quality/singers.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with a folder of recordings for each singer")
    parser.add_argument("--work", type=Path, default=Path("singers"), help="where the model is made, and kept")
    arguments = parser.parse_args()
    changes = {"corpus": {"path": str(arguments.corpus.absolute())}, "model": {"condition_on": "singer"}}
    workspace = Workspace(arguments.work, "params.yaml", changes)
    workspace.finish()
    distances: dict[str, dict[str, float]] = workspace.metrics("generate")["frechet_by_singer"]
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


if __name__ == "__main__":
    main()
