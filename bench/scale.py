"""The cost of each stage per hour of audio: seconds, memory and bytes at 1 to 100 hours, extrapolated to 10,000.

    python -m bench.scale [--hours 1 10 30 100] [--work FOLDER]

The corpus consists of 48 kHz recordings of five minutes, no two alike. They have just been written, so that many are
read from the page cache, which makes `downsample` look faster than on a slow disk. Every stage runs as a new process at
its default settings. Only `train` does not run in full, since an epoch at 100 hours takes hours: the data set is
verified and an epoch of batches is read and shuffled, but only the first steps are taken, and their time is multiplied.
`evaluate` scores the test split with untrained weights, which takes as long as with trained ones. `dvc commit` is the
time that DVC adds: hashes, and copies of the files that its cache lacks. The memory is that of a stage and its
children; pages that they share count once.

The extrapolation is the line through the last two sizes. It takes minutes for 10 hours, an hour and 90 GB of disk
for 100; `make bench` does not run it. Writes bench/scale.json.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from bench.all import machine, versions
from bench.common import ROOT, Claim, peak_memory, python, report, seconds
from bench.quality.workspace import Workspace
from stages.demo_voice.voice import song

RESULTS = ROOT / "bench/scale.json"
RATE, FILE_MINUTES, FILES_PER_HOUR = 48000, 5, 12
ARCHIVE = 10_000  # hours
STEP = "seconds per step"
OUTPUTS = {"downsample": "data/24k", "slice": "data/shards"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=int, nargs="+", default=[1, 10, 30, 100], help="sizes of corpora, growing")
    parser.add_argument("--work", type=Path, help="folder for all files, on one file system (default: a temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.work) as name:
        folder = Path(name)
        found = {hours: corpus(folder / str(hours), hours) for hours in arguments.hours}
    stages = {stage: {hours: found[hours][stage] for hours in found} for stage in found[arguments.hours[0]]}
    content = {
        "machine": machine(),
        "versions": versions(),
        "stages": stages,
        "archive": {"hours": ARCHIVE} | {stage: extrapolated(found) for stage, found in stages.items()},
    }
    RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    report(*(claim for stage, found in stages.items() for claim in linear(stage, found)))


def table(results: dict[str, Any]) -> str:
    """Markdown for docs/distributed.md: a row per stage."""
    hours = results["archive"]["hours"]
    last = max(results["stages"]["slice"], key=int)
    lines = [
        f"| stage | seconds per further hour | output per hour | {hours:,} hours | memory at {last} hours |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for stage, found in results["stages"].items():
        *_, before, last = found
        further = (found[last]["seconds"] - found[before]["seconds"]) / (int(last) - int(before))
        output = f"{found[last]['MB of output'] / int(last):.0f} MB" if "MB of output" in found[last] else ""
        then = results["archive"][stage]
        lines.append(
            f"| `{stage}` | {further:.2g} | {output} | {then['seconds'] / 3600:.3g} h | "
            f"{found[last]['MB of memory'] / 1000:.2g} GB |"
        )
    return "\n".join(
        [*lines, "", f"Measured on {results['machine']['cores']} cores of {results['machine']['processor']}."]
    )


def linear(stage: str, found: dict[int, dict[str, float]]) -> list[Claim]:
    """Claims that a further hour costs as much time in a large corpus as in a small one, and almost no memory."""
    *_, before, last = found
    name = f"{stage}, {last} h against {before} h"
    per_hour = [found[hours]["seconds"] / hours for hours in (before, last)]
    memory = found[last]["MB of memory"] - found[before]["MB of memory"]
    return [
        Claim.at_most(1.2, f"{name}: seconds per hour of audio", [per_hour[1] / per_hour[0]], "×"),
        Claim.at_most(2.0, f"{name}: memory per further hour", [memory / (last - before)], "MB"),
    ]


def extrapolated(found: dict[int, dict[str, float]]) -> dict[str, float]:
    """Extrapolate the line through the last two sizes to the size of the archive."""
    *_, before, last = found
    return {
        name: found[last][name] + (found[last][name] - found[before][name]) / (last - before) * (ARCHIVE - last)
        for name in found[last]
        if name != STEP
    }


def write_recordings(folder: Path, hours: int) -> None:
    """Write hours of singing; each file is a different mixture of two voices, from different samples on."""
    voices = [np.concatenate(list(song(np.random.default_rng(seed), 60, RATE)))[: 60 * RATE] for seed in (1, 2)]
    count = hours * FILES_PER_HOUR
    for number in range(count):
        sung = (number * voices[0] + (count - number) * voices[1]) / count
        path = folder / f"{number // FILES_PER_HOUR}/{number % FILES_PER_HOUR}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as sound:
            for minute in range(FILE_MINUTES):
                sound.write(np.roll(sung, 104729 * (minute + number)))


def corpus(folder: Path, hours: int) -> dict[str, dict[str, float]]:
    """Run the stages on a corpus of ``hours``; return the seconds and the memory of each stage."""
    write_recordings(folder / "corpus", hours)
    workspace = Workspace(folder, "params.yaml", {"corpus": {"path": "corpus"}})
    python("-m", "dvc", "init", "--no-scm", "--quiet", cwd=folder)
    found = {}
    for stage, output in OUTPUTS.items():
        found[stage] = measured(hours, stage, "-m", f"stages.{stage}", cwd=folder)
        found[stage]["MB of output"] = size(folder / output)
    commit = ("-m", "dvc", "commit", "--force", "--quiet", *OUTPUTS)
    found["dvc commit"] = measured(hours, "dvc commit", *commit, cwd=folder)
    shutil.rmtree(folder / ".dvc/cache")
    shutil.rmtree(folder / "data/24k")
    workspace.run("model", made="models/melnet.json")
    training = measured(hours, "train", "-m", "bench._epoch", cwd=folder)
    epoch = json.loads((folder / "epoch.json").read_text(encoding="utf-8"))
    training["seconds"] += epoch[STEP] * epoch["steps not taken"]
    found["train, one epoch"] = training | {STEP: epoch[STEP]}
    found["evaluate"] = measured(hours, "evaluate", "-m", "stages.evaluate", cwd=folder)
    shutil.rmtree(folder)
    return found


def measured(hours: int, name: str, *arguments: str, cwd: Path) -> dict[str, float]:
    """Run this Python in a new process; return its seconds and its memory."""
    memory: list[float] = []
    took = seconds(lambda: memory.append(peak_memory(*arguments, cwd=cwd, interval=0.2)))
    print(f"{hours} h, {name}: {took:.1f} s, {memory[0]:.0f} MB of memory", flush=True)
    return {"seconds": took, "MB of memory": memory[0]}


def size(folder: Path) -> float:
    """MB of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    main()
