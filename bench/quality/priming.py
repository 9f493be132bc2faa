"""Priming: a sampled continuation of a recording is nearer to the true one than to another second of singing.

    python -m bench.quality.priming [--work FOLDER] [--corpus FOLDER]

Uses the model of a finished run, in the project's folder or in that of --work. Primes it with four passages of each of
ten recordings that it was not trained on: new songs of the built-in voice with other seeds or, with --corpus, the
recordings of a folder. Compares the mean log-mel distance of the first second of the continuations to the true second
with the distance to the seconds of the other nine recordings. A single second depends much on chance (a phrase may just
have ended), so the mean over the passages of a recording counts; the share of single passages that are nearer is
printed as well. Writes bench/quality/priming.json.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from bench.common import ROOT, Claim, report
from melnet.audio.convert import convert, inspect
from melnet.audio.files import read_mono, write_wav
from melnet.audio.spectrogram import log_mel
from melnet.prime import Prime
from melnet.saved import ModelConfig
from melnet.singing import load
from stages.demo_voice.voice import song

RESULTS = ROOT / "bench/quality/priming.json"
RECORDINGS, SAMPLES, PRIME_SECONDS, SEED = 10, 16, 4.0, 0
ENDS = (4.0, 6.0, 8.0, 10.0)  # s into a recording


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT, help="folder of a finished run")
    parser.add_argument("--corpus", type=Path, help="recordings that the model was not trained on")
    arguments = parser.parse_args()
    model = load(arguments.work / "models", warm_up=False)
    mels = held_out(model.config, arguments.corpus)
    rate = 1 / model.config.mel.seconds_per_frame
    known, second = round(PRIME_SECONDS * rate), round(rate)
    rows = []
    for index, (name, mel) in enumerate(mels):
        others = [
            other[start : start + second]
            for number, (_, other) in enumerate(mels)
            if number != index
            for start in range(0, len(other) - second, second)
        ]
        distances = []
        for end in (round(seconds * rate) for seconds in ENDS):
            prime = Prime(signal=np.zeros(0, np.float32), log_mel=mel[end - known : end])
            sung = model.sample(second, count=SAMPLES, seed=index, prime=prime)
            to_others = np.mean([np.abs(sung - other).mean() for other in others])
            distances.append((float(np.abs(sung - mel[end : end + second]).mean()), float(to_others)))
        rows.append({"recording": name, "passages": distances})
        print(f"{name}: " + ", ".join(f"{true:.2f} nats ({other:.2f} to others)" for true, other in distances))
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    found = np.array([row["passages"] for row in rows])  # (recordings, passages, 2)
    nearer = (found.mean(axis=1)[:, 0] < found.mean(axis=1)[:, 1]).sum()
    single = (found[..., 0] < found[..., 1]).mean()
    print(f"single passages that are nearer: {single:.0%}")
    report(Claim.at_least(8, f"recordings of {len(rows)} with continuations nearer to the true", [int(nearer)], ""))


def held_out(config: ModelConfig, corpus: Path | None) -> list[tuple[str, np.ndarray]]:
    """Names and log-mel spectrograms of ten recordings, long enough for all passages."""
    found: list[tuple[str, np.ndarray]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in sorted(corpus.rglob("*.*")) if corpus else songs(folder):
            if len(found) < RECORDINGS and path.suffix in (".wav", ".flac"):
                convert(inspect(path), folder / "clean.flac", config.mel.sample_rate)
                signal = read_mono(folder / "clean.flac")
                if len(signal) > (max(ENDS) + 1.2) * config.mel.sample_rate:
                    found.append((path.stem, log_mel(signal, config.mel)))
    return found


def songs(folder: Path) -> list[Path]:
    """New songs of the built-in voice."""
    paths = []
    for number in range(RECORDINGS):
        paths.append(folder / f"new-song-{number}.wav")
        rng = np.random.default_rng([SEED + 1000, number])
        write_wav(paths[-1], np.concatenate(list(song(rng, 14.0, 48000))), 48000)
    return paths


if __name__ == "__main__":
    main()
