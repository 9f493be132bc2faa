"""Say what is sung at each frame: data/pitch and the corpus' label files -> data/tracks/tracks.parquet.

With melody in model.condition_on, every recording gets the track of its pitch and voicing. With phonemes, a recording
that has a label file beside it, with the same stem and the suffix .lab, .TextGrid, .lrc or .srt, gets the track of its
phonemes, and the others are used without. A label file that cannot be used is listed; more of them than
downsample.max_rejected fail the stage. With neither condition the file has no rows. Labels have the times of the
original recording, tracks those of data/24k, whose pauses are shorter.
"""

import sys
import time
from collections.abc import Iterator
from typing import Any

from melnet.data.atomic import atomic_folder
from melnet.data.frame_conditions import recording_tracks, vocabulary_of
from melnet.data.labels.label import Labels
from melnet.data.labels.read import READERS
from melnet.data.pitch_tracks import read_pitch_tracks
from melnet.data.tracks import CONDITIONS, TrackSpec, Vocabulary, write_tracks
from stages.command import StageError, main
from stages.corpus.label_files import Labelled, Rejected, cuts_of, label_files, read_all
from stages.corpus.manifest import Row, read_manifest
from stages.parameters import Params
from stages.paths import CLEAN, PITCH, TRACKS

LISTED = 20  # rejected label files that a message names


def tracks(params: Params) -> None:
    """Write ``data/tracks``; raise :class:`StageError` if labels are asked for and none, or too few, can be used."""
    started = time.monotonic()
    conditions = tuple(name for name in CONDITIONS if name in params.model.conditions)
    rows = [row for row in read_manifest(CLEAN) if row["status"] == "ok"] if conditions else []
    labels = _labels(rows, params) if "phonemes" in conditions else {}
    vocabulary = Vocabulary()
    if labels:
        unit = next(iter(labels.values())).unit
        vocabulary = vocabulary_of(unit, (found.labels for found in labels.values()))
    spec = TrackSpec(params.mel_spec.sample_rate, params.mel_spec.hop_length, conditions, vocabulary)
    with atomic_folder(TRACKS) as folder:
        spec = write_tracks(folder, spec, _tracks(rows, labels, vocabulary, params))
    if not conditions:
        print(f"model.condition_on names neither {' nor '.join(CONDITIONS)}: no tracks, in {TRACKS}")
        return
    low, high = spec.range_hz or (0, 0)
    parts = [f"melody from {low:g} to {high:g} Hz"] if "melody" in conditions else []
    if labels:
        parts.append(f"{len(vocabulary.names)} {vocabulary.unit} in {len(labels)} of them")
    print(f"{len(rows)} recordings: {', '.join(parts)}, in {TRACKS}; {time.monotonic() - started:.0f} s")


def _tracks(
    rows: list[Row], labels: dict[str, Labels], vocabulary: Vocabulary, params: Params
) -> Iterator[tuple[str, Any, Any]]:
    """The name, the melody and the phonemes of each recording."""
    mel = params.mel_spec
    pitch = read_pitch_tracks(PITCH) if rows else {}
    for row in rows:
        name, samples = row["path"], round(row["seconds_out"] * mel.sample_rate)
        if name not in pitch:
            raise StageError(f"{PITCH}: has no pitch of {name}; run the stage pitch again")
        found = labels[name].labels if name in labels else None
        yield name, *recording_tracks(samples, mel, pitch[name], found, cuts_of(row, mel.sample_rate), vocabulary)


def _labels(rows: list[Row], params: Params) -> dict[str, Labels]:
    """The labels by recording; says how times were written and which files cannot be used."""
    corpus = params.corpus.path
    found = list(read_all(label_files(corpus, rows), rows))
    labels = {item.recording: item.labels for item in found if isinstance(item, Labelled)}
    rejected = [item for item in found if isinstance(item, Rejected)]
    if rejected:
        more = [f"  and {len(rejected) - LISTED} more"] if len(rejected) > LISTED else []
        print(
            "\n".join(["labels rejected:", *(f"  {item.reason}" for item in rejected[:LISTED]), *more]), file=sys.stderr
        )
    limit = params.downsample.max_rejected
    if len(rejected) > limit * len(found):
        raise StageError(
            f"{len(rejected)} of {len(found)} label files in {corpus} are rejected, more than downsample.max_rejected: "
            f"{limit}; {rejected[0].reason}"
        )
    if not labels:
        suffixes = ", ".join(READERS)
        raise StageError(f"model.condition_on: phonemes, but no recording in {corpus} has a label file ({suffixes})")
    for times in sorted({item.times for item in labels.values()}):
        files = sum(item.times == times for item in labels.values())
        print(f"{files} label files with times in units of {times}")
    return labels


if __name__ == "__main__":
    main(tracks, __doc__)
