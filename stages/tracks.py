"""Say what is sung at each frame: data/pitch and the corpus' label files -> data/tracks/tracks.parquet.

With melody in model.condition_on, every recording gets the track of its pitch and voicing. With phonemes, a recording
that has a label file beside it, with the same stem and the suffix .lab, .TextGrid, .lrc or .srt, gets the track of its
phonemes, and the others are used without. With text, a recording with such a file, or with a .txt of what is said or
sung in it, gets its text by utterance, without times. A label file that cannot be used is listed; more of them than
downsample.max_rejected fail the stage. With none of these conditions the file has no rows. Labels have the times of the
original recording, tracks those of data/24k, whose pauses are shorter.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from melnet.data.atomic import atomic_folder
from melnet.data.frame_conditions import frame_seconds, recording_tracks, vocabulary_of
from melnet.data.labels.label import Labels
from melnet.data.labels.plain import read_plain
from melnet.data.labels.read import READERS
from melnet.data.pitch_tracks import read_pitch_tracks
from melnet.data.texts import TextSpec, Utterance, alphabet_of, utterances_at, write_texts
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
    with_text = "text" in params.model.conditions
    rows = [row for row in read_manifest(CLEAN) if row["status"] == "ok"] if conditions or with_text else []
    labels = _labels(rows, params, with_text) if with_text or "phonemes" in conditions else {}
    vocabulary = Vocabulary()
    if "phonemes" in conditions:
        unit = next(iter(labels.values())).unit
        vocabulary = vocabulary_of(unit, (found.labels for found in labels.values()))
    spec = TrackSpec(params.mel_spec.sample_rate, params.mel_spec.hop_length, conditions, vocabulary)
    with atomic_folder(TRACKS) as folder:
        spec = write_tracks(folder, spec, _tracks(rows, labels, vocabulary, params) if conditions else ())
        utterances = _write_texts(folder, rows, labels, params) if with_text else 0
    if with_text:
        print(f"{len(rows)} recordings: {utterances} utterances in {len(labels)} of them, in {TRACKS}")
    if not conditions:
        print(f"model.condition_on names neither {' nor '.join(CONDITIONS)}: no tracks, in {TRACKS}")
        return
    low, high = spec.range_hz or (0, 0)
    parts = [f"melody from {low:g} to {high:g} Hz"] if "melody" in conditions else []
    if "phonemes" in conditions:
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
        found = labels[name].labels if name in labels and vocabulary.names else None
        yield name, *recording_tracks(samples, mel, pitch[name], found, cuts_of(row, mel.sample_rate), vocabulary)


def _write_texts(folder: Path, rows: list[Row], labels: dict[str, Labels], params: Params) -> int:
    """Write the texts of all utterances; returns their number."""
    mel = params.mel_spec
    unit = next(iter(labels.values())).unit
    alphabet = alphabet_of(unit, (found.labels for found in labels.values()))

    def texts() -> Iterator[tuple[str, list[Utterance]]]:
        for row in rows:
            if found := labels.get(row["path"]):
                samples = round(row["seconds_out"] * mel.sample_rate)
                seconds = frame_seconds(samples, mel, cuts_of(row, mel.sample_rate))
                yield row["path"], utterances_at(found.labels, seconds, alphabet)

    return write_texts(folder, TextSpec(mel.sample_rate, mel.hop_length, alphabet), texts())


def _labels(rows: list[Row], params: Params, with_text: bool) -> dict[str, Labels]:
    """The labels by recording; says how times were written and which files cannot be used."""
    corpus = params.corpus.path
    readers = {**READERS, **({".txt": read_plain} if with_text else {})}
    found = list(read_all(label_files(corpus, rows, readers), rows, readers))
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
        suffixes, named = ", ".join(readers), "text" if with_text else "phonemes"
        raise StageError(f"model.condition_on: {named}, but no recording in {corpus} has a label file ({suffixes})")
    for times in sorted({item.times for item in labels.values()}):
        files = sum(item.times == times for item in labels.values())
        print(f"{files} label files with times in units of {times}")
    return labels


if __name__ == "__main__":
    main(tracks, __doc__)
