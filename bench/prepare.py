"""Recordings to slices: the stages downsample and slice on an hour of 48 kHz stereo, against a loop over librosa.

Both sides run as new processes over the same six files of ten minutes and are timed with their imports. The reference
is one process of ``librosa.load(sr=24000)`` and ``librosa.feature.melspectrogram``: it checks nothing, stores nothing,
and resamples in 32 bits. Its loop is also timed without the imports. The memory is that of the stages and their
children, for the hour and for a single file of two hours.
"""

import tempfile
from pathlib import Path

import numpy as np
import soundfile

from bench.common import Claim, alternate, peak_memory, python, report, seconds
from stages.demo_voice.voice import song
from tests.params_file import edit_params

RATE = 48000
MINUTE = 60 * RATE
STAGES = ("downsample", "slice")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        signal = _signal()
        for number in range(6):
            _write(folder / f"hour/{number}.wav", signal, minutes=10, offset=number * 7919)
        edit_params(folder, {"corpus": {"path": "hour"}})

        def stages() -> float:
            return seconds(lambda: [python("-m", f"stages.{stage}", cwd=folder) for stage in STAGES])

        loops: list[float] = []

        def librosa_loop() -> float:
            return seconds(lambda: loops.append(float(python("-m", "bench._librosa_loop", "hour", cwd=folder))))

        stages()  # reads the files into the page cache, for both sides
        measured = alternate(5, stages, librosa_loop)
        bare = [loop / ours for (ours, _), loop in zip(measured, loops, strict=True)]
        print(f"the loop of the reference without its imports takes {np.median(bare):.2f} × the time of the stages")
        hour = max(peak_memory("-m", f"stages.{stage}", cwd=folder) for stage in STAGES)
        _write(folder / "long/two hours.wav", signal, minutes=120)
        edit_params(folder, {"corpus": {"path": "long"}})
        two_hours = max(peak_memory("-m", f"stages.{stage}", cwd=folder) for stage in STAGES)
    report(
        Claim.at_least(
            1.7, "downsample and slice of 1 h, speed against librosa", [ref / ours for ours, ref in measured], "×"
        ),
        Claim.at_most(600, "peak memory, six files of 10 minutes", [hour], "MB"),
        Claim.at_most(600, "peak memory, one file of 2 hours", [two_hours], "MB"),
    )


def _signal() -> np.ndarray:
    """A minute of two voices, one in the left channel and both in the right; (samples, channels)."""
    left, right = (np.concatenate(list(song(np.random.default_rng(seed), 60, RATE)))[:MINUTE] for seed in (1, 2))
    return np.stack([left, 0.5 * (left + right)], axis=1)


def _write(path: Path, signal: np.ndarray, minutes: int, offset: int = 0) -> None:
    """Write a 16-bit WAV that repeats the signal, each time from another sample on."""
    path.parent.mkdir(exist_ok=True)
    with soundfile.SoundFile(path, "w", RATE, signal.shape[1], "PCM_16") as sound:
        for minute in range(minutes):
            sound.write(np.roll(signal, offset + minute * 104729, axis=0))


if __name__ == "__main__":
    main()
