"""The conversion of a corpus to mono FLAC at one rate, file by file, on this machine or on another."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from melnet.audio.convert import convert, inspect
from melnet.audio.integrity import NotAudio, UnusableAudio
from stages.corpus.files import UNREADABLE, Found, as_unicode, output_names, singer, walk
from stages.corpus.manifest import Row
from stages.corpus.remote import is_url, on_disk, walk_url
from stages.parameters import Downsample

# Hz; a lower rate comes from a damaged header, and resampling would turn a few bytes into an hour of noise.
MIN_SOURCE_RATE = 1000
SKETCH = "sketch"  # key of a row that the manifest does not have


@dataclass(frozen=True)
class Job:
    """A file to convert; its paths are absolute, since another machine may do it."""

    source: Path | str  # a string is a URL
    name: str  # path below the corpus, as in the manifest
    problem: str | None  # reason to reject the file without opening it
    folder: Path  # of all results
    output: str  # path of this result below the folder
    singer: str | None
    settings: Downsample


def find(corpus: str) -> list[Found]:
    """All files of a corpus, a folder or a URL, in the order of the manifest."""
    found = walk_url(corpus) if is_url(corpus) else walk(Path(corpus))
    return sorted(found, key=lambda item: as_unicode(item.path))


def jobs(found: list[Found], corpus: str, folder: Path, settings: Downsample) -> Iterator[Job]:
    """Yield a job for each file found in the corpus, to be converted into ``folder``."""
    for item, output in zip(found, output_names([item.path for item in found]), strict=True):
        source, name = source_of(item, corpus), as_unicode(item.path)
        yield Job(source, name, item.problem, folder.absolute(), output, singer(item.path), settings)


def source_of(item: Found, corpus: str) -> Path | str:
    """Where a file of the corpus is: an absolute path, or a URL."""
    return f"{corpus.rstrip('/')}/{item.path}" if is_url(corpus) else Path(corpus).absolute() / item.path


def convert_file(job: Job) -> Row:
    """Convert one file; return its row of the manifest, with the reason if the file is rejected.

    The row of a file that is used also has its :class:`melnet.audio.sketch.Sketch`, which
    :func:`stages.corpus.duplicates.mark_duplicates` takes out.
    """
    row = {"path": job.name, "singer": job.singer}
    try:
        if job.problem is not None:
            raise UnusableAudio(job.problem)
        with on_disk(job.source) as path:
            return row | {"status": "ok"} | _convert(job, path)
    except UnusableAudio as error:
        reason, suffix = str(error), PurePosixPath(job.name).suffix.lower()
        if isinstance(error, NotAudio) and suffix in UNREADABLE:
            reason = f"audio of a kind that cannot be read ({suffix}); convert it to FLAC or WAV"
        return row | {"status": "rejected", "reason": reason}


def _convert(job: Job, path: Path) -> Row:
    settings, source = job.settings, inspect(path)
    if source.sample_rate < MIN_SOURCE_RATE:
        least = f"the least is {MIN_SOURCE_RATE} Hz"
        raise UnusableAudio(f"a sample rate of {source.sample_rate} Hz, which holds no sound; {least}")
    if source.seconds < settings.min_seconds:
        raise UnusableAudio(f"shorter than downsample.min_seconds {settings.min_seconds}: {source.seconds:.3f} s")
    # The folder itself is never made: if it is gone, the stage has ended and nobody will use the result.
    for parent in reversed(PurePosixPath(job.output).parents[:-1]):
        (job.folder / parent).mkdir(exist_ok=True)
    target = job.folder / job.output
    converted = convert(source, target, settings.sample_rate, settings.max_pause_seconds)
    seconds, levels = converted.samples / settings.sample_rate, converted.levels
    if converted.cuts and seconds < settings.min_seconds:
        target.unlink()
        least = f"downsample.min_seconds {settings.min_seconds}"
        raise UnusableAudio(f"shorter than {least} without its pauses: {seconds:.3f} s")
    return {
        "output": job.output,
        "source_rate": source.sample_rate,
        "channels": source.channels,
        "seconds_in": source.seconds,
        "seconds_out": seconds,
        "seconds_removed": (levels.samples - converted.samples) / settings.sample_rate,
        "pauses": [
            {"start": cut.start / settings.sample_rate, "seconds": (cut.stop - cut.start) / settings.sample_rate}
            for cut in converted.cuts
        ],
        "peak": levels.peak,
        "rms": levels.rms,
        "gain": levels.gain,
        SKETCH: converted.sketch,
    }
