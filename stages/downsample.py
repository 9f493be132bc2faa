"""Turn the corpus into mono recordings at one rate: corpus.path -> data/24k/**.flac and data/24k/manifest.parquet.

Every file below corpus.path is tried, whatever its name. A file that libsndfile reads becomes 24-bit FLAC at
downsample.sample_rate, the mean of its channels, at the same relative path. Pauses longer than
downsample.max_pause_seconds are cut to that length, silence at the beginning and the end to half of it.
manifest.parquet has one row per file. A file that cannot be used (not audio, truncated, damaged, empty, all zeros, NaN
or infinite samples, a rate below 1 kHz, shorter than downsample.min_seconds) is listed there with the reason, and the
others are still converted. A recording that is there twice, at another gain or in another lossless format too, is used
once, under the first of its paths. The stage fails if no file can be used, or if more than downsample.max_rejected of
the recordings are rejected; duplicates and files that are hidden or not named like audio (notes, covers, labels) are
not rejected in that sense. Hidden folders are skipped. Links to files inside the corpus are followed; other links are
rejected. The first folder below corpus.path names the singer.
corpus.path may be a URL of any file system that fsspec knows (s3://bucket/folder); its files are fetched one by one.
"""

import sys
import time
from pathlib import Path

from humanize import naturalsize

from melnet.data.atomic import NoSpace, atomic_folder
from stages.command import StageError, main
from stages.corpus.conversion import convert_file, find, jobs, source_of
from stages.corpus.duplicates import mark_duplicates
from stages.corpus.files import named_audio
from stages.corpus.manifest import Row, write_manifest
from stages.corpus.remote import is_url
from stages.execution.parallel import parallel
from stages.parameters import Params
from stages.paths import CLEAN

LISTED = 20  # rejected files, or duplicates, that a message names


def downsample(params: Params) -> None:
    """Write ``data/24k``; raise :class:`StageError` if the corpus is missing or too few of its files can be used."""
    started = time.monotonic()
    corpus, settings = params.corpus.path, params.downsample
    if not is_url(corpus):
        _check_folders(Path(corpus))
    found = find(corpus)
    if not found:
        raise StageError(f"corpus.path: {corpus} holds no files")
    print(f"{len(found)} files below {corpus}, to mono FLAC at {settings.sample_rate} Hz", flush=True)
    rows: list[Row] = []
    try:
        with atomic_folder(CLEAN) as folder:
            converted = parallel(
                convert_file,
                jobs(found, corpus, folder, settings),
                total=len(found),
                label="downsample",
                unit="files",
                scheduler=params.execution.dask_scheduler,
                shared=[] if is_url(corpus) else [Path(corpus)],
            )
            rows.extend(converted)
            rejected = [row for row in rows if row["status"] == "rejected" and named_audio(Path(row["path"]))]
            _check_rejected(rows, rejected, params)
            rows = mark_duplicates(rows, [source_of(item, corpus) for item in found], folder)
            write_manifest(folder, rows)
    except NoSpace as error:
        done = len(rows) / len(found)
        raise StageError(f"{error}" + (f"; about {naturalsize(error.free / done)} in all" if done else "")) from error
    used = [row for row in rows if row["status"] == "ok"]
    duplicates = [row for row in rows if row["status"] == "duplicate"]
    for kind, listed in (("rejected", rejected), ("duplicates", duplicates)):
        if listed:
            print(_listing(kind, listed), file=sys.stderr)
    others = len(rows) - len(used) - len(rejected) - len(duplicates)
    print(
        f"{len(used)} files used, {len(rejected)} rejected, {len(duplicates)} duplicates, {others} others skipped: "
        f"{sum(row['seconds_in'] for row in used) / 3600:.2f} h in, "
        f"{sum(row['seconds_removed'] for row in used) / 60:.1f} min of pauses removed, "
        f"{sum(row['seconds_out'] for row in used) / 3600:.2f} h out, in {CLEAN}; {time.monotonic() - started:.0f} s"
    )


def _check_rejected(rows: list[Row], rejected: list[Row], params: Params) -> None:
    usable = sum(row["status"] == "ok" for row in rows)
    if not usable:
        raise StageError(f"corpus.path: no usable recording in {params.corpus.path}; {_listing('rejected', rows)}")
    share = len(rejected) / (len(rejected) + usable)
    if share > params.downsample.max_rejected:
        limit = f"more than downsample.max_rejected: {params.downsample.max_rejected}"
        listing = _listing("rejected", rejected)
        raise StageError(f"{share:.0%} of the recordings in {params.corpus.path} are rejected, {limit}; {listing}")


def _check_folders(corpus: Path) -> None:
    if not corpus.is_dir():
        raise StageError(f"corpus.path: {corpus} is not a folder" + ("" if corpus.exists() else "; it does not exist"))
    source, target = corpus.resolve(), CLEAN.resolve()
    if source.is_relative_to(target) or target.is_relative_to(source):
        raise StageError(f"corpus.path: {corpus} and the output folder {CLEAN} lie inside each other")


def _listing(kind: str, rows: list[Row]) -> str:
    """One line per file; control characters in names are escaped."""
    lines = [f"  {_printable(row['path'])}: {_printable(row['reason'])}" for row in rows[:LISTED]]
    if len(rows) > LISTED:
        lines.append(f"  and {len(rows) - LISTED} more")
    return "\n".join([f"{kind}:", *lines])


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)


if __name__ == "__main__":
    main(downsample, __doc__)
