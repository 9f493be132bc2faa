"""Straying: whether long samples get worse as they go on.

    python -m bench.quality.straying --work FOLDER [--name NAME]

Uses the model of a finished run in FOLDER. Draws 128 samples of 400 frames, and tells each quarter apart from the
recordings of the test split (`told_apart` in docs/formats.md). A model that strays from what it was trained on is told
apart better in later quarters. Writes bench/quality/straying-NAME.json.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from bench.common import ROOT
from melnet.comparison import MAX_FRAMES, PATCH_SECONDS, WINDOW_SECONDS
from melnet.data.dataset import read_stretches
from melnet.data.shards import Shards
from melnet.metrics.told_apart import told_apart
from melnet.singing import load

SAMPLES, FRAMES, QUARTERS, SEED = 128, 400, 4, 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT, help="folder of a finished run")
    parser.add_argument("--name", default="demo", help="of the result")
    arguments = parser.parse_args()
    model = load(arguments.work / "models", warm_up=False)
    normalise, seconds = model.config.normalisation.normalise, model.config.mel.seconds_per_frame
    test = read_stretches(Shards(arguments.work / "data/shards/test"), MAX_FRAMES, seed=SEED)
    sung = normalise(model.sample(FRAMES, count=SAMPLES, seed=SEED))
    length = FRAMES // QUARTERS
    quarters = [
        asdict(
            told_apart(
                list(sung[:, first : first + length]),
                [normalise(passage.log_mel) for passage in test],
                window_frames=round(WINDOW_SECONDS / seconds),
                patch_frames=round(PATCH_SECONDS / seconds),
                seed=SEED,
                groups_b=[passage.recording for passage in test],
            )
        )
        for first in range(0, FRAMES, length)
    ]
    path = ROOT / f"bench/quality/straying-{arguments.name}.json"
    path.write_text(json.dumps({"quarters": quarters}, indent=2) + "\n", encoding="utf-8")
    for number, quarter in enumerate(quarters, start=1):
        print(f"quarter {number}: windows {quarter['windows']['mean']:.2f}, patches {quarter['patches']['mean']:.2f}")


if __name__ == "__main__":
    main()
