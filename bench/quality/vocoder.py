"""Vocoder: copy synthesis of held-out recordings, beside Griffin-Lim and the recordings themselves.

    python -m bench.quality.vocoder --corpus FOLDER [--seeds 1 2 3] [--budget 3] [--work FOLDER] [--name NAME]

Runs the stages up to `vocoder` on a corpus, once per seed; --budget multiplies the steps of its training. Metrics are
those of metrics/vocoder.json on the test split (docs/formats.md), which holds whole recordings here, none of which is
trained on. Writes bench/quality/vocoder-NAME.json, mean and spread over the seeds and the seconds that the stage took,
and prints the table of the README, which has all results in bench/quality.
"""

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

from bench.common import ROOT
from bench.quality.results import HELD_OUT, summary
from bench.quality.results import table as results_table
from bench.quality.workspace import Workspace
from stages.parameters import load_params

ROWS = {
    "voicing_accuracy": ("frames rightly voiced or not", 3),
    "pitch_accuracy": ("pitch within 50 cents, of voiced frames", 3),
    "octave_errors": ("octave errors", 3),
    "stft_distance": ("multi-resolution STFT distance, nats", 2),
    "full_band_error": ("error of 80 bands from 0 Hz, nats", 2),
    "mel_cepstral_distortion": ("mel-cepstral distortion, dB", 1),
    "harmonics_to_noise": ("harmonics-to-noise ratio, dB", 1),
    "harmonics_to_noise_recorded": ("that of the recordings, dB", 1),
    "log_mel_error": ("error of the model's own bands, nats", 2),
}


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
    print(table())


def table() -> str:
    """Markdown: a row per metric; a column per result, and one for Griffin-Lim on each corpus."""
    results = {
        path.stem.removeprefix("vocoder-"): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "bench/quality").glob("vocoder-*.json"))
    }
    columns = {
        f"{name}, {side}": result["test"][side]
        for name, result in results.items()
        for side in ("griffin-lim", "vocoder")
        if side == "vocoder" or not re.search(r"-\d+x$", name)
    }
    took = ", ".join(f"{name} {min(result['seconds'])} s" for name, result in results.items())
    after = f"Mean (least to largest of the seeds). The quickest run of the stage: {took}."
    return f"{results_table(columns, ROWS)}\n\n{after}"


def run(arguments: argparse.Namespace, seed: int) -> tuple[dict[str, dict[str, float]], float]:
    """Metrics of the test split, and the seconds that the stage took."""
    changes: dict[str, dict[str, Any]] = {
        "corpus": {"path": str(arguments.corpus.absolute())},
        "downsample": {"max_pause_seconds": None},  # whole recordings are copied, as they are
        "slice": HELD_OUT,
        "vocoder": {"seed": seed},
    }
    settings = load_params(ROOT / "params.yaml").vocoder
    changes["vocoder"] |= {
        name: arguments.budget * getattr(settings, name) for name in ("pitch_steps", "envelope_steps")
    }
    workspace = Workspace(arguments.work / f"seed-{seed}", "params.yaml", changes)
    workspace.prepare()
    took = workspace.folder / "seconds.txt"  # so that a seed that is done need not be run again
    if not took.exists():
        started = time.monotonic()
        workspace.run("vocoder", made="metrics/vocoder.json")
        took.write_text(str(time.monotonic() - started), encoding="utf-8")
    return workspace.metrics("vocoder")["test"], float(took.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
