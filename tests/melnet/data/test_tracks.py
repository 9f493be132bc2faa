"""Condition tracks on disk: round trips, windows beyond the ends, statistics, and damage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import melnet.data.tracks
from melnet.audio.mel import MelSpec
from melnet.data.tracks import FILE, FrameTracks, Tracks, TracksError, TrackSpec, Vocabulary, write_tracks

VOCABULARY = Vocabulary("phonemes", ("a", "t"), seconds=(0.2, 0.1))
BOTH = TrackSpec(24000, 512, ("melody", "phonemes"), VOCABULARY)


def made(rng, frames, labelled=True):
    melody = np.stack([rng.normal(5, 0.5, frames), rng.integers(0, 2, frames)], axis=1).astype(np.float32)
    return melody, rng.integers(0, 3, frames).astype(np.int32) if labelled else None


@pytest.fixture
def recordings(rng):
    sizes = {"a.wav": (30, True), "b/c.wav": (7, False), "d.wav": (12, True)}
    return {name: made(rng, *size) for name, size in sizes.items()}


@pytest.mark.parametrize("group_frames", [1, 30, 10**6])
def test_what_is_written_is_read_back(tmp_path, recordings, monkeypatch, group_frames):
    monkeypatch.setattr(melnet.data.tracks, "GROUP_FRAMES", group_frames)
    written = write_tracks(tmp_path, BOTH, ((name, *tracks) for name, tracks in recordings.items()))
    tracks = Tracks(tmp_path)
    assert tracks.spec == written
    for name in (*recordings, *reversed(recordings)):
        melody, phonemes = recordings[name]
        found = tracks.window(name, 0, len(melody))
        np.testing.assert_array_equal(found.melody, melody)
        np.testing.assert_array_equal(found.phonemes, 0 if phonemes is None else phonemes)
        assert (found.melody.dtype, found.phonemes.dtype) == (np.float32, np.int32)


def test_equal_tracks_give_equal_bytes(tmp_path, recordings):
    for folder in ("one", "other"):
        write_tracks(tmp_path / folder, BOTH, ((name, *tracks) for name, tracks in recordings.items()))
    assert (tmp_path / "one" / FILE).read_bytes() == (tmp_path / "other" / FILE).read_bytes()


@settings(deadline=None)
@given(first=st.integers(-20, 40), frames=st.integers(1, 40), lookahead=st.integers(0, 9))
def test_windows_reach_beyond_both_ends(tmp_path_factory, first, frames, lookahead):
    melody, phonemes = made(np.random.default_rng(1), 15)
    folder = tmp_path_factory.mktemp("tracks")
    write_tracks(folder, BOTH, [("a.wav", melody, phonemes)])
    found = Tracks(folder, lookahead=lookahead).window("a.wav", first, frames)
    assert len(found.melody) == len(found.phonemes) == frames + lookahead
    for i, frame in enumerate(range(first, first + frames + lookahead)):
        inside = 0 <= frame < 15
        assert found.phonemes[i] == (phonemes[frame] if inside else 0)
        assert found.melody[i, 1] == (melody[frame, 1] if inside else 0)
        assert found.melody[i, 0] == melody[min(max(frame, 0), 14), 0]


def test_a_window_is_a_copy(tmp_path, recordings):
    write_tracks(tmp_path, BOTH, ((name, *tracks) for name, tracks in recordings.items()))
    tracks = Tracks(tmp_path)
    tracks.window("a.wav", 0, 30).melody[:] = 0
    np.testing.assert_array_equal(tracks.window("a.wav", 0, 30).melody, recordings["a.wav"][0])


@pytest.mark.parametrize(("condition", "absent"), [("melody", "phonemes"), ("phonemes", "melody")])
def test_only_wanted_conditions_are_written_and_read(tmp_path, recordings, condition, absent):
    spec = TrackSpec(24000, 512, (condition,), VOCABULARY)
    write_tracks(tmp_path / "one", spec, ((name, *tracks) for name, tracks in recordings.items()))
    write_tracks(tmp_path / "both", BOTH, ((name, *tracks) for name, tracks in recordings.items()))
    for folder in ("one", "both"):
        window = Tracks(tmp_path / folder, [condition]).window("d.wav", 0, 12)
        assert getattr(window, absent) is None
        np.testing.assert_array_equal(getattr(window, condition), recordings["d.wav"][condition == "phonemes"])
    with pytest.raises(TracksError, match=rf"{FILE}: has no {absent}; run the stage tracks again"):
        Tracks(tmp_path / "one")


def test_statistics_are_those_of_all_frames(tmp_path):
    a = np.stack([np.log(np.linspace(100, 400, 1000)), np.ones(1000)], 1).astype(np.float32)
    t = np.stack([np.full(100, np.log(50)), np.arange(100) < 25], 1).astype(np.float32)
    rows = [
        ("a.wav", a, np.full(1000, 1, np.int32)),
        ("t.wav", t, np.full(100, 2, np.int32)),
        ("none.wav", t * 0, None),
    ]
    spec = write_tracks(tmp_path, BOTH, rows)
    assert spec.vocabulary.voiced == (1.0, 0.25)
    low, high = spec.range_hz
    assert abs(1200 * np.log2(low / 50)) <= 10  # 25 of 1025 voiced frames are more than a thousandth
    assert abs(1200 * np.log2(high / np.percentile(np.linspace(100, 400, 1000), 99.9))) <= 12
    silent = write_tracks(tmp_path, BOTH, [("t.wav", t * 0, None)])
    assert (silent.range_hz, silent.vocabulary.voiced) == (None, (0.0, 0.0))


def test_a_file_without_recordings_says_so(tmp_path):
    write_tracks(tmp_path, TrackSpec(24000, 512, ()), [])
    tracks = Tracks(tmp_path, [])
    with pytest.raises(TracksError, match=r"tracks\.parquet: has no tracks of 'a\.wav'; run the stage tracks again"):
        tracks.window("a.wav", 0, 5)


def test_other_frames_are_refused(tmp_path, recordings):
    write_tracks(tmp_path, BOTH, ((name, *tracks) for name, tracks in recordings.items()))
    tracks = Tracks(tmp_path)
    tracks.check(MelSpec(n_mels=24))
    with pytest.raises(TracksError, match=r"frames every 512 samples at 24000 Hz, but .* every 256 at 24000 Hz"):
        tracks.check(MelSpec(hop_length=256))


def test_a_missing_and_a_foreign_file_are_named(tmp_path):
    from melnet.data.pitch_tracks import write_pitch_tracks

    with pytest.raises(TracksError, match=r"tracks\.parquet: no such file; the stage tracks makes it"):
        Tracks(tmp_path)
    write_pitch_tracks(tmp_path, [("a.wav", np.zeros(3))])
    (tmp_path / "pitch.parquet").rename(tmp_path / FILE)
    with pytest.raises(TracksError, match=r"tracks\.parquet: not a file of tracks of this version"):
        Tracks(tmp_path)


def test_damage_is_named(tmp_path, recordings):
    write_tracks(tmp_path, BOTH, ((name, *tracks) for name, tracks in recordings.items()))
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[:-20])
    with pytest.raises(TracksError, match=r"tracks\.parquet: damaged or not a Parquet file"):
        Tracks(tmp_path)
    flipped = bytearray(content)
    flipped[120] ^= 0xFF
    (tmp_path / FILE).write_bytes(flipped)
    with pytest.raises(TracksError, match=r"tracks\.parquet: damaged"):
        Tracks(tmp_path).window("a.wav", 0, 3)


def test_joined_and_mapped_tracks_keep_what_is_not_there():
    one = FrameTracks(None, np.arange(3))
    both = FrameTracks.joined([one, one], np.stack)
    assert both.melody is None and both.phonemes.shape == (2, 3)
    assert both.map(lambda track: track[:1]).phonemes.shape == (1, 3)
