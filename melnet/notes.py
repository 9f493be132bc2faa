"""Notes for one voice, with what is sung on them: from MIDI files, and from melodies written as text.

A melody as text has a line per note: its name, its length in beats, and the phonemes sung on it, as in ``C#4 1.5 l a``.
``rest 2`` is a rest, ``tempo 96`` sets the beats per minute of what follows (120 before it), and ``#`` with a space
begins a remark.
"""

import io
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import mido
import numpy as np

from melnet.data.labels.label import LabelError
from melnet.data.labels.text import read_lines
from melnet.errors import MelnetError

MAX_SECONDS = 3600.0  # a longer score comes from a damaged file
LEGATO_SECONDS = 0.05  # by which notes played on a keyboard overlap
LYRIC_SECONDS = 0.02  # between a note and its lyric event
HELD = {"-", "_", "+", "ー"}  # lyrics that hold the vowel of the note before
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
NOTE = re.compile(r"([A-G])([#b]?)(-1|\d)")
REMARK = re.compile(r"(^|\s)#(\s.*|$)")


class NotesError(MelnetError):
    """Notes cannot be used; the message names the file and the place in it."""


class Note(NamedTuple):
    """A note, and what is sung on it."""

    start: float
    """in seconds"""
    end: float
    """in seconds, after ``start``"""
    pitch: float
    """MIDI number; 69 is 440 Hz"""
    lyric: str = ""
    """phonemes of its syllable, separated by spaces; empty where the vowel of the note before goes on"""


def note_name(pitch: float) -> str:
    """Name of the nearest note.

    >>> note_name(69.3)
    'A4'
    """
    number = round(pitch)
    return f"{NAMES[number % 12]}{number // 12 - 1}"


class _Placed(NamedTuple):
    track: str
    note: Note


def read_midi(path: Path) -> list[Note]:
    """Read the notes of a MIDI file in order, from all of its tracks; its lyric events are the notes' lyrics.

    Of notes that overlap by no more than ``LEGATO_SECONDS``, as in legato, the earlier ends where the later begins, and
    so does a key that is struck again.

    Raises
    ------
    NotesError
        The file is damaged or of an uncommon kind, has no notes or overlapping ones, or a lyric that no note begins
        with. The message names the file, the track and the time.

    >>> from tempfile import TemporaryDirectory
    >>> track = mido.MidiTrack([mido.Message("note_on", note=69), mido.Message("note_off", note=69, time=480)])
    >>> with TemporaryDirectory() as folder:
    ...     mido.MidiFile(tracks=[track]).save(Path(folder, "a.mid"))
    ...     read_midi(Path(folder, "a.mid"))
    [Note(start=0.0, end=0.5, pitch=69, lyric='')]
    """
    file = _opened(path)
    seconds = _clock(file)
    notes: list[_Placed] = []
    lyrics: list[tuple[str, float, str]] = []
    for number, track in enumerate(file.tracks, 1):
        place, tick = f"{path}, track {number} {track.name!r}", 0
        sounding: dict[tuple[int, int], list[int]] = defaultdict(list)  # a key that is struck again has two starts
        for message in track:
            tick += message.time
            struck = message.type == "note_on" and message.velocity > 0
            if struck:
                sounding[message.channel, message.note].append(tick)
            elif message.type in ("note_on", "note_off") and (starts := sounding[message.channel, message.note]):
                notes.append(_Placed(place, Note(seconds(starts.pop(0)), seconds(tick), message.note)))
            elif message.type == "lyrics":
                lyrics.append((place, seconds(tick), message.text))
        for (_, pitch), starts in sounding.items():  # notes that never end last to the end of the track
            notes += [_Placed(place, Note(seconds(start), seconds(tick), pitch)) for start in starts]
    whole = sorted((placed for placed in notes if placed.note.end > placed.note.start), key=lambda placed: placed.note)
    if not whole:
        raise NotesError(f"{path}: has no notes")
    if whole[-1].note.end > MAX_SECONDS:
        raise NotesError(f"{path}: lasts {whole[-1].note.end:.0f} s; at most {MAX_SECONDS:.0f} s are sung")
    return _with_lyrics(_one_voice(whole), lyrics)


def _opened(path: Path) -> mido.MidiFile:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NotesError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        file = mido.MidiFile(file=io.BytesIO(content), charset="latin1")  # any byte is a character of it
    except Exception as error:  # of many classes, as the damage has it
        raise NotesError(
            f"{path}: not a MIDI file, or damaged: {' '.join(str(error).split()) or 'truncated'}"
        ) from error
    if file.type == 2:
        raise NotesError(f"{path}: MIDI format 2, whose tracks follow no common time; save it as format 0 or 1")
    if file.ticks_per_beat <= 0:
        raise NotesError(f"{path}: its times are SMPTE frames; save it with times in beats")
    return file


def _clock(file: mido.MidiFile) -> Callable[[int], float]:
    """The function from ticks to seconds, with the tempo changes of all tracks."""
    changes = {0: 500_000}  # µs per beat, before the first change
    for track in file.tracks:
        tick = 0
        for message in track:
            tick += message.time
            if message.type == "set_tempo":
                changes[tick] = message.tempo
    ticks = np.array(sorted(changes))
    rates = np.array([changes[tick] for tick in ticks.tolist()]) * 1e-6 / file.ticks_per_beat  # s per tick
    begins = np.concatenate([[0.0], np.cumsum(np.diff(ticks) * rates[:-1])])

    def seconds(tick: int) -> float:
        i = int(np.searchsorted(ticks, tick, side="right")) - 1
        return float(begins[i] + (tick - ticks[i]) * rates[i])

    return seconds


def _one_voice(placed: list[_Placed]) -> list[Note]:
    notes = [item.note for item in placed]
    for i, (before, (place, note)) in enumerate(pairwise(placed)):
        overlap, struck_again = before.note.end - note.start, note.pitch == before.note.pitch
        chord = note.start - before.note.start <= LEGATO_SECONDS
        if overlap > (1e-6 if chord else LEGATO_SECONDS) and not struck_again:
            names = f"{note_name(note.pitch)} begins while {note_name(before.note.pitch)} is sung"
            raise NotesError(f"{place}, {note.start:.3f} s: {names}; one voice is expected")
        if overlap > 0:
            notes[i] = notes[i]._replace(end=note.start)
    return [note for note in notes if note.end > note.start]


def _with_lyrics(notes: list[Note], lyrics: Sequence[tuple[str, float, str]]) -> list[Note]:
    starts = np.array([note.start for note in notes])
    for place, seconds, latin in lyrics:
        try:
            text = latin.encode("latin1").decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise NotesError(f"{place}, {seconds:.3f} s: a lyric event is not in UTF-8") from error
        if not text:
            continue
        i = int(np.argmin(np.abs(starts - seconds)))
        if abs(starts[i] - seconds) > LYRIC_SECONDS:
            raise NotesError(f"{place}, {seconds:.3f} s: no note begins with the lyric {text!r}")
        if text not in HELD:
            notes[i] = notes[i]._replace(lyric=f"{notes[i].lyric} {text}".strip())
    return notes


def read_melody(path: Path) -> list[Note]:
    """Read a melody as text; see the beginning of this module.

    Raises
    ------
    NotesError
        A line cannot be understood, or there are no notes; the message names the file and the line.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     characters = Path(folder, "a.txt").write_text("tempo 60\\nA4 1.5 l a\\n")
    ...     read_melody(Path(folder, "a.txt"))
    [Note(start=0.0, end=1.5, pitch=69, lyric='l a')]
    """
    try:
        lines = read_lines(path)
    except LabelError as error:
        raise NotesError(str(error)) from error
    notes, seconds, beat = [], 0.0, 0.5
    for number, line in enumerate(lines, 1):
        word, *rest = REMARK.sub("", line).split() or [""]
        if not word:
            continue
        place = f"{path}, line {number}"
        value = _positive(place, rest[0] if rest else "")
        if word == "tempo":
            beat = 60 / value
            continue
        start, seconds = seconds, seconds + value * beat
        if seconds > MAX_SECONDS:
            raise NotesError(f"{place}: it is sung after {seconds:.0f} s; at most {MAX_SECONDS:.0f} s are sung")
        if word != "rest":
            lyric = " ".join(rest[1:])
            notes.append(Note(start, seconds, _pitch(place, word), "" if lyric in HELD else lyric))
    if not notes:
        raise NotesError(f"{path}: has no notes")
    return notes


def _positive(place: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1e-3 <= value <= 1e6:
        raise NotesError(f"{place}: expected a number of beats, or of beats per minute, but it is {text[:20]!r}")
    return value


def _pitch(place: str, name: str) -> int:
    found = NOTE.fullmatch(name)
    if not found:
        raise NotesError(f"{place}: expected a note such as C#4, rest or tempo, but it is {name[:20]!r}")
    letter, accidental, octave = found.groups()
    return 12 * (int(octave) + 1) + NAMES.index(letter) + {"": 0, "#": 1, "b": -1}[accidental]
