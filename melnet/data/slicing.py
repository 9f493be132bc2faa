"""Recordings to slices of log-mel frames: their split, and the work in pieces of bounded memory."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from melnet.audio.files import read_mono
from melnet.audio.integrity import UnusableAudio
from melnet.audio.mel import MelSpec
from melnet.audio.spectrogram import frame_span, log_mel_frames
from melnet.data.atomic import write_json
from melnet.data.band_statistics import BandStatistics
from melnet.data.shards import ShardSpec, ShardWriter
from melnet.data.split import (
    DEFAULT_SECONDS,
    SPLITS,
    Block,
    assign,
    cut,
    enough_recordings,
    fitting_block,
    slices_per_block,
)

CHUNK_FRAMES = 2048  # most frames of a chunk
TASK_CHUNKS = 4  # most chunks of a task, which bounds the memory that a task takes


class Recording(NamedTuple):
    """A mono recording at the sample rate of the spectrograms."""

    name: str
    """its path below the corpus, which names it in the shards"""
    singer: str
    """empty where nobody is named"""
    file: Path
    samples: int
    slices: int
    """whole slices in it"""


class Chunk(NamedTuple):
    """The slices [first, last) of a recording, all of one split."""

    split: str
    first: int
    last: int


class Task(NamedTuple):
    """Consecutive chunks of one recording, which are worked on at a time."""

    recording: Recording
    chunks: list[Chunk]
    frames: int
    """of a slice"""
    mel: MelSpec


class SlicedChunk(NamedTuple):
    """The result of a chunk."""

    mels: np.ndarray
    """float32 (slices, frames, bands)"""
    statistics: BandStatistics


@dataclass(frozen=True)
class Assignment:
    """The blocks of a corpus and their splits."""

    blocks: dict[str, list[tuple[Block, str]]]
    """blocks of each recording, by its name, with their splits"""
    slices_per_block: int
    wanted_slices_per_block: int
    """more than ``slices_per_block`` if the corpus is too small for blocks of the wanted length"""
    moved: dict[str, Block]
    """the block that each split got which would have been empty otherwise"""


def assign_blocks(
    recordings: Sequence[Recording], slice_seconds: float, block_seconds: float | None, valid: float, test: float
) -> Assignment:
    """Cut recordings into blocks of about ``block_seconds`` and assign them to the splits.

    Parameters
    ----------
    block_seconds
        None leaves recordings whole where there are enough of them, and takes 20 s where not. A song that repeats
        itself is in one split then, so that the test split holds nothing that was trained on.
    valid, test
        Shares of the blocks, from 0 to 1.

    Raises
    ------
    ValueError
        There are fewer slices than splits.

    >>> song = Recording("song.wav", "", Path("song.flac"), samples=480000, slices=18)
    >>> assign_blocks([song], slice_seconds=1.07, block_seconds=20.0, valid=0.1, test=0.1).slices_per_block
    1
    """
    slices = [recording.slices for recording in recordings]
    if block_seconds is None and enough_recordings(slices, valid, test):
        wanted = max(slices)
    else:
        wanted = slices_per_block(block_seconds or DEFAULT_SECONDS, slice_seconds)
    per_block = fitting_block(slices, wanted)
    blocks = [block for recording in recordings for block in cut(recording.name, recording.slices, per_block)]
    splits, moved = assign(blocks, valid, test)
    assigned = defaultdict(list)
    for block, split in zip(blocks, splits, strict=True):
        assigned[block.recording].append((block, split))
    return Assignment(dict(assigned), per_block, wanted, moved)


def tasks(recordings: Sequence[Recording], assignment: Assignment, frames: int, mel: MelSpec) -> Iterator[Task]:
    """Divide the slicing of recordings into tasks; ``frames`` are those of a slice.

    >>> song = Recording("song.wav", "", Path("song.flac"), samples=480000, slices=18)
    >>> assignment = assign_blocks([song], slice_seconds=1.07, block_seconds=20.0, valid=0.1, test=0.1)
    >>> [len(task.chunks) for task in tasks([song], assignment, frames=50, mel=MelSpec())]
    [4, 4, 4, 4, 2]
    """
    step = max(1, CHUNK_FRAMES // frames)
    for recording in recordings:
        chunks = [
            Chunk(split, first, min(first + step, block.last))
            for block, split in assignment.blocks.get(recording.name, [])
            for first in range(block.first, block.last, step)
        ]
        for i in range(0, len(chunks), TASK_CHUNKS):
            yield Task(recording, chunks[i : i + TASK_CHUNKS], frames, mel)


def slice_chunks(task: Task) -> list[SlicedChunk]:
    """Compute the slices of each chunk of a task.

    Raises
    ------
    UnusableAudio
        The recording cannot be decoded, or is shorter than it should be; the message names the file.
    """
    first, last = task.chunks[0].first, task.chunks[-1].last
    log_mel = _log_mel(task.recording, first * task.frames, last * task.frames, task.mel)
    slices = log_mel.reshape(-1, task.frames, task.mel.n_mels)
    parts = [slices[chunk.first - first : chunk.last - first] for chunk in task.chunks]
    return [SlicedChunk(mels, BandStatistics.of(mels)) for mels in parts]


def _log_mel(recording: Recording, first: int, last: int, mel: MelSpec) -> np.ndarray:
    """Frames [first, last) of a recording; (frames, bands)."""
    start, stop = frame_span(first, last, mel)
    begin, end = max(start, 0), min(stop, recording.samples)
    samples = read_mono(recording.file, begin, end - begin)
    if len(samples) < end - begin:
        raise UnusableAudio(f"{recording.file}: shorter than the {recording.samples} samples of the manifest")
    return log_mel_frames(np.pad(samples, (begin - start, stop - end)), mel)


def write_splits(
    folder: Path, spec: ShardSpec, shard_rows: int, results: Iterable[tuple[Task, list[SlicedChunk]]]
) -> dict[str, int]:
    """Write the shards of each split, ``normalisation.json`` and ``singers.json`` into a folder.

    Parameters
    ----------
    shard_rows
        Slices per Parquet file.
    results
        Tasks in the order of the recordings, each with what :func:`slice_chunks` made of it.

    Returns
    -------
    Number of slices of each split.
    """
    train, singers = BandStatistics.none(spec.bands), set()
    with ExitStack() as stack:
        writers = {split: stack.enter_context(ShardWriter(folder / split, spec, shard_rows)) for split in SPLITS}
        for task, chunks in results:
            singers.add(task.recording.singer)
            for chunk, sliced in zip(task.chunks, chunks, strict=True):
                starts = np.arange(chunk.first, chunk.last) * spec.frames
                writers[chunk.split].write(task.recording.name, starts, sliced.mels, task.recording.singer)
                if chunk.split == "train":
                    train = train.merged(sliced.statistics)
    columns = {name: getattr(train, name).tolist() for name in ("mean", "std", "low", "high")}
    write_json(folder / "normalisation.json", {**columns, "frames": train.frames})
    # The singers of all splits, so that nobody is unknown because all of their blocks went to one split.
    write_json(folder / "singers.json", {"singers": sorted(singers)})
    return {split: writer.rows for split, writer in writers.items()}
