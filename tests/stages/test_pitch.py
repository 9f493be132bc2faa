"""The stage `pitch`: pitch tracks of the recordings of the manifest."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

import stages.pitch
from melnet.data.pitch_tracks import read_pitch_tracks
from stages.command import StageError
from stages.corpus.manifest import write_manifest
from stages.parameters import load_params
from stages.paths import CLEAN, PARAMS, PITCH
from stages.pitch import pitch

RATE = 24000
DEFAULTS = load_params(Path(__file__).parents[2] / PARAMS)


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A project with a tone, noise and a rejected file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stages.pitch, "parallel", lambda function, items, **_: (function(item) for item in items))
    CLEAN.mkdir(parents=True)
    time = np.arange(2 * RATE) / RATE
    tone = sum(0.1 * np.sin(2 * np.pi * 330 * k * time) for k in (1, 2, 3))
    soundfile.write(CLEAN / "tone.flac", tone, RATE)
    soundfile.write(CLEAN / "noise.flac", 0.1 * np.random.default_rng(0).standard_normal(RATE), RATE)
    rows = [
        {"path": f"singer/{name}.wav", "output": f"{name}.flac", "status": "ok", "seconds_out": seconds}
        for name, seconds in (("tone", 2.0), ("noise", 1.0))
    ]
    write_manifest(CLEAN, [*rows, {"path": "broken.mp3", "status": "rejected", "reason": "no audio"}])


def test_tracks_are_named_as_the_recordings(capsys):
    pitch(DEFAULTS)
    tracks = read_pitch_tracks(PITCH)
    assert list(tracks) == ["singer/tone.wav", "singer/noise.wav"]
    tone = tracks["singer/tone.wav"]
    assert len(tone) == 125 and (tone > 0).mean() > 0.9
    np.testing.assert_allclose(tone[10:-10], 330, rtol=0.01)
    assert (tracks["singer/noise.wav"] > 0).mean() < 0.2
    assert "2 recordings" in capsys.readouterr().out


def test_equal_recordings_give_equal_bytes():
    pitch(DEFAULTS)
    first = (PITCH / "pitch.parquet").read_bytes()
    pitch(DEFAULTS)
    assert (PITCH / "pitch.parquet").read_bytes() == first


def test_a_damaged_recording_is_named_and_the_tracks_stay():
    pitch(DEFAULTS)
    before = (PITCH / "pitch.parquet").read_bytes()
    content = bytearray((CLEAN / "tone.flac").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    (CLEAN / "tone.flac").write_bytes(content)
    with pytest.raises(StageError, match=r"tone\.flac: .*run the stage downsample again"):
        pitch(DEFAULTS)
    assert (PITCH / "pitch.parquet").read_bytes() == before


def test_a_missing_manifest_is_named():
    (CLEAN / "manifest.parquet").unlink()
    with pytest.raises(StageError, match=r"manifest\.parquet does not exist"):
        pitch(DEFAULTS)
