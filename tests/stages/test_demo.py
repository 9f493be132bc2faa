"""The stage `demo`: the built-in corpus, byte for byte."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from stages.demo import demo
from stages.parameters import Demo, load_params
from stages.paths import DEMO
from tests.params_file import edit_params

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(**settings: float) -> dict[str, bytes]:
    """Run the stage with short defaults; the files it makes."""
    params = load_params(REPOSITORY / "params.yaml")
    chosen = params.demo.model_dump() | {"minutes": 0.2, "files": 2} | settings
    demo(params.model_copy(update={"demo": Demo(**chosen)}))
    return made()


def made() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(DEMO.iterdir())}


def test_files_are_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(run()) == ["song-01.wav", "song-02.wav"]
    infos = [sf.info(path) for path in sorted(DEMO.iterdir())]
    for info in infos:
        assert (info.format, info.subtype, info.samplerate, info.channels) == ("WAV", "PCM_16", 48000, 1)
        assert 6 <= info.duration < 18
    minutes = sum(info.duration for info in infos) / 60
    assert minutes >= 0.2
    first, last = capsys.readouterr().out.splitlines()
    assert first == "2 songs of one voice, 0.2 minutes at 48000 Hz"
    assert last.rpartition("; ")[0] == f"2 songs, {minutes:.2f} minutes, in {DEMO}"
    for path in DEMO.iterdir():
        samples = sf.read(path)[0]
        assert 0.2 < np.abs(samples).max() < 0.99


def test_same_settings_give_the_same_bytes_in_a_fresh_process() -> None:
    edit_params(Path(), {"demo": {"minutes": 0.2, "files": 2}})
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": "5", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "stages.demo"], check=True, env=environment)
    fresh = made()
    assert run() == fresh


def test_another_seed_gives_other_songs() -> None:
    first, second = run(minutes=0.05, files=1), run(minutes=0.05, files=1, seed=2)
    assert first.keys() == second.keys()
    assert first != second


def test_a_song_does_not_depend_on_the_others() -> None:
    several, one = run(minutes=0.1, files=2), run(minutes=0.05, files=1)
    assert one == {"song-01.wav": several["song-01.wav"]}  # and what an earlier run left is gone
    assert several["song-01.wav"] != several["song-02.wav"]
