import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from melnet.data.pitch_tracks import PitchTracksError, read_pitch_tracks, write_pitch_tracks


def test_tracks_come_back_as_they_were(tmp_path):
    tracks = {"a.wav": np.array([220.5, 0.0], np.float32), "b/ü.wav": np.zeros(0, np.float32)}
    write_pitch_tracks(tmp_path, tracks.items())
    found = read_pitch_tracks(tmp_path)
    assert list(found) == list(tracks)
    for name, track in tracks.items():
        np.testing.assert_array_equal(found[name], track)


def test_files_of_another_kind_are_named(tmp_path):
    with pytest.raises(PitchTracksError, match=r"pitch\.parquet: no such file"):
        read_pitch_tracks(tmp_path)
    (tmp_path / "pitch.parquet").write_bytes(b"words")
    with pytest.raises(PitchTracksError, match=r"pitch\.parquet: damaged"):
        read_pitch_tracks(tmp_path)
    pq.write_table(pa.table({"recording": ["a"]}), tmp_path / "pitch.parquet")
    with pytest.raises(PitchTracksError, match=r"pitch\.parquet: not a file of pitch tracks"):
        read_pitch_tracks(tmp_path)


def test_a_track_that_fails_leaves_the_old_file(tmp_path):
    write_pitch_tracks(tmp_path, [("a.wav", np.ones(3))])
    before = (tmp_path / "pitch.parquet").read_bytes()

    def tracks():
        yield "a.wav", np.ones(3)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_pitch_tracks(tmp_path, tracks())
    assert (tmp_path / "pitch.parquet").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["pitch.parquet"]
