"""Priming: what follows a recording is more like its true continuation than like another second of singing.

    python -m bench.quality.priming [--work FOLDER] [--corpus FOLDER]

Uses the model of a finished run (of the project's folder, unless --work names another). Primes it with the first
seconds of ten recordings that it never heard: new songs of the built-in voice, made with other seeds, or, with
--corpus, recordings of a folder that the model was not trained on. For each, the continuations' mean log-mel distance
to the true next second is compared with that to a second of another of the ten. Writes bench/quality/priming.json.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from bench.common import ROOT, Claim, report
from melnet.audio import convert, inspect, read_mono, write_wav
from melnet.sampling import Sampler
from melnet.saved import Description, load
from melnet.spectrogram import log_mel
from melnet.voice import song

RESULTS = ROOT / "bench/quality/priming.json"
RECORDINGS, SAMPLES, PRIME_SECONDS, SEED = 10, 16, 4.0, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT, help="folder of a finished run")
    parser.add_argument("--corpus", type=Path, help="recordings that the model was not trained on")
    arguments = parser.parse_args()
    description, tiers = load(arguments.work / "models")
    mels = held_out(description, arguments.corpus)
    rate = description.sample_rate / description.mel.hop_length
    known, second = round(PRIME_SECONDS * rate), round(rate)
    normalisation = description.normalisation
    bounds = [normalisation.normalise(limit) for limit in (normalisation.low, normalisation.high)]
    sampler = Sampler(tiers, *bounds)
    rng = np.random.default_rng(SEED)
    rows = []
    for index, (name, mel) in enumerate(mels):
        sampled = sampler.sample(SAMPLES, second, seed=index, prime=normalisation.normalise(mel[:known]))
        continuations = normalisation.denormalise(sampled)
        other = mels[(index + int(rng.integers(1, len(mels)))) % len(mels)][1]
        start = int(rng.integers(len(other) - second))
        distances = [
            float(np.abs(continuations - truth).mean())
            for truth in (mel[known : known + second], other[start : start + second])
        ]
        rows.append({"recording": name, "to_the_true_second": distances[0], "to_another_second": distances[1]})
        print(f"{name}: {distances[0]:.3f} nats to the true second, {distances[1]:.3f} to another")
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    nearer = sum(row["to_the_true_second"] < row["to_another_second"] for row in rows)
    report(Claim.at_least(8, f"primes of {len(rows)} whose continuation is nearer to the true one", [nearer], ""))


def held_out(description: Description, corpus: Path | None) -> list[tuple[str, np.ndarray]]:
    """Names and log-mel spectrograms of ten recordings, long enough for a prime and a second."""
    found: list[tuple[str, np.ndarray]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in sorted(corpus.rglob("*.*")) if corpus else songs(folder):
            if len(found) < RECORDINGS and path.suffix in (".wav", ".flac"):
                convert(inspect(path), folder / "clean.flac", description.sample_rate)
                signal = read_mono(folder / "clean.flac")
                if len(signal) > (PRIME_SECONDS + 1.2) * description.sample_rate:
                    found.append((path.stem, log_mel(signal, description.mel, description.sample_rate)))
    return found


def songs(folder: Path) -> list[Path]:
    """New songs of the built-in voice."""
    paths = []
    for number in range(RECORDINGS):
        paths.append(folder / f"new-song-{number}.wav")
        rng = np.random.default_rng([SEED + 1000, number])
        write_wav(paths[-1], np.concatenate(list(song(rng, 12.0, 48000))), 48000)
    return paths


if __name__ == "__main__":
    main()
