"""Shards to batches: the random, normalised windows that training reads, against pyarrow reading the same files.

The data set is six times as large as the memory that the windows of an epoch may be drawn from. The reference reads the
column of spectrograms of as many row groups as an epoch does, one after the other, into numpy arrays that it drops: no
windows, no normalisation, no checksums. An epoch has as many windows as it holds slices. Each frame contains the number
of its slice. These numbers show how often two windows of a batch come from one recording; the ideal is that of slices
drawn at random from the whole data set.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq

from bench.common import ROOT, Claim, alternate, python, report, seconds
from melnet.audio.spectrogram import log_mel
from melnet.data.dataset import Batch, Normalisation, TrainingWindows
from melnet.data.shards import Shards, ShardSpec, ShardWriter
from stages.demo_voice.voice import song
from stages.parameters import load_params

ROWS = 2**10 * 184  # 1.2 GB of 50 × 32
ALLOWED_MB = 300
HELD_BYTES = 210 * 10**6
EPOCHS = 3
RECORDING_ROWS = 281  # slices of five minutes
BATCH = 16
NORMALISATION = Normalisation(*(np.full(32, value, np.float32) for value in (-4.0, 3.0, -12.0, 6.0)))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shards(folder)
        shards = Shards(folder)
        windows = TrainingWindows(shards, shards.spec.frames, max_bytes=HELD_BYTES)
        groups = HELD_BYTES // (4 * shards.spec.frames * shards.spec.bands * shards.groups[0].rows)

        def ours() -> float:
            return seconds(lambda: sum(len(batch.x) for batch in _epochs(windows))) / EPOCHS

        def pyarrow() -> float:
            return seconds(lambda: read_column(shards, groups))

        measured = alternate(3, ours, pyarrow)
        print(f"seconds per epoch, of them {groups} row groups are read in: {measured}")
        slices = np.concatenate([_numbers(batch.x) for batch in _epochs(windows)])
        growth = [float(python("-c", f"from bench.ingest import memory; memory({name!r})", cwd=ROOT)) for _ in range(2)]
    clustering, ideal = _clustering(slices)
    print(f"pairs from one recording: {clustering:.4f}; drawn from all {ideal:.4f}")
    report(
        Claim.at_least(
            0.4, "random, normalised windows, rate against pyarrow", [ref / own for own, ref in measured], "×"
        ),
        Claim.at_most(ALLOWED_MB, f"memory for {ROWS * 6.4e-3:.0f} MB of slices, growth", growth, "MB"),
        Claim.at_most(0.01, "share of the pairs of windows of a batch that come from one recording", [clustering], ""),
    )


def write_shards(folder: Path) -> None:
    """Write a minute of singing again and again, with new noise; the first band of each slice is its number."""
    params, rng = load_params(ROOT / "params.yaml"), np.random.default_rng(1)
    rate, frames, bands = params.downsample.sample_rate, params.slice.frames, params.mel.n_mels
    spec = ShardSpec(frames, params.mel_spec)
    sung = log_mel(np.concatenate(list(song(rng, 60, rate))), params.mel_spec)
    sung = sung[: len(sung) // frames * frames].reshape(-1, frames, bands)
    with ShardWriter(folder, spec, params.slice.shard_rows) as writer:
        for first in range(0, ROWS, RECORDING_ROWS):
            numbers = np.arange(first, min(first + RECORDING_ROWS, ROWS))
            mels = sung[numbers % len(sung)] + rng.normal(0, 0.01, (len(numbers), 1, bands)).astype(np.float32)
            mels[:, :, 0] = numbers[:, None]
            writer.write(f"{first // RECORDING_ROWS}.wav", (numbers - first) * frames, mels)


def read_column(shards: Shards, count: int) -> None:
    """Read the spectrograms of the first ``count`` row groups with pyarrow alone, one row group at a time."""
    for shard, row_group, _ in shards.groups[:count]:
        with pq.ParquetFile(shards.paths[shard]) as file:
            file.read_row_group(row_group, columns=["mel"]).column("mel").combine_chunks().flatten().to_numpy()


def memory(folder: str) -> None:
    """Print by how many MB epochs raise the peak memory, once the first row group has been read."""
    shards = Shards(Path(folder))
    shards.read_group(0)
    process = psutil.Process()
    before = process.memory_info().rss
    windows = TrainingWindows(shards, shards.spec.frames, max_bytes=HELD_BYTES)
    print((max(process.memory_info().rss for _ in _epochs(windows)) - before) / 1e6)


def _epochs(windows: TrainingWindows) -> Iterator[Batch]:
    steps = HELD_BYTES // (4 * windows.frames * len(NORMALISATION.mean) * BATCH)
    for epoch in range(EPOCHS):
        yield from windows.batches(NORMALISATION, BATCH, steps, seed=1, epoch=epoch)


def _numbers(batch: np.ndarray) -> np.ndarray:
    return np.rint(NORMALISATION.denormalise(batch)[:, 0, 0]).astype(int)


def _clustering(slices: np.ndarray) -> tuple[float, float]:
    """Share of the pairs of windows of a batch that come from one recording, and the same share among all slices."""
    batches = (slices // RECORDING_ROWS).reshape(-1, BATCH)
    first, second = np.triu_indices(BATCH, 1)
    sizes = np.bincount(np.arange(ROWS) // RECORDING_ROWS)
    ideal = (sizes * (sizes - 1)).sum() / (ROWS * (ROWS - 1))
    return float((batches[:, first] == batches[:, second]).mean()), float(ideal)


if __name__ == "__main__":
    main()
