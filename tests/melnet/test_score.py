"""Scores: tracks of notes are smoothed as measured ones, phonemes lie where they are sung, recordings are followed."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from mido import Message, MetaMessage, MidiFile, MidiTrack

from melnet.audio.integrity import UnusableAudio
from melnet.audio.mel import MelSpec
from melnet.data.labels.label import Label, LabelError
from melnet.data.tracks import Vocabulary
from melnet.notes import Note, NotesError
from melnet.score import ScoreError, follow, range_warning, read_score, score_of, sung_labels

MEL = MelSpec()
VOCABULARY = Vocabulary(
    "phonemes", ("a", "i", "m", "pau", "t"), seconds=(0.2, 0.2, 0.1, 0.5, 0.08), voiced=(0.9, 0.9, 0.95, 0.05, 0.4)
)
PJS = Path(__file__).parents[3] / "shared/data/pjs"


def seconds_of(score):
    return np.arange(score.frames) * MEL.hop_length / MEL.sample_rate


def semitones(score):
    return 69 + 12 * np.log2(np.exp(score.tracks.melody[:, 0]) / 440)


def names_of(score, vocabulary=VOCABULARY):
    return [vocabulary.names[index - 1] if index else None for index in score.tracks.phonemes]


def write(folder, content, name="a.txt"):
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def test_tied_notes_are_joined_in_time_for_the_second():
    score = score_of([Note(0, 1, 60), Note(1, 2, 67)], [], MelSpec(hop_length=24, n_fft=2048), VOCABULARY)
    at = np.arange(score.frames) / 1000
    curve = semitones(score)
    assert np.allclose(curve[(at > 0.05) & (at < 0.9)], 60, atol=1e-3)
    assert np.allclose(curve[(at > 1.04) & (at < 1.9)], 67, atol=1e-3)
    reached = [at[np.argmax(curve >= 60 + 7 * share)] for share in (0.1, 0.5, 0.9)]
    assert reached[1] == pytest.approx(0.97, abs=0.005)
    assert reached[2] - reached[0] == pytest.approx(0.05, abs=0.008)  # tracks have a value every 16 ms
    assert np.all(np.diff(curve) > -1e-5)


def test_a_note_after_a_rest_begins_on_its_pitch():
    score = score_of([Note(0.5, 1, 60), Note(2, 2.5, 72)], [], MEL, VOCABULARY)
    at, melody = seconds_of(score), score.tracks.melody
    sung = ((at >= 0.5) & (at < 1)) | ((at >= 2) & (at < 2.5))
    assert np.mean(melody[:, 1] == sung) > 0.96  # 16 ms at the borders
    voiced = melody[:, 1] > 0
    np.testing.assert_allclose(semitones(score)[voiced], np.where(at[voiced] < 1.5, 60, 72), atol=1e-3)
    middle = int(np.argmin(abs(at - 1.5)))
    assert 65 < semitones(score)[middle] < 67  # straight from one to the other, as in measured tracks
    assert not melody[at > 2.52, 1].any() and at[-1] > 2.75


def test_transposition_and_tempo(tmp_path):
    path = write(tmp_path, "tempo 60\nA3 2 m a\nrest 1\nC4 1 t i\n")
    plain = read_score(path, MEL, VOCABULARY)
    other = read_score(path, MEL, VOCABULARY, transpose=-7.5, tempo=2)
    assert [note.pitch for note in other.notes] == [49.5, 52.5]
    assert [note[:2] for note in other.notes] == [(0, 1), (1.5, 2)]
    assert other.labels[-3].name == plain.labels[-3].name == "t"
    assert other.labels[-3].end == plain.labels[-3].end / 2 == 1.5
    assert other.frames == pytest.approx((2 + 0.3) * 24000 / 512, abs=1)


def test_vowels_begin_with_their_notes_and_consonants_before(tmp_path):
    score = read_score(
        write(tmp_path, "tempo 60\nrest 1\nA3 1 m a t\nA3 1 t i\nC4 1 -\nrest 1\nA3 1 i m\n"), MEL, VOCABULARY
    )
    expected = [
        (0, 0.9, "pau"),
        (0.9, 1, "m"),
        (1, 1.84, "a"),
        (1.84, 1.92, "t"),
        (1.92, 2, "t"),
        (2, 4, "i"),
        (4, 5, "pau"),
        (5, 5.9, "i"),
        (5.9, 6, "m"),
        (6, 6.3, "pau"),
    ]
    assert [(round(start, 4), round(end, 4), name) for start, end, name in score.labels] == expected
    at = seconds_of(score)
    found = names_of(score)
    for start, end, name in expected:
        inside = (at >= start + 0.001) & (at < end - 0.001)
        assert {found[i] for i in np.flatnonzero(inside)} == {name}
    voiced = score.tracks.melody[:, 1] > 0
    core = [(start + 0.01, end - 0.01, name) for start, end, name in expected]
    for start, end, name in core:
        assert set(voiced[(at >= start) & (at < end)]) <= {name not in ("pau", "t")}


def test_crowded_consonants_take_at_most_half_of_a_note():
    labels = sung_labels([Note(0, 0.2, 60, "a"), Note(0.2, 0.3, 60, "t m t a t m")], VOCABULARY)
    assert all(label.end > label.start for label in labels)
    assert all(a.end == pytest.approx(b.start) for a, b in pairwise(labels))
    assert [label.name for label in labels] == ["a", "t", "m", "t", "a", "t", "m", "pau"]
    assert labels[0].end >= 0.1 - 1e-9 and labels[4].start == 0.2 and labels[4].end >= 0.25 - 1e-9


def test_a_vowel_does_not_go_on_over_a_rest():
    labels = sung_labels([Note(0, 1, 60, "m a t"), Note(1, 2, 62), Note(3, 4, 60)], VOCABULARY)
    assert [label.name for label in labels] == ["a", "t", "pau", "a", "pau"]
    assert [(labels[0].start, labels[1].end), labels[3][:2]] == [(0, 2), (3, 4)]


def test_a_label_file_beside_the_notes_takes_precedence(tmp_path):
    path = write(tmp_path, "tempo 60\nA3 1 m a\n", "song [1].txt")
    write(tmp_path, "0.0 0.5 t\n0.5 2.0 i\n", "song [1].LAB")
    score = read_score(path, MEL, VOCABULARY, tempo=0.5)
    assert score.labels == (Label(0, 1, "t"), Label(1, 4, "i"))
    assert score.frames == 1 + 4 * 24000 // 512
    write(tmp_path, "0.0 0.5 t\n0.5 0.2 i\n", "song [1].LAB")
    with pytest.raises(LabelError, match=r"song \[1\]\.LAB, line 2: 'i' ends"):
        read_score(path, MEL, VOCABULARY)
    assert not read_score(path, MEL).tracks.phonemes.any()  # a model without phonemes needs none


def test_characters_are_those_of_the_words(tmp_path):
    letters = Vocabulary("characters", ("a", "l", "o"), seconds=(0.1, 0.1, 0.1))
    score = read_score(write(tmp_path, "A4 2 La,\nA4 2 lo\n"), MEL, letters)
    assert [label.name for label in score.labels] == ["l", "a", "l", "o"]


def test_midi_with_lyrics(tmp_path):
    events = [("m a", 60), ("t i", 62)]
    track = MidiTrack()
    for text, pitch in events:
        track += [
            MetaMessage("lyrics", text=text),
            Message("note_on", note=pitch),
            Message("note_off", note=pitch, time=480),
        ]
    MidiFile(tracks=[track]).save(tmp_path / "a.MID")
    score = read_score(tmp_path / "a.MID", MEL, VOCABULARY)
    assert [label.name for label in score.labels] == ["a", "t", "i", "pau"]  # there is no time for the first consonant
    assert [note[:3] for note in score.notes] == [(0, 0.5, 60), (0.5, 1, 62)]


def test_what_cannot_be_sung_is_named(tmp_path):
    path = write(tmp_path, "tempo 60\nA3 1 m a\nA3 1 k a\n")
    with pytest.raises(ScoreError, match=r"a\.txt: 'k' at 0\.900 s is none of the model's phonemes: a, i, m, pau, t"):
        read_score(path, MEL, VOCABULARY)
    for settings in ({"tempo": 0}, {"tempo": float("nan")}, {"transpose": 100}, {"transpose": float("inf")}):
        with pytest.raises(ScoreError, match=rf"^{next(iter(settings))}: "):
            read_score(path, MEL, VOCABULARY, **settings)
    with pytest.raises(NotesError, match=r"b\.mid: cannot be read"):
        read_score(tmp_path / "b.mid", MEL)
    with pytest.raises(UnusableAudio, match=r"b\.wav"):
        read_score(tmp_path / "b.wav", MEL)
    soundfile.write(tmp_path / "c.wav", np.sin(np.arange(48000)), 48000)
    with pytest.raises(ScoreError, match=r"c\.wav: tempo: 2 is for notes"):
        read_score(tmp_path / "c.wav", MEL, tempo=2)


def test_a_recording_is_followed_in_pitch_and_loudness(tmp_path):
    rate = 44100
    at = np.arange(4 * rate) / rate
    hz = 400 * 2 ** (np.sin(2 * np.pi * at / 4) * 5 / 12)
    envelope = np.where((at > 1.5) & (at < 2), 0, np.where(at < 1.5, 1.0, 0.1))
    hum = sum(np.sin(2 * np.pi * np.cumsum(hz) * k / rate) / k for k in (1, 2, 3)) * envelope
    soundfile.write(tmp_path / "hum.wav", 0.2 * hum, rate)
    score = read_score(tmp_path / "hum.wav", MEL, transpose=12)
    when = seconds_of(score)
    voiced = score.tracks.melody[:, 1] > 0
    assert voiced[((when > 0.1) & (when < 1.45)) | ((when > 2.05) & (when < 3.9))].mean() > 0.98
    assert not voiced[(when > 1.56) & (when < 1.94)].any()
    asked = np.interp(when, at, 2 * hz)
    cents = 1200 * np.log2(np.exp(score.tracks.melody[:, 0]) / asked)[voiced]
    assert np.mean(abs(cents) < 50) > 0.97
    loud, soft, gap = (
        np.median(score.loudness_db[(when > a) & (when < b)]) for a, b in ((0.2, 1.3), (2.2, 3.8), (1.6, 1.9))
    )
    assert loud - soft == pytest.approx(20, abs=1) and abs(loud) < 1 and gap == -45
    assert not score.tracks.phonemes.any() and score.notes == ()


def test_silence_can_be_followed():
    score = follow(np.zeros(24000, np.float32), MEL)
    assert not score.tracks.melody[:, 1].any() and np.isfinite(score.tracks.melody).all()
    assert range_warning(score, (100.0, 200.0)) is None


def test_the_range_of_the_training_data_is_left_by_more_than_half_a_semitone():
    def warning(*pitches):
        notes = [Note(i, i + 1, pitch) for i, pitch in enumerate(pitches)]
        return range_warning(score_of(notes, [], MEL, VOCABULARY), (220.0, 440.0))

    assert warning(57, 69) is None
    assert warning(56.6, 69.4) is None
    assert "from G#3 (208 Hz) to" in warning(56, 60)
    assert "beyond the range of the training data, A3 (220 Hz) to A4 (440 Hz)" in warning(60, 70)


@pytest.mark.skipif(not PJS.is_dir(), reason="the corpus PJS is not here")
def test_a_song_of_pjs_becomes_a_score_with_its_labels():
    lines = [line.split() for line in (PJS / "pjs001_song.lab").read_text().splitlines()]
    names = tuple(sorted({name for *_, name in lines}))
    score = read_score(PJS / "pjs001_song.mid", MEL, Vocabulary("phonemes", names))
    at = seconds_of(score)
    for start, end, name in lines:
        inside = (at >= int(start) / 1e7) & (at < int(end) / 1e7)
        assert {names[i - 1] for i in score.tracks.phonemes[inside]} <= {name}
    assert (score.tracks.phonemes > 0).mean() > 0.97
