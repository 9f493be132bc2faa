"""Melodies with syllables, in the range of a mezzo-soprano: keys, rhythms, motifs and the verses made of them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from stages.demo_voice.phones import CONSONANTS, VOWELS

LOWEST, HIGHEST = 57, 76  # MIDI: A3 to E5, the comfortable range of a mezzo-soprano

MODES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}
RHYTHMS = {  # beats per bar -> bars, in beats
    3: ((1, 1, 1), (2, 1), (1.5, 0.5, 1), (0.5, 0.5, 1, 1), (1, 0.5, 0.5, 1), (1, 2)),
    4: ((1, 1, 2), (1, 1, 1, 1), (1.5, 0.5, 2), (0.5, 0.5, 1, 2), (2, 1, 1), (0.5, 0.5, 0.5, 0.5, 2), (1, 0.5, 0.5, 2)),
}
VERSES = (("AB", "AC", "BB", "AC"), ("AA", "BC", "AA", "BC"), ("AB", "AB", "CC", "AB"))  # motifs of each phrase


@dataclass(frozen=True)
class Note:
    """A note and its syllable. The vowel starts with the note; the consonant is sung at the end of the note before."""

    pitch: int  # MIDI
    seconds: float  # longer than the consonant of the note after it
    loudness: float  # vocal effort, 0 to 1
    vowel: str  # key of VOWELS
    consonant: str = ""  # key of CONSONANTS; empty for none


def compose(rng: np.random.Generator) -> Iterator[list[Note]]:
    """Yield the phrases of an endless song.

    A song has a key, a tempo and three one-bar motifs, each with its own words. Its verse is four phrases of these
    motifs; it is repeated, with a new loudness and starting pitch for each phrase.
    """
    mode = MODES[str(rng.choice(list(MODES)))]
    tonic = int(rng.integers(60, 68))
    beats = int(rng.choice(list(RHYTHMS)))
    beat = 60 / rng.uniform(76, 116)
    lowest, *_, highest = (d for d in range(-7, 14) if LOWEST <= tonic + 12 * (d // 7) + mode[d % 7] <= HIGHEST)
    motifs = {name: _motif(rng, RHYTHMS[beats]) for name in "ABC"}
    verse = VERSES[int(rng.integers(len(VERSES)))]
    while True:
        for number, names in enumerate(verse):
            # The first phrase of a pair ends on the third or the fifth, the second on the tonic.
            home = 0 if number % 2 else int(rng.choice((2, 4)))
            degree, notes = int(rng.choice((0, 2, 4))), []
            for motif in (motifs[name] for name in names):
                for length, step, vowel, consonant in motif:
                    # A step that leaves the range is reflected at its border.
                    degree = highest - abs(highest - lowest - abs(degree + step - lowest))
                    pitch = tonic + 12 * (degree // 7) + mode[degree % 7]
                    notes.append(Note(pitch, length * beat, 0.0, vowel, consonant))
            ends = [p for p in range(LOWEST, HIGHEST + 1) if (p - tonic - mode[home]) % 12 == 0]
            end = min(ends, key=lambda pitch: abs(pitch - notes[-1].pitch))
            notes[-1] = replace(notes[-1], pitch=end, seconds=max(notes[-1].seconds, 2 * beat))
            yield _phrased(notes, rng.uniform(0.6, 1.0))


def _motif(rng: np.random.Generator, rhythms: tuple[tuple[float, ...], ...]) -> list[tuple[float, int, str, str]]:
    """One bar: for each note its beats, scale steps from the note before, vowel and consonant."""
    motif: list[tuple[float, int, str, str]] = []
    for length in rhythms[int(rng.integers(len(rhythms)))]:
        step = int(rng.choice((-3, -2, -1, 0, 1, 2, 4), p=(0.05, 0.15, 0.28, 0.07, 0.28, 0.12, 0.05)))
        if motif and rng.random() < 0.15:  # a melisma: the vowel of the note before goes on
            motif.append((length, step or 1, motif[-1][2], ""))
        else:
            vowel, consonant = str(rng.choice(list(VOWELS))), str(rng.choice([*CONSONANTS, "m", "n", "l"]))
            motif.append((length, step, vowel, consonant))
    return motif


def _phrased(notes: list[Note], loudness: float) -> list[Note]:
    """Set the loudness: a crescendo to two thirds of the phrase and back, and more effort for higher notes."""
    onset = np.cumsum([0.0] + [note.seconds for note in notes[:-1]]) / sum(note.seconds for note in notes)
    swell = np.interp(onset, (0.0, 0.65, 1.0), (0.75, 1.0, 0.6))
    height = np.array([note.pitch - LOWEST for note in notes]) / (HIGHEST - LOWEST)
    effort = np.clip(loudness * swell * (0.8 + 0.3 * height), 0.0, 1.0)
    return [replace(note, loudness=float(value)) for note, value in zip(notes, effort, strict=True)]
