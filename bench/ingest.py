"""Shards to batches: the shuffled, normalised stream that training reads, against pyarrow reading the same files.

The data set is four times as large as the memory that the stream may take. The reference reads the column of
spectrograms, one row group after the other, into numpy arrays that it drops: no shuffling, no normalisation, no
checksums. Each slice contains its own number. The numbers show how well the stream is shuffled, by two measures: the
rank correlation of their order with the stored order, and how often two slices of a batch come from one recording.
The ideal of the second is that of slices drawn at random from the whole data set.
"""

import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import scipy.stats

from bench.common import ROOT, Claim, alternate, python, report, seconds
from melnet.audio.spectrogram import log_mel
from melnet.data.dataset import Normalisation, shuffled_batches, steps_per_epoch
from melnet.data.shards import Shards, ShardSpec, ShardWriter
from stages.demo_voice.voice import song
from stages.parameters import load_params

ROWS = 2**10 * 184  # 1.2 GB of 50 × 32
ALLOWED_MB = 300
WINDOW_BYTES = 210 * 10**6
RECORDING_ROWS = 281  # slices of five minutes
BATCH = 16
NORMALISATION = Normalisation(*(np.full(32, value, np.float32) for value in (-4.0, 3.0, -12.0, 6.0)))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shards(folder)
        shards = Shards(folder)

        def ours() -> float:
            return seconds(lambda: sum(len(batch.x) for batch in _epoch(shards)))

        def pyarrow() -> float:
            return seconds(lambda: [read_column(path) for path in shards.paths])

        measured = alternate(3, ours, pyarrow)
        order = np.concatenate([_numbers(batch.x)[batch.weights > 0] for batch in _epoch(shards)])
        growth = [float(python("-c", f"from bench.ingest import memory; memory({name!r})", cwd=ROOT)) for _ in range(2)]
    clustering, ideal = _clustering(order)
    stored, _ = _clustering(np.sort(order))
    print(f"pairs from one recording: {clustering:.4f}; in stored order {stored:.4f}; drawn from all {ideal:.4f}")
    report(
        Claim.at_least(
            0.4, "shuffled, normalised batches, rate against pyarrow", [ref / own for own, ref in measured], "×"
        ),
        Claim.at_most(ALLOWED_MB, f"memory for {ROWS * 6.4e-3:.0f} MB of slices, growth", growth, "MB"),
        Claim.at_most(0.1, "rank correlation of the shuffled with the stored order", [_correlation(order)], ""),
        Claim.at_most(0.01, "share of the pairs of slices of a batch that come from one recording", [clustering], ""),
    )


def write_shards(folder: Path) -> None:
    """Write a minute of singing again and again, with new noise; the first element of each slice is its number."""
    params, rng = load_params(ROOT / "params.yaml"), np.random.default_rng(1)
    rate, frames, bands = params.downsample.sample_rate, params.slice.frames, params.mel.n_mels
    spec = ShardSpec(frames, params.mel_spec)
    sung = log_mel(np.concatenate(list(song(rng, 60, rate))), params.mel_spec)
    sung = sung[: len(sung) // frames * frames].reshape(-1, frames, bands)
    with ShardWriter(folder, spec, params.slice.shard_rows) as writer:
        for first in range(0, ROWS, RECORDING_ROWS):
            numbers = np.arange(first, min(first + RECORDING_ROWS, ROWS))
            mels = sung[numbers % len(sung)] + rng.normal(0, 0.01, (len(numbers), 1, bands)).astype(np.float32)
            mels[:, 0, 0] = numbers
            writer.write(f"{first // RECORDING_ROWS}.wav", (numbers - first) * frames, mels)


def read_column(path: Path) -> None:
    """Read all spectrograms of a shard with pyarrow alone, one row group at a time as the stream does."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            file.read_row_group(group, columns=["mel"]).column("mel").combine_chunks().flatten().to_numpy()


def memory(folder: str) -> None:
    """Print by how many MB an epoch raises the peak memory, once the first row group has been read."""
    shards = Shards(Path(folder))
    shards.read_group(0)
    process = psutil.Process()
    before = process.memory_info().rss
    print((max(process.memory_info().rss for _ in _epoch(shards)) - before) / 1e6)


def _epoch(shards: Shards) -> islice:
    stream = shuffled_batches(shards, NORMALISATION, BATCH, seed=1, window_bytes=WINDOW_BYTES)
    return islice(stream, steps_per_epoch(len(shards), BATCH))


def _numbers(batch: np.ndarray) -> np.ndarray:
    return np.rint(NORMALISATION.denormalise(batch)[:, 0, 0]).astype(int)


def _correlation(order: np.ndarray) -> float:
    return abs(float(scipy.stats.spearmanr(np.arange(len(order)), order).statistic))


def _clustering(order: np.ndarray) -> tuple[float, float]:
    """Share of the pairs of slices of a batch that come from one recording, and the same share among all slices."""
    recordings = order // RECORDING_ROWS
    batches = recordings[: len(order) // BATCH * BATCH].reshape(-1, BATCH)
    first, second = np.triu_indices(BATCH, 1)
    sizes = np.bincount(recordings)
    ideal = (sizes * (sizes - 1)).sum() / (len(order) * (len(order) - 1))
    return float((batches[:, first] == batches[:, second]).mean()), float(ideal)


if __name__ == "__main__":
    main()
