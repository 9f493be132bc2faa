"""Recordings that a corpus holds more than once: the first is used, the others are not."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from melnet.audio.duplicates import alike, same_recording
from melnet.audio.integrity import UnusableAudio
from stages.command import StageError
from stages.corpus.conversion import SKETCH
from stages.corpus.manifest import Row
from stages.corpus.remote import on_disk


def mark_duplicates(rows: list[Row], sources: Sequence[Path | str], folder: Path) -> list[Row]:
    """Return the rows without their sketches, and with the status ``duplicate`` where an earlier one has the recording.

    Sketches tell which recordings of one length may be the same; then the samples are compared. The FLAC files of the
    duplicates are removed from ``folder``.

    Parameters
    ----------
    rows
        As :func:`stages.corpus.conversion.convert_file` returns them, in the order of the manifest.
    sources
        The file or URL of each row.
    """
    marked = [{key: value for key, value in row.items() if key != SKETCH} for row in rows]
    for group in _of_one_length(rows):
        sketches = np.stack([rows[i][SKETCH] for i in group])
        kept: list[int] = []
        for i in group:
            candidates = (kept[k] for k in alike(sketches[: len(kept)], rows[i][SKETCH]))
            original = next((j for j in candidates if _same(sources[j], sources[i])), None)
            if original is None:
                sketches[len(kept)] = rows[i][SKETCH]
                kept.append(i)
                continue
            _remove(folder, rows[i]["output"])
            marked[i] = {
                "path": rows[i]["path"],
                "singer": rows[i]["singer"],
                "status": "duplicate",
                "reason": f"same recording as {rows[original]['path']}",
            }
    return marked


def _of_one_length(rows: list[Row]) -> list[list[int]]:
    """The indices of usable recordings that have as many samples and the same rate as another, group by group."""
    groups = defaultdict(list)
    for i, row in enumerate(rows):
        if row["status"] == "ok":
            groups[row["source_rate"], row["seconds_in"]].append(i)
    return [group for group in groups.values() if len(group) > 1]


def _same(first: Path | str, second: Path | str) -> bool:
    with on_disk(first) as one, on_disk(second) as other:
        try:
            return same_recording(one, other)
        except UnusableAudio as error:  # both could be read a moment ago
            raise StageError(f"{first} and {second} cannot be compared: {error}") from error


def _remove(folder: Path, output: str) -> None:
    """Remove a file, and the folders that it leaves empty."""
    (folder / output).unlink()
    for parent in (folder / output).relative_to(folder).parents[:-1]:
        if any((folder / parent).iterdir()):
            return
        (folder / parent).rmdir()
