"""Cut the recordings into log-mel slices: data/24k -> data/shards/{train,valid,test} and normalisation.json.

A recording is cut into consecutive slices of slice.frames frames; a shorter rest at its end is dropped. Runs of slices
of about slice.block_seconds form blocks, or each recording is one. Each block goes to train, valid or test by a hash of
the recording's relative path and the block's number: adding recordings does not change the split of the others, unless
they become enough to stay whole. If the corpus is so small that a split would be empty, blocks are shortened or one
block is moved, and the stage says so. normalisation.json has the mean, the standard deviation and the range of each mel
band over the train split; singers.json names the singers.
"""

import time
from contextlib import closing
from pathlib import Path

from humanize import naturalsize

from melnet.audio.files import stored_rate
from melnet.audio.integrity import UnusableAudio
from melnet.audio.mel import MelSpec
from melnet.audio.spectrogram import frame_count
from melnet.data.atomic import NoSpace, atomic_folder
from melnet.data.shards import ShardSpec
from melnet.data.slicing import Assignment, Recording, assign_blocks, slice_chunks, tasks, write_splits
from melnet.data.split import SPLITS
from stages.command import StageError, main
from stages.corpus.manifest import read_manifest
from stages.execution.parallel import parallel
from stages.parameters import Params
from stages.paths import CLEAN, SHARDS


def slice_recordings(params: Params) -> None:
    """Write ``data/shards``; raise :class:`StageError` if there is no manifest, or too little to split."""
    started = time.monotonic()
    mel, frames = params.mel_spec, params.slice.frames
    recordings = _recordings(mel, frames)
    slices = sum(recording.slices for recording in recordings)
    hours = sum(recording.samples for recording in recordings) / mel.sample_rate / 3600
    print(
        f"{len(recordings)} recordings, {hours:.2f} h, to {slices} slices of {frames} frames and {mel.n_mels} bands",
        flush=True,
    )
    assignment = _assignment(recordings, slices, params)
    work = list(tasks(recordings, assignment, frames, mel))
    sliced = parallel(
        slice_chunks,
        work,
        total=len(work),
        label="slice",
        unit="parts",
        scheduler=params.execution.dask_scheduler,
        shared=[CLEAN],
    )
    try:
        # Closed inside, so that an error of writing ends the work before its message is printed.
        with atomic_folder(SHARDS) as folder, closing(sliced):
            results = zip(work, sliced, strict=True)
            rows = write_splits(folder, ShardSpec(frames, mel), params.slice.shard_rows, results)
    except NoSpace as error:
        raise StageError(f"{error}; at most {naturalsize(slices * frames * mel.n_mels * 4)} in all") from error
    except UnusableAudio as error:
        raise StageError(f"{error}; run the stage downsample again") from error
    seconds = frames * mel.seconds_per_frame
    shares = (f"{count} {split} ({count * seconds / 60:.1f} min)" for split, count in rows.items())
    short = sum(recording.slices == 0 for recording in recordings)
    print(
        f"slices of {frames} frames: {', '.join(shares)}, in {SHARDS}; "
        f"{short} of {len(recordings)} recordings are shorter than a slice ({seconds:.2f} s); "
        f"{time.monotonic() - started:.0f} s"
    )


def _recordings(mel: MelSpec, frames: int) -> list[Recording]:
    """The usable recordings of the manifest."""
    recordings = []
    for row in read_manifest(CLEAN):
        if row["status"] == "ok":
            samples = round(row["seconds_out"] * mel.sample_rate)
            file = CLEAN.absolute() / row["output"]
            slices = frame_count(samples, mel) // frames
            recordings.append(Recording(row["path"], row["singer"] or "", file, samples, slices))
    if recordings:
        _check_rate(recordings[0].file, mel.sample_rate)  # all have one rate
    return recordings


def _check_rate(file: Path, sample_rate: int) -> None:
    try:
        found = stored_rate(file)
    except UnusableAudio as error:
        raise StageError(f"{error}; run the stage downsample again") from error
    if found != sample_rate:
        raise StageError(
            f"{file} has {found} Hz, but downsample.sample_rate is {sample_rate}; run the stage downsample again"
        )


def _assignment(recordings: list[Recording], slices: int, params: Params) -> Assignment:
    """Assign blocks to splits, and say where the corpus is too small for the wanted blocks."""
    settings = params.slice
    if slices < len(SPLITS):
        raise StageError(
            f"{slices} slices of {settings.frames} frames in {len(recordings)} recordings are too few: each of "
            f"{', '.join(SPLITS)} needs one"
        )
    slice_seconds = settings.frames * params.mel_spec.seconds_per_frame
    found = assign_blocks(recordings, slice_seconds, settings.block_seconds, settings.valid, settings.test)
    if found.slices_per_block < found.wanted_slices_per_block:
        print(
            f"small corpus: blocks of {found.slices_per_block} instead of {found.wanted_slices_per_block} slices "
            "(slice.block_seconds)"
        )
    for split, block in found.moved.items():
        print(f"small corpus: {split} would be empty; it gets block {block.number} of {block.recording}")
    return found


if __name__ == "__main__":
    main(slice_recordings, __doc__)
