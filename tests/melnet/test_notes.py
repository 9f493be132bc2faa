"""Notes of MIDI files and of melodies as text: times, lyrics, and errors that name the place."""

from itertools import pairwise
from pathlib import Path

import mido
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mido import Message, MetaMessage, MidiFile, MidiTrack

import melnet
from melnet.notes import Note, NotesError, note_name, read_melody, read_midi

PJS = Path(__file__).parents[3] / "shared/data/pjs"
MELODY = Path(melnet.__file__).parent / "melodies/ode_to_joy.txt"


def on(note, time=0, channel=0):
    return Message("note_on", note=note, time=time, channel=channel)


def off(note, time=0, channel=0):
    return Message("note_on", note=note, velocity=0, time=time, channel=channel)


def lyric(text, time=0):
    return MetaMessage("lyrics", text=text.encode().decode("latin1"), time=time)


def saved(folder, *tracks, **settings):
    file = MidiFile(tracks=[MidiTrack(track) for track in tracks], charset="latin1", **settings)
    file.save(folder / "a.mid")
    return folder / "a.mid"


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(1, 2000), st.integers(30, 90)), min_size=1, max_size=20),
    st.integers(100_000, 2_000_000),
    st.sampled_from([96, 480, 960]),
)
def test_notes_are_read_back(tmp_path_factory, timed, tempo, ticks_per_beat):
    track, expected, tick = [MetaMessage("set_tempo", tempo=tempo)], [], 0
    second = tempo * 1e-6 / ticks_per_beat
    for rest, length, pitch in timed:
        track += [on(pitch, rest), Message("note_off", note=pitch, time=length)]
        expected.append(((tick + rest) * second, (tick + rest + length) * second, pitch))
        tick += rest + length
    found = read_midi(saved(tmp_path_factory.mktemp("midi"), track, ticks_per_beat=ticks_per_beat))
    assert [note.pitch for note in found] == [pitch for *_, pitch in expected]
    for note, (start, end, _) in zip(found, expected, strict=True):
        assert note[:2] == pytest.approx((start, end), abs=1e-6)


def test_the_tempo_of_any_track_is_that_of_all_from_its_tick_on(tmp_path):
    conductor = [MetaMessage("set_tempo", tempo=1_000_000, time=480), MetaMessage("set_tempo", tempo=250_000, time=480)]
    notes = [on(60), off(60, 960), on(62), off(62, 960)]
    assert [note[:2] for note in read_midi(saved(tmp_path, conductor, notes))] == [(0, 1.5), (1.5, 2)]
    file = mido.MidiFile(tmp_path / "a.mid")
    assert file.length == pytest.approx(2)


def test_lyrics_belong_to_the_notes_that_begin_with_them(tmp_path):
    notes = [on(60), off(60, 480), on(62), off(62, 480), on(64), off(64, 480), on(60), off(60, 480)]
    words = [lyric("m a\r"), lyric("ニ", 480), lyric("-", 480), lyric("\n", 100)]
    found = read_midi(saved(tmp_path, notes, words))
    assert [note.lyric for note in found] == ["m a", "ニ", "", ""]


def test_legato_is_cut_and_a_key_may_be_struck_again(tmp_path):
    legato = [on(60), on(62, 480), off(60, 20), off(62, 460)]
    assert [note[:3] for note in read_midi(saved(tmp_path, legato))] == [(0, 0.5, 60), (0.5, 1, 62)]
    again = [on(60), on(60, 480), off(60, 240), off(60, 240)]
    assert [note[:3] for note in read_midi(saved(tmp_path, again))] == [(0, 0.5, 60), (0.5, 1, 60)]


@pytest.mark.parametrize(
    ("tracks", "message"),
    [
        ([[on(60), on(64), off(60, 480), off(64)]], r"track 1 '', 0\.000 s: E4 begins while C4 is sung; one voice"),
        (
            [[on(60), off(60, 960)], [MetaMessage("track_name", name="alto"), on(55, 480), off(55, 480)]],
            r"track 2 'alto', 0\.500 s: G3 begins while C4 is sung; one voice is expected",
        ),
        ([[on(60), off(60, 480), lyric("a", 480)]], r"track 1 '', 1\.000 s: no note begins with the lyric 'a'"),
        (
            [[MetaMessage("lyrics", text="\xff"), on(60), off(60, 9)]],
            r"track 1 '', 0\.000 s: a lyric event is not in UTF-8",
        ),
        ([[MetaMessage("track_name", name="empty")]], "has no notes"),
        ([[on(60), off(60, 0)]], "has no notes"),
        ([[on(60), off(60, 10**7)]], "lasts 10417 s; at most 3600 s are sung"),
    ],
)
def test_errors_name_file_track_and_time(tmp_path, tracks, message):
    with pytest.raises(NotesError, match=rf"^[^\n]*a\.mid[:,] {message}[^\n]*$"):
        read_midi(saved(tmp_path, *tracks))


def test_kinds_of_midi_without_a_common_time_in_beats_are_refused(tmp_path):
    path = saved(tmp_path, [on(60), off(60, 480)], type=2)
    with pytest.raises(NotesError, match=r"a\.mid: MIDI format 2"):
        read_midi(path)
    content = bytearray(saved(tmp_path, [on(60), off(60, 480)]).read_bytes())
    content[12:14] = b"\xe7\x28"  # 25 frames per second, 40 ticks each
    path.write_bytes(content)
    with pytest.raises(NotesError, match=r"a\.mid: its times are SMPTE frames"):
        read_midi(path)
    with pytest.raises(NotesError, match=r"b\.mid: cannot be read: No such file"):
        read_midi(tmp_path / "b.mid")


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damage_is_refused_or_harmless(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("midi")
    whole = saved(
        folder, [MetaMessage("set_tempo", tempo=400_000), lyric("m a"), on(60), off(60, 480), on(64), off(64, 99)]
    )
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    whole.write_bytes(content)
    try:
        found = read_midi(whole)
    except NotesError as error:
        assert "a.mid" in str(error) and "\n" not in str(error)
        return
    assert all(0 <= note.start < note.end <= 3600 for note in found)
    assert all(before.end <= after.start + 1e-6 for before, after in pairwise(found))


def test_a_melody_as_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("# a remark\ntempo 60\nC#4 1.5 t a # another\nBb3 0.5 -\n\nrest 1\ntempo 120\nA4 2\n")
    assert read_melody(path) == [Note(0, 1.5, 61, "t a"), Note(1.5, 2, 58), Note(3, 4, 69)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("A4 1\nH4 1\n", r"line 2: expected a note such as C#4, rest or tempo, but it is 'H4'"),
        ("A4\n", "line 1: expected a number of beats, or of beats per minute, but it is ''"),
        ("A4 -1\n", "line 1: expected a number of beats"),
        ("A4 nan\n", "line 1: expected a number of beats"),
        ("tempo 0\n", "line 1: expected a number of beats"),
        ("A4 1\nA4 7300\n", "line 2: it is sung after 3650 s; at most 3600 s are sung"),
        ("rest 4\n", "has no notes"),
        ("A4 1 \xff".encode("latin1"), "line 1: neither UTF-8"),
    ],
)
def test_errors_of_a_melody_name_file_and_line(tmp_path, content, message):
    path = tmp_path / "a.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(NotesError, match=rf"^[^\n]*a\.txt[:,] {message}[^\n]*$"):
        read_melody(path)


def test_the_melody_that_comes_with_the_package_is_whole():
    notes = read_melody(MELODY)
    assert sum(note.end - note.start for note in notes) == pytest.approx(32 * 0.6)
    assert [note_name(note.pitch) for note in notes[:8]] == ["A4", "A4", "A#4", "C5", "C5", "A#4", "A4", "G4"]
    assert note_name(notes[-1].pitch) == "F4" and all(len(note.lyric.split()) == 2 for note in notes)


@pytest.mark.skipif(not PJS.is_dir(), reason="the corpus PJS is not here")
def test_every_song_of_pjs_is_one_voice():
    paths = sorted(PJS.glob("*.mid"))
    assert len(paths) == 49
    for path in paths:
        notes = read_midi(path)
        assert len(notes) > 15 and all(40 <= note.pitch <= 80 for note in notes)
        assert notes[-1].end <= mido.MidiFile(path).length + 1e-6
