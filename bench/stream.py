"""A stream of the default model: its first sound, its speed against the clock and against `sing`, its memory.

    python -m bench.stream [--model FOLDER] [--minutes 10]

Sings with the model of a finished run, models/ by default. The first chunk of a quarter of a second is timed after
loading, which compiles. Speed is seconds of audio in a second of the clock; below 1 a stream runs dry. `sing` makes the
same audio at once, and says what the stream costs. Memory is that of a process of its own, after one minute of audio
and after the last of --minutes.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np

from bench.common import ROOT, Claim, alternate, python, report, seconds
from melnet.singing import load

SECONDS, ROUNDS, CHUNK_SECONDS = 20.0, 5, 0.25
END_SECONDS = 1.0  # of `sing`, which knows that silence follows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the long stream")
    arguments = parser.parse_args()
    model = load(arguments.model)

    def streamed() -> np.ndarray:
        chunks = model.stream(chunk_seconds=CHUNK_SECONDS)
        return np.concatenate(list(itertools.islice(chunks, round(SECONDS / CHUNK_SECONDS))))

    same = round((SECONDS - END_SECONDS) * model.sample_rate)
    sung = model.sing(SECONDS)[0]
    difference = float(np.abs(streamed()[:same] - sung[:same]).max() / np.abs(sung).max())
    print("seconds to the first chunk, for 20 s as a stream, and for 20 s at once")
    rounds = alternate(
        ROUNDS,
        lambda: seconds(lambda: next(model.stream(chunk_seconds=CHUNK_SECONDS))),
        lambda: seconds(streamed),
        lambda: seconds(lambda: model.sing(SECONDS)),
    )
    first, stream, whole = zip(*rounds, strict=True)
    lines = python("-m", "bench._long_stream", str(arguments.model), str(arguments.minutes), cwd=ROOT).splitlines()
    memory = {float(second): float(megabytes) for second, megabytes in map(str.split, lines)}
    start, end, minutes = memory[60.0], memory[max(memory)], max(memory) / 60
    print(f"resident memory after 1 minute {start:.0f} MB, after {minutes:g} minutes {end:.0f} MB")
    report(
        Claim.at_most(0.5, "stream, first chunk after loading", first, "s"),
        Claim.at_least(2, "stream, speed against real time", [SECONDS / value for value in stream], "×"),
        Claim.at_most(
            1.5, "stream, time against `sing` of the same", [a / b for a, b in zip(stream, whole, strict=True)], "×"
        ),
        Claim.at_most(
            1e-3, "stream, largest difference from `sing` but for its last second, against the peak", [difference], "×"
        ),
        Claim.at_most(20, f"stream, growth of memory from minute 1 to {minutes:g}", [end - start], "MB"),
    )


if __name__ == "__main__":
    main()
