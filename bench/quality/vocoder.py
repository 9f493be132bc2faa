"""Vocoder: copy synthesis of held-out recordings, beside Griffin-Lim and the recordings themselves.

    python -m bench.quality.vocoder --corpus FOLDER [--seeds 1 2 3] [--budget 3] [--work FOLDER] [--name NAME]

Runs the stages up to `vocoder` on a corpus, once per seed; --budget multiplies the steps of its training. Metrics are
those of metrics/vocoder.json on the test split (docs/formats.md), which holds whole recordings here, none of which is
trained on. Writes bench/quality/vocoder-NAME.json: mean and spread over the seeds, and the seconds that training took.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from bench.common import ROOT
from bench.quality.workspace import Workspace
from stages.parameters import load_params

WHOLE_RECORDINGS = 3600.0  # s; longer than any recording, so that each is one block


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of recordings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--budget", type=int, default=1, help="factor of vocoder.pitch_steps and vocoder.envelope_steps"
    )
    parser.add_argument("--work", type=Path, default=Path("vocoder"), help="folder in which the vocoders are made")
    parser.add_argument("--name", help="of the results; the corpus' name if left out")
    arguments = parser.parse_args()
    runs = [run(arguments, seed) for seed in arguments.seeds]
    factor = "" if arguments.budget == 1 else f"-{arguments.budget}x"
    results = ROOT / f"bench/quality/vocoder-{arguments.name or arguments.corpus.name}{factor}.json"
    content = {
        "seeds": arguments.seeds,
        "seconds": [round(seconds) for _, seconds in runs],
        "test": {name: summary([metrics[name] for metrics, _ in runs]) for name in ("vocoder", "griffin-lim")},
    }
    results.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(content, indent=2))


def run(arguments: argparse.Namespace, seed: int) -> tuple[dict[str, dict[str, float]], float]:
    """Metrics of the test split, and the seconds that the stage took."""
    changes: dict[str, dict[str, Any]] = {
        "corpus": {"path": str(arguments.corpus.absolute())},
        "slice": {"block_seconds": WHOLE_RECORDINGS, "test": 0.2},
        "vocoder": {"seed": seed},
    }
    settings = load_params(ROOT / "params.yaml").vocoder
    changes["vocoder"] |= {
        name: arguments.budget * getattr(settings, name) for name in ("pitch_steps", "envelope_steps")
    }
    workspace = Workspace(arguments.work / f"seed-{seed}", "params.yaml", changes)
    workspace.prepare()
    started = time.monotonic()
    workspace.run("vocoder", made="metrics/vocoder.json")
    return workspace.metrics("vocoder")["test"], time.monotonic() - started


def summary(runs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean, least and largest value of each metric over the seeds."""
    return {
        name: {
            "mean": statistics.fmean(run[name] for run in runs),
            "least": min(run[name] for run in runs),
            "largest": max(run[name] for run in runs),
        }
        for name in runs[0]
    }


if __name__ == "__main__":
    main()
