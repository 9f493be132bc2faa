"""Turn the recordings into shards of log-mel slices: data/24k -> data/shards/{train,valid,test} and normalisation.json.

A recording is cut into consecutive slices of slice.frames frames; what is left at its end is dropped. Runs of slices of
about slice.block_seconds form blocks, and each block goes to train, valid or test by a hash of the recording's relative
path and the block's number: adding recordings leaves the split of the others as it is. A corpus so small that a split
would stay empty gets shorter blocks, or one block is moved; both are said. normalisation.json has the mean, the
standard deviation and the range of each mel band over the train split; singers.json names the singers.
"""

import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # carries no types

from melnet.audio.files import read_mono, stored_rate
from melnet.audio.integrity import UnusableAudio
from melnet.audio.spectrogram import frame_count, frame_span, log_mel_frames
from melnet.data.atomic import NoSpace, size, written_folder
from melnet.data.band_statistics import Moments
from melnet.data.shards import Settings, ShardWriter
from melnet.data.split import SPLITS, Block, assign, cut, fitting_block, slices_per_block
from stages.command import CLEAN, SHARDS, StageError, main, write_json
from stages.corpus.files import MANIFEST, SCHEMA
from stages.execution.parallel import parallel
from stages.parameters import Mel, Params

CHUNK_FRAMES = 2048  # most frames of a chunk
TASK_CHUNKS = 4  # chunks of one recording that a thread is given at a time, which bounds its memory


class Recording(NamedTuple):
    path: str  # below corpus.path; names it in the shards
    singer: str  # empty where nobody is named
    file: Path
    samples: int
    slices: int


class Chunk(NamedTuple):
    """Slices [first, last) of a recording, all of one split."""

    split: str
    first: int
    last: int


class Part(NamedTuple):
    """What becomes of a chunk."""

    mels: np.ndarray  # (slices, frames, bands)
    moments: Moments


class Task(NamedTuple):
    """Chunks of one recording, each beginning where the one before ends."""

    recording: Recording
    chunks: list[Chunk]
    frames: int
    mel: Mel
    sample_rate: int


def slice_recordings(params: Params) -> None:
    """Write ``data/shards``; raise :class:`StageError` if there is no manifest, or too little to split."""
    started = time.monotonic()
    recordings = _recordings(params)
    hours = sum(recording.samples for recording in recordings) / params.downsample.sample_rate / 3600
    print(
        f"{len(recordings)} recordings, {hours:.2f} h, to {sum(recording.slices for recording in recordings)} slices "
        f"of {params.slice.frames} frames and {params.mel.n_mels} bands",
        flush=True,
    )
    assigned = _assigned(recordings, params)
    tasks = list(_tasks(recordings, assigned, params))
    settings = Settings(frames=params.slice.frames, sample_rate=params.downsample.sample_rate, mel=params.mel)
    moments = Moments.none(settings.bands)
    try:
        with written_folder(SHARDS) as folder, ExitStack() as stack:
            stack.enter_context(threadpool_limits(1, "blas"))  # there is a thread of ours for each core already
            writers = {
                split: stack.enter_context(ShardWriter(folder / split, settings, params.slice.shard_rows))
                for split in SPLITS
            }
            # Closed with the rest: an error of the writers ends the work, and its message comes last.
            results = stack.enter_context(closing(_analysed(tasks, params)))
            for task, parts in zip(tasks, results, strict=True):
                for chunk, part in zip(task.chunks, parts, strict=True):
                    starts = np.arange(chunk.first, chunk.last) * params.slice.frames
                    writers[chunk.split].write(task.recording.path, starts, part.mels, task.recording.singer)
                    if chunk.split == "train":
                        moments = moments.merged(part.moments)
            columns = {name: getattr(moments, name).tolist() for name in ("mean", "std", "low", "high")}
            write_json(folder / "normalisation.json", {**columns, "frames": moments.frames})
            # Of all splits: nobody becomes unknown because blocks fell otherwise.
            write_json(folder / "singers.json", {"singers": sorted({r.singer for r in recordings if r.slices})})
    except NoSpace as error:
        most = sum(recording.slices for recording in recordings) * params.slice.frames * settings.bands * 4
        raise StageError(f"{error}; at most {size(most)} in all") from error
    seconds = params.slice.frames * params.mel.hop_length / params.downsample.sample_rate
    shares = (f"{writers[split].rows} {split} ({writers[split].rows * seconds / 60:.1f} min)" for split in SPLITS)
    short = sum(recording.slices == 0 for recording in recordings)
    print(
        f"slices of {params.slice.frames} frames: {', '.join(shares)}, in {SHARDS}; "
        f"{short} of {len(recordings)} recordings shorter than a slice ({seconds:.2f} s); "
        f"{time.monotonic() - started:.0f} s"
    )


def _recordings(params: Params) -> list[Recording]:
    manifest = CLEAN / MANIFEST
    try:
        table = pq.ParquetFile(manifest).read()  # read_table loads pandas for it
    except FileNotFoundError as error:
        raise StageError(f"{manifest} does not exist; the stage downsample makes it") from error
    except (pa.ArrowException, OSError) as error:
        raise StageError(f"{manifest} cannot be read: {str(error).splitlines()[0]}") from error
    if not table.schema.equals(SCHEMA):
        raise StageError(f"{manifest} has other columns than the stage downsample writes: {table.schema.names}")
    recordings = []
    for row in table.select(["path", "singer", "output", "status", "seconds_out"]).to_pylist():
        if row["status"] == "ok":
            samples = round(row["seconds_out"] * params.downsample.sample_rate)
            slices = frame_count(samples, params.mel) // params.slice.frames
            file = CLEAN.absolute() / row["output"]
            recordings.append(Recording(row["path"], row["singer"] or "", file, samples, slices))
    for recording in recordings[:1]:  # all have one rate
        _check_rate(recording.file, params.downsample.sample_rate)
    return recordings


def _check_rate(file: Path, sample_rate: int) -> None:
    try:
        found = stored_rate(file)
    except UnusableAudio as error:
        raise StageError(f"{file}: {error}; run the stage downsample again") from error
    if found != sample_rate:
        raise StageError(
            f"{file} has {found} Hz, but downsample.sample_rate is {sample_rate}; run the stage downsample again"
        )


def _assigned(recordings: list[Recording], params: Params) -> dict[str, list[tuple[Block, str]]]:
    """Blocks of each recording and their splits; says where the corpus is too small for the wanted blocks."""
    settings = params.slice
    wanted = slices_per_block(settings, params.downsample.sample_rate, params.mel.hop_length)
    per_block = fitting_block([recording.slices for recording in recordings], wanted)
    blocks = [block for recording in recordings for block in cut(recording.path, recording.slices, per_block)]
    if len(blocks) < len(SPLITS):
        raise StageError(
            f"{sum(recording.slices for recording in recordings)} slices of {settings.frames} frames "
            f"in {len(recordings)} recordings are too few: each of {', '.join(SPLITS)} needs one"
        )
    if per_block < wanted:
        print(f"small corpus: blocks of {per_block} instead of {wanted} slices (slice.block_seconds)")
    splits, moved = assign(blocks, settings.valid, settings.test)
    for split, block in moved.items():
        print(f"small corpus: {split} would be empty; it gets block {block.number} of {block.recording}")
    assigned = defaultdict(list)
    for block, split in zip(blocks, splits, strict=True):
        assigned[block.recording].append((block, split))
    return assigned


def _tasks(recordings: list[Recording], assigned: dict[str, list[tuple[Block, str]]], params: Params) -> Iterator[Task]:
    step = max(1, CHUNK_FRAMES // params.slice.frames)
    for recording in recordings:
        chunks = [
            Chunk(split, first, min(first + step, block.last))
            for block, split in assigned.get(recording.path, [])
            for first in range(block.first, block.last, step)
        ]
        for i in range(0, len(chunks), TASK_CHUNKS):
            part = chunks[i : i + TASK_CHUNKS]
            yield Task(recording, part, params.slice.frames, params.mel, params.downsample.sample_rate)


def _analysed(tasks: list[Task], params: Params) -> Generator[list[Part]]:
    return parallel(
        analyse,
        tasks,
        total=len(tasks),
        label="slice",
        unit="parts",
        scheduler=params.execution.dask_scheduler,
        shared=[CLEAN],
    )


def analyse(task: Task) -> list[Part]:
    """Log-mel slices of each chunk."""
    first, last = task.chunks[0].first, task.chunks[-1].last
    slices = _log_mel(task, first * task.frames, last * task.frames).reshape(-1, task.frames, task.mel.n_mels)
    parts = [slices[chunk.first - first : chunk.last - first] for chunk in task.chunks]
    return [Part(mels, Moments.of(mels)) for mels in parts]


def _log_mel(task: Task, first: int, last: int) -> np.ndarray:
    """Frames [first, last) of the recording; (frames, bands)."""
    start, stop = frame_span(first, last, task.mel)
    begin, end = max(start, 0), min(stop, task.recording.samples)
    try:
        samples = read_mono(task.recording.file, begin, end - begin)
        if len(samples) < end - begin:
            raise UnusableAudio(f"shorter than the {task.recording.samples} samples of the manifest")
    except UnusableAudio as error:
        raise StageError(f"{task.recording.file}: {error}; run the stage downsample again") from error
    return log_mel_frames(np.pad(samples, (begin - start, stop - end)), task.mel, task.sample_rate)


if __name__ == "__main__":
    # By the name under which the workers of a cluster find what they are sent.
    from stages.slice import slice_recordings as stage

    main(stage, __doc__)
