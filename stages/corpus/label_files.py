"""The label files of a corpus: a file beside a recording, with the same stem and a suffix of labels."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from melnet.audio.pauses import Cut
from melnet.data.labels.label import LabelError, Labels
from melnet.data.labels.read import Reader
from stages.corpus.conversion import find, source_of
from stages.corpus.files import as_unicode
from stages.corpus.manifest import Row
from stages.corpus.remote import on_disk


class Labelled(NamedTuple):
    """A recording and its labels."""

    recording: str
    labels: Labels


class Rejected(NamedTuple):
    """A recording whose labels cannot be used."""

    recording: str
    reason: str


def label_files(corpus: str, rows: Sequence[Row], readers: Mapping[str, Reader]) -> dict[str, Path | str]:
    """The label file, or its URL, of each usable recording that has one, by the name of the recording.

    Of several files with one stem the first in the order of ``readers``, which are by suffix, is taken.
    """
    order = list(readers)
    found: dict[str, list[tuple[int, str, Path | str]]] = {}
    for item in find(corpus):
        suffix = item.path.suffix.lower()
        if suffix in readers and item.problem is None:
            name = as_unicode(item.path)
            found.setdefault(_stem(name), []).append((order.index(suffix), name, source_of(item, corpus)))
    chosen = ((row["path"], found.get(_stem(row["path"]))) for row in rows if row["status"] == "ok")
    return {name: min(files, key=lambda file: file[:2])[2] for name, files in chosen if files}


def cuts_of(row: Row, sample_rate: int) -> list[Cut]:
    """What was left out of a recording of the manifest, in samples."""
    starts = [(round(pause["start"] * sample_rate), round(pause["seconds"] * sample_rate)) for pause in row["pauses"]]
    return [Cut(start, start + samples) for start, samples in starts]


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def read_all(
    files: Mapping[str, Path | str], rows: Sequence[Row], readers: Mapping[str, Reader]
) -> Iterator[Labelled | Rejected]:
    """Read the label files of recordings in the order of the manifest; times are checked against the recording's end.

    The unit of the first usable file, phonemes or characters, is that of the corpus; files of the other are rejected.
    """
    first: Labelled | None = None
    for row in rows:
        if row["path"] not in files:
            continue
        source = files[row["path"]]
        with on_disk(source) as path:
            try:
                labelled = Labelled(row["path"], readers[path.suffix.lower()](path, row["seconds_in"]))
            except LabelError as error:
                # A file of a URL has another name on this disk.
                yield Rejected(row["path"], str(error).replace(str(path), str(source)))
                continue
        first = first or labelled
        if labelled.labels.unit != first.labels.unit:
            of_first = f"those of {first.recording} are {first.labels.unit}"
            yield Rejected(row["path"], f"{source}: its labels are {labelled.labels.unit}, but {of_first}")
            continue
        yield labelled
