"""Sings a stream without end for bench.stream; prints the second sung and the resident memory in MB, now and then.

python -m bench._long_stream MODEL MINUTES
"""

import sys

import psutil

from melnet.singing import load

CHUNK_SECONDS, PRINT_SECONDS = 0.5, 10.0


def main(folder: str, minutes: float) -> None:
    stream, process = load(folder).stream(chunk_seconds=CHUNK_SECONDS), psutil.Process()
    every = round(PRINT_SECONDS / CHUNK_SECONDS)
    for number in range(1, round(60 * minutes / CHUNK_SECONDS) + 1):
        next(stream)
        if number % every == 0:
            print(number * CHUNK_SECONDS, process.memory_info().rss / 1e6, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
