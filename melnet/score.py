"""Scores: what a model is to sing at each frame, from notes with phonemes or from a recording to follow.

The melody of notes is smoothed as measured ones are, which a model learns from. In PJS, a corpus of Japanese songs with
notes and labels, the pitch goes from 10 to 90 % of the way between tied notes within 50 ms (median of 191 changes), and
its middle lies 30 ms before the note, whose vowel begins with the note. Vibrato is left to the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.ndimage
import scipy.signal

from melnet.audio.mel import MelSpec
from melnet.audio.pauses import DEPTH_DB, FRAMES_PER_SECOND, LevelMeter, loud_power
from melnet.audio.pitch import FRAME_SECONDS, pitch_of
from melnet.audio.spectrogram import frame_count
from melnet.data.frame_conditions import melody_at, phonemes_at
from melnet.data.labels.label import Label
from melnet.data.labels.read import READERS, read_labels
from melnet.data.labels.text import letters
from melnet.data.texts import SILENCES
from melnet.data.tracks import ABSENT, RANGE_PERCENT, FrameTracks, Vocabulary
from melnet.errors import MelnetError
from melnet.notes import Note, note_name, read_melody, read_midi
from melnet.prime import read_recording

PORTAMENTO_SECONDS = 0.1  # of the Hann window that smooths the steps between notes: 50 ms from 10 to 90 %
LEAD_SECONDS = 0.03  # from the middle of a change of pitch to the beginning of the note
CURVE_HZ = 1000  # at which the steps are smoothed
TIED_SECONDS = 0.05  # between notes, at most, over which a vowel goes on
END_SECONDS = 0.3  # of silence after the last note
VOICED_SHARE = 0.6  # of the frames of a voiced phoneme, at least: in PJS z has 0.63, and t, between vowels, 0.51
MAX_GAIN_DB = 12.0  # by which a signal is made louder where a recording that it follows is
DEFAULT_SECONDS = 0.1  # of a phoneme whose duration in the corpus is not known
NOTE_READERS = {".mid": read_midi, ".midi": read_midi, ".txt": read_melody}
"""by suffix in lower case; any other file is a recording to follow"""


class ScoreError(MelnetError):
    """A score cannot be sung; the message names the file."""


@dataclass(frozen=True)
class Score:
    """A melody with its phonemes, frame by frame, and the notes and labels that it was made of, in seconds."""

    tracks: FrameTracks
    """melody (frames, 2) and phonemes (frames,), which are ``ABSENT`` where the score has none"""
    notes: tuple[Note, ...] = ()
    """none if a recording is followed"""
    labels: tuple[Label, ...] = ()
    loudness_db: np.ndarray | None = None
    """float32 (frames,): level of the recording that is followed, at most 45 dB below its loud level; None for notes"""

    @property
    def frames(self) -> int:
        """Frames of the spectrogram that sings it."""
        return next(len(track) for track in self.tracks.inputs().values())

    @property
    def pitch_hz(self) -> np.ndarray:
        """Pitch of each frame in Hz, 0 where it is not to be voiced; float32 (frames,)."""
        melody = self.tracks.melody
        assert melody is not None  # every score that was read has one
        return np.where(melody[:, 1] > 0, np.exp(melody[:, 0]), np.float32(0))


def read_score(
    path: Path, mel: MelSpec, vocabulary: Vocabulary | None = None, *, transpose: float = 0.0, tempo: float = 1.0
) -> Score:
    """Read what is to be sung: a MIDI file, a melody as text (``.txt``), or a recording to follow.

    Phonemes of notes are those of a label file beside it with the same stem, or the lyrics of the notes.

    Parameters
    ----------
    vocabulary
        Phonemes that the model knows; None if it knows none, and phonemes are not to be read.
    transpose
        Semitones by which the melody is raised.
    tempo
        Factor by which notes are sung faster; a recording is followed at its own.

    Raises
    ------
    ScoreError
        A phoneme is not in the vocabulary, or ``transpose`` or ``tempo`` cannot be.
    melnet.notes.NotesError, melnet.data.labels.label.LabelError, melnet.audio.integrity.UnusableAudio
        A file cannot be used; all are :class:`melnet.errors.MelnetError`, whose message names it.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     characters = Path(folder, "a.txt").write_text("rest 2\\nA4 2 l a")
    ...     vocabulary = Vocabulary("phonemes", ("a", "l"), seconds=(0.2, 0.1))
    ...     score = read_score(Path(folder, "a.txt"), MelSpec(), vocabulary, transpose=12)
    >>> score.frames, score.labels[0], float(np.exp(score.tracks.melody[60, 0]).round())
    (108, Label(start=0.9, end=1.0, name='l'), 880.0)
    """
    if not 0.1 <= tempo <= 10:
        raise ScoreError(f"tempo: {tempo} is not between 0.1 and 10")
    if not -48 <= transpose <= 48:
        raise ScoreError(f"transpose: {transpose} is not between -48 and 48 semitones")
    reader = NOTE_READERS.get(path.suffix.lower())
    if reader is None:
        if tempo != 1:
            raise ScoreError(f"{path}: tempo: {tempo} is for notes; a recording is followed at its own tempo")
        return follow(read_recording(path, mel.sample_rate), mel, transpose)
    vocabulary = vocabulary or Vocabulary()
    notes = [Note(a / tempo, b / tempo, pitch + transpose, lyric) for a, b, pitch, lyric in reader(path)]
    labels: list[Label] = []
    if vocabulary.names:
        beside = next((file for suffix in READERS if (file := _beside(path, suffix))), None)
        if beside:
            labels = [Label(a / tempo, b / tempo, name) for a, b, name in read_labels(beside).labels]
        else:
            labels = sung_labels(notes, vocabulary)
        unknown = [label for label in labels if label.name not in vocabulary.names]
        if unknown:
            known = ", ".join(vocabulary.names)
            where = f"{unknown[0].name!r} at {unknown[0].start * tempo:.3f} s"
            raise ScoreError(f"{beside or path}: {where} is none of the model's {vocabulary.unit}: {known}")
    return score_of(notes, labels, mel, vocabulary)


def _beside(path: Path, suffix: str) -> Path | None:
    """The file with the same stem and a suffix in any case."""
    names = sorted(path.parent.glob(f"{path.stem.translate(_ESCAPED)}.*"))
    return next((name for name in names if name.stem == path.stem and name.suffix.lower() == suffix), None)


_ESCAPED = str.maketrans({character: f"[{character}]" for character in "*?["})


class _Syllable(NamedTuple):
    """Phonemes that are sung on one note, or on several tied ones: those before the one that is held, and behind it."""

    first: Note
    last: Note
    onset: list[str]
    held: str
    coda: list[str]


def sung_labels(notes: Sequence[Note], vocabulary: Vocabulary) -> list[Label]:
    """Times of the phonemes in the lyrics of notes, in the order of the notes.

    Of the phonemes of a syllable, the one that is longest in the corpus is held; it begins with the note. Those before
    it are sung in time for that, those behind it end with the syllable, and all of them last as long as they do in the
    corpus, but take at most half of a note. Elsewhere is the corpus' silence, if it has a name.

    >>> vocabulary = Vocabulary("phonemes", ("a", "pau", "t"), seconds=(0.2, 0.5, 0.1))
    >>> [tuple(label) for label in sung_labels([Note(1.0, 2.0, 60, "t a"), Note(2.0, 3.0, 62)], vocabulary)]
    [(0.0, 0.9, 'pau'), (0.9, 1.0, 't'), (1.0, 3.0, 'a'), (3.0, 3.3, 'pau')]
    """
    if not any(note.lyric for note in notes):
        return []
    typical = dict(zip(vocabulary.names, vocabulary.seconds, strict=False))
    syllables = _syllables(notes, vocabulary, typical)
    # Of each syllable: where the note before it is half over, and where its own first consonant begins.
    middles = [0.0, *((syllable.last.start + syllable.last.end) / 2 for syllable in syllables)]
    begins = [
        syllable.first.start - sum(_fitting(syllable.onset, syllable.first.start - middle, typical))
        for syllable, middle in zip(syllables, middles, strict=False)
    ]
    labels: list[Label] = []
    for syllable, begin, following in zip(syllables, begins, [*begins[1:], np.inf], strict=True):
        end = min(syllable.last.end, following)
        coda = _fitting(syllable.coda, (end - syllable.last.start) / 2, typical)
        onset = _fitting(syllable.onset, syllable.first.start - begin, typical)
        borders = np.cumsum([begin, *onset, end - sum(coda) - syllable.first.start, *coda]).tolist()
        named = zip(pairwise(borders), [*syllable.onset, syllable.held, *syllable.coda], strict=True)
        labels += [Label(start, stop, name) for (start, stop), name in named if stop > start]
    return _with_silence(labels, next((name for name in SILENCES if name in vocabulary.names), None))


def _fitting(phonemes: Sequence[str], room: float, typical: dict[str, float]) -> list[float]:
    """Durations of phonemes that are sung one after the other in at most ``room`` seconds."""
    seconds = [typical.get(name, DEFAULT_SECONDS) for name in phonemes]
    return [length * min(1.0, max(0.0, room) / sum(seconds)) for length in seconds]


def _syllables(notes: Sequence[Note], vocabulary: Vocabulary, typical: dict[str, float]) -> list[_Syllable]:
    """The syllables of notes; a note without phonemes goes on with what was held before it, after a rest anew."""
    found: list[_Syllable] = []
    for note in notes:
        phonemes = note.lyric.split() if vocabulary.unit == "phonemes" else letters(note.lyric)
        if phonemes:
            k = int(np.argmax([typical.get(name, DEFAULT_SECONDS) for name in phonemes]))
            found.append(_Syllable(note, note, phonemes[:k], phonemes[k], phonemes[k + 1 :]))
        elif found and note.start - found[-1].last.end < TIED_SECONDS:
            found[-1] = found[-1]._replace(last=note)
        elif found:
            found.append(_Syllable(note, note, [], found[-1].held, []))
    return found


def _with_silence(labels: Sequence[Label], silence: str | None) -> list[Label]:
    """Labels with silence before, between and behind them."""
    if silence is None:
        return list(labels)
    ends = [0.0, *(label.end for label in labels)]
    starts = [*(label.start for label in labels), labels[-1].end + END_SECONDS]
    rests = [Label(end, start, silence) for end, start in zip(ends, starts, strict=True) if start - end > 1e-6]
    return sorted([*labels, *rests])


def score_of(notes: Sequence[Note], labels: Sequence[Label], mel: MelSpec, vocabulary: Vocabulary) -> Score:
    """The score of notes in order, with labels whose names are in the vocabulary; there may be no labels.

    A frame with a label is voiced if its phoneme mostly is in the corpus, and one without a label if it lies in a
    note.
    """
    seconds = max([notes[-1].end + END_SECONDS, *(label.end for label in labels)])
    at = np.arange(int(seconds / FRAME_SECONDS) + 1) * FRAME_SECONDS
    hz = 440.0 * 2 ** ((_pitch_curve(notes, at) - 69) / 12)
    track = np.where(_voiced(notes, labels, at, vocabulary), hz, 0)
    centres = np.arange(frame_count(round(seconds * mel.sample_rate), mel)) * mel.hop_length / mel.sample_rate
    tracks = FrameTracks(melody_at(track, centres), phonemes_at(labels, centres, vocabulary))
    return Score(tracks, tuple(notes), tuple(labels))


def _pitch_curve(notes: Sequence[Note], seconds: np.ndarray) -> np.ndarray:
    """MIDI numbers at the times: the notes with smoothed steps between them, which lie in the middle of rests."""
    steps = [min(note.start - LEAD_SECONDS, (before.end + note.start) / 2) for before, note in pairwise(notes)]
    fine = np.arange(round(seconds[-1] * CURVE_HZ) + 1) / CURVE_HZ
    held = np.array([note.pitch for note in notes], float)[np.searchsorted(steps, fine, side="right")]
    window = scipy.signal.windows.hann(round(PORTAMENTO_SECONDS * CURVE_HZ) + 3)[1:-1]
    smooth = scipy.ndimage.convolve1d(held, window / window.sum(), mode="nearest")
    return smooth[np.rint(seconds * CURVE_HZ).astype(int)]


def _voiced(notes: Sequence[Note], labels: Sequence[Label], seconds: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    starts, ends = np.array([note[:2] for note in notes]).T
    last = np.searchsorted(starts, seconds, side="right") - 1
    in_note = (last >= 0) & (seconds < ends[last])
    if not vocabulary.voiced:
        return in_note
    phonemes = phonemes_at(labels, seconds, vocabulary)
    return np.where(phonemes == ABSENT, in_note, np.array([0, *vocabulary.voiced])[phonemes] >= VOICED_SHARE)


def follow(signal: np.ndarray, mel: MelSpec, transpose: float = 0.0) -> Score:
    """The score of a recording, float32 (samples,) at ``mel.sample_rate``: its melody and its loudness.

    Where it is more than 45 dB below its loud level, it is not voiced.

    >>> tone = np.sin(2 * np.pi * 220 * np.arange(48000) / 24000).astype(np.float32)
    >>> score = follow(np.concatenate([tone, 0 * tone]), MelSpec())
    >>> score.tracks.melody[[40, 160], 1].tolist(), score.loudness_db[[40, 160]].round().tolist()
    ([1.0, 0.0], [0.0, -45.0])
    """
    loudness_db = _loudness(signal, mel)
    melody = melody_at(pitch_of(signal, mel.sample_rate), _centres(len(signal), mel))
    melody[loudness_db <= -DEPTH_DB, 1] = 0
    melody[:, 0] += np.float32(transpose * np.log(2) / 12)
    return Score(FrameTracks(melody, np.full(len(melody), ABSENT, np.int32)), loudness_db=loudness_db)


def with_loudness(signal: np.ndarray, loudness_db: np.ndarray, mel: MelSpec) -> np.ndarray:
    """A signal with the loudness of a recording that it follows, float32 (samples,).

    Parameters
    ----------
    signal : (samples,)
        At ``mel.sample_rate``.
    loudness_db : (frames,)
        See :class:`Score`. Silence that it makes louder becomes so by at most 12 dB.

    >>> tone = np.sin(2 * np.pi * 440 * np.arange(48000) / 24000).astype(np.float32)
    >>> louder = with_loudness(tone, np.linspace(-12, 0, 94), MelSpec())
    >>> [round(float(np.abs(part).max()), 2) for part in (louder[:3000], louder[-3000:])]
    [0.27, 1.0]
    """
    wanted, own = loudness_db[: frame_count(len(signal), mel)], _loudness(signal, mel)
    gain_db = np.clip(wanted - own[: len(wanted)], -DEPTH_DB, MAX_GAIN_DB)
    at = np.arange(len(gain_db)) * mel.hop_length
    return (signal * 10 ** (np.interp(np.arange(len(signal)), at, gain_db) / 20)).astype(np.float32)


def with_loudness_of(scores: Sequence[Score], audio: np.ndarray, mel: MelSpec) -> np.ndarray:
    """Audio (count, samples) of samples that take turns with scores, each as loud as the recording it follows."""
    followed = [scores[i % len(scores)].loudness_db for i in range(len(audio))]
    return np.stack(
        [x if level is None else with_loudness(x, level, mel) for x, level in zip(audio, followed, strict=True)]
    )


def _centres(samples: int, mel: MelSpec) -> np.ndarray:
    """Seconds of the centres of the frames of a signal."""
    return np.arange(frame_count(samples, mel)) * mel.hop_length / mel.sample_rate


def _loudness(signal: np.ndarray, mel: MelSpec) -> np.ndarray:
    """Level of each frame in dB, relative to the signal's loud level, not less than -45; float32 (frames,)."""
    meter = LevelMeter(mel.sample_rate)
    meter.update(signal)
    powers = meter.powers()
    floor = max(loud_power(powers), 1e-30)
    levels = 10 * np.log10(np.maximum(powers / floor, 10 ** (-DEPTH_DB / 10)))
    at = (np.arange(len(levels)) + 0.5) / FRAMES_PER_SECOND  # each level is that of 10 ms
    return np.interp(_centres(len(signal), mel), at, levels).astype(np.float32)


def range_warning(score: Score, range_hz: tuple[float, float]) -> str | None:
    """Say that a score leaves the range of the training data by more than half a semitone; None if it does not.

    Parameters
    ----------
    range_hz
        Of the training data: :attr:`melnet.data.tracks.TrackSpec.range_hz`.

    >>> melody = np.log(np.array([[220.0, np.e], [880.0, np.e]], np.float32))
    >>> range_warning(Score(FrameTracks(melody, None)), (196.0, 700.0))
    'the score goes from A3 (220 Hz) to A5 (880 Hz), beyond the range of the training data, G3 (196 Hz) to F5 (700 Hz)'
    """
    melody = score.tracks.melody
    assert melody is not None
    voiced = melody[melody[:, 1] > 0, 0]
    if not len(voiced):
        return None
    low, high = np.exp(np.percentile(voiced, RANGE_PERCENT, method="nearest"))
    margin = 2 ** (0.5 / 12)
    if low * margin >= range_hz[0] and high / margin <= range_hz[1]:
        return None
    asked, known = (_span(*span) for span in ((low, high), range_hz))
    return f"the score goes from {asked}, beyond the range of the training data, {known}"


def _span(low: float, high: float) -> str:
    return " to ".join(f"{note_name(69 + 12 * np.log2(hz / 440))} ({hz:.0f} Hz)" for hz in (low, high))
