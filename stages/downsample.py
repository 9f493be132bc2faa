"""Turn the corpus into mono recordings at one rate: corpus.path -> data/24k/**.flac and data/24k/manifest.parquet.

Every file below corpus.path is tried, whatever its name; what libsndfile reads becomes the mean of its channels at
downsample.sample_rate, 24-bit FLAC, at the same relative path. manifest.parquet has one row per file: one that cannot
be used (not audio, truncated, damaged, empty, all zeros, NaN or infinite samples, a rate below 1 kHz, shorter than
downsample.min_seconds) is listed there with its reason, and the rest goes on. The stage fails if no file can be used,
or if more than downsample.max_rejected of the files are rejected; rejected files that are hidden or not named like
audio (notes, covers, labels) are listed, but do not count in that share. Hidden folders are passed over. Links to files
inside the corpus are followed; other links are rejected. corpus.path may be a URL of any file system that fsspec knows
(s3://bucket/folder): its files are fetched one by one. The first folder below corpus.path names the singer.
"""

import io
import json
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from melnet.audio.convert import convert, inspect
from melnet.audio.integrity import NotAudio, UnusableAudio
from melnet.data.atomic import NoSpace, atomic_folder, size
from stages.command import CLEAN, StageError, main
from stages.corpus.files import MANIFEST, SCHEMA, UNREADABLE, Found, named_audio, output_names, singer, text, walk
from stages.corpus.remote import fetched, is_url, walk_url
from stages.execution.parallel import parallel
from stages.parameters import Downsample, Params

# Below it a file is no recording, and resampling would make an hour of noise of a few bytes with a wrong header.
MIN_SOURCE_RATE = 1000  # Hz
LISTED = 20  # rejected files that a message names


@dataclass(frozen=True)
class Job:
    source: Path | str  # a string is a URL
    name: str  # of the source, below the corpus, as the manifest has it
    problem: str | None  # why not even to open it
    folder: Path
    output: str  # below the folder
    singer: str | None
    settings: Downsample


@dataclass(frozen=True)
class Row:
    """A row of the manifest."""

    path: str
    status: str
    singer: str | None = None
    output: str | None = None
    reason: str | None = None
    source_rate: int | None = None
    channels: int | None = None
    seconds_in: float | None = None
    seconds_out: float | None = None
    peak: float | None = None
    rms: float | None = None
    gain: float | None = None


def downsample(params: Params) -> None:
    """Write ``data/24k``; raise :class:`StageError` if the corpus is missing, holds nothing usable or too much else."""
    started = time.monotonic()
    corpus = params.corpus.path
    if not is_url(corpus):
        _check_folders(Path(corpus))
    found = sorted(walk_url(corpus) if is_url(corpus) else walk(Path(corpus)), key=lambda item: text(item.path))
    if not found:
        raise StageError(f"corpus.path: {corpus} holds no files")
    print(f"{len(found)} files below {corpus}, to mono FLAC at {params.downsample.sample_rate} Hz", flush=True)
    rows: list[Row] = []
    try:
        with atomic_folder(CLEAN) as folder:
            rows.extend(_converted(found, folder, params))
            used = [row for row in rows if row.status == "ok"]
            rejected = [row for row in rows if row.status == "rejected" and named_audio(Path(row.path))]
            _check_rejected(rows, used, rejected, params)
            pq.write_table(_table(rows), folder / MANIFEST)
    except NoSpace as error:
        done = len(rows) / len(found)
        raise StageError(f"{error}" + (f"; about {size(error.free / done)} in all" if done else "")) from error
    if rejected:
        print(_listing(rejected), file=sys.stderr)
    others = len(rows) - len(used) - len(rejected)
    print(
        f"{len(used)} files used, {len(rejected)} rejected, {others} others passed over: "
        f"{sum(row.seconds_in or 0 for row in used) / 3600:.2f} h in, "
        f"{sum(row.seconds_out or 0 for row in used) / 3600:.2f} h out, in {CLEAN}; {time.monotonic() - started:.0f} s"
    )


def _table(rows: list[Row]) -> pa.Table:
    # Of a list, Arrow makes an array only after loading pandas, a fifth of a second. JSON it reads by itself.
    lines = "\n".join(json.dumps(asdict(row)) for row in rows).encode()
    options = pa.json.ParseOptions(explicit_schema=SCHEMA, newlines_in_values=False)
    return pa.json.read_json(io.BytesIO(lines), parse_options=options).combine_chunks().cast(SCHEMA)


def _converted(found: list[Found], folder: Path, params: Params) -> Iterator[Row]:
    corpus = params.corpus.path
    outputs = output_names([item.path for item in found])
    jobs = (
        Job(
            f"{corpus.rstrip('/')}/{item.path}" if is_url(corpus) else Path(corpus).absolute() / item.path,
            text(item.path),
            item.problem,
            folder.absolute(),
            output,
            singer(item.path),
            params.downsample,
        )
        for item, output in zip(found, outputs, strict=True)
    )
    return parallel(
        convert_file,
        jobs,
        total=len(found),
        label="downsample",
        unit="files",
        scheduler=params.execution.dask_scheduler,
        shared=[] if is_url(corpus) else [Path(corpus)],
    )


def _check_rejected(rows: list[Row], used: list[Row], rejected: list[Row], params: Params) -> None:
    if not used:
        raise StageError(f"corpus.path: no usable recording in {params.corpus.path}; {_listing(rows)}")
    share = len(rejected) / (len(rejected) + len(used))
    if share > params.downsample.max_rejected:
        limit = f"more than downsample.max_rejected: {params.downsample.max_rejected}"
        raise StageError(
            f"{share:.0%} of the recordings in {params.corpus.path} are rejected, {limit}; {_listing(rejected)}"
        )


def _check_folders(corpus: Path) -> None:
    if not corpus.is_dir():
        raise StageError(f"corpus.path: {corpus} is not a folder" + ("" if corpus.exists() else "; it does not exist"))
    source, target = corpus.resolve(), CLEAN.resolve()
    if source.is_relative_to(target) or target.is_relative_to(source):
        raise StageError(f"corpus.path: {corpus} and the output folder {CLEAN} lie inside each other")


def _listing(rejected: list[Row]) -> str:
    """One line per file; names with control characters as Python writes them."""
    lines = [f"  {row.path if row.path.isprintable() else repr(row.path)}: {row.reason}" for row in rejected[:LISTED]]
    if len(rejected) > LISTED:
        lines.append(f"  and {len(rejected) - LISTED} more")
    return "\n".join(["rejected:", *lines])


def convert_file(job: Job) -> Row:
    """Convert one file, or say why not."""
    if job.problem is not None:
        return Row(job.name, "rejected", job.singer, reason=job.problem)
    source: AbstractContextManager[Path] = (
        fetched(job.source) if isinstance(job.source, str) else nullcontext(job.source)
    )
    try:
        with source as path:
            return _convert(job, path)
    except UnusableAudio as error:
        suffix = PurePosixPath(job.name).suffix.lower()
        foreign = isinstance(error, NotAudio) and suffix in UNREADABLE
        reason = f"audio of a kind that cannot be read ({suffix}); convert it to FLAC or WAV" if foreign else str(error)
        return Row(job.name, "rejected", job.singer, reason=reason)


def _convert(job: Job, path: Path) -> Row:
    source = inspect(path)
    if source.sample_rate < MIN_SOURCE_RATE:
        least = f"the least is {MIN_SOURCE_RATE} Hz"
        raise UnusableAudio(f"a sample rate of {source.sample_rate} Hz, which holds no sound; {least}")
    if source.seconds < job.settings.min_seconds:
        raise UnusableAudio(f"shorter than downsample.min_seconds {job.settings.min_seconds}: {source.seconds:.3f} s")
    target = job.folder / job.output
    # Never the folder itself: without it the stage has ended, and nobody would take what is written there.
    for parent in reversed(PurePosixPath(job.output).parents[:-1]):
        (job.folder / parent).mkdir(exist_ok=True)
    levels = convert(source, target, job.settings.sample_rate)
    return Row(
        job.name,
        "ok",
        job.singer,
        output=job.output,
        source_rate=source.sample_rate,
        channels=source.channels,
        seconds_in=source.seconds,
        seconds_out=levels.samples / job.settings.sample_rate,
        peak=levels.peak,
        rms=levels.rms,
        gain=levels.gain,
    )


if __name__ == "__main__":
    # By the name under which the workers of a cluster find what they are sent.
    from stages.downsample import downsample as stage

    main(stage, __doc__)
