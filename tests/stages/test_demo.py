"""The stage `demo`: the built-in corpus, byte for byte."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from melnet.data.labels.htk import read_htk
from melnet.data.labels.label import Label
from stages.demo import demo
from stages.demo_voice.phones import CONSONANTS, VOWELS
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


def wavs() -> list[Path]:
    return sorted(DEMO.glob("*.wav"))


def test_files_are_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(run()) == ["song-01.lab", "song-01.wav", "song-02.lab", "song-02.wav"]
    infos = [sf.info(path) for path in wavs()]
    for info in infos:
        assert (info.format, info.subtype, info.samplerate, info.channels) == ("WAV", "PCM_16", 48000, 1)
        assert 6 <= info.duration < 18
    minutes = sum(info.duration for info in infos) / 60
    assert minutes >= 0.2
    first, last = capsys.readouterr().out.splitlines()
    assert first == "2 songs of one voice, 0.2 minutes at 48000 Hz"
    assert last.rpartition("; ")[0] == f"2 songs, {minutes:.2f} minutes, in {DEMO}"
    for path in wavs():
        samples = sf.read(path)[0]
        assert 0.2 < np.abs(samples).max() < 0.99


def test_the_wav_files_are_those_that_they_have_always_been() -> None:
    """On one kind of processor; elsewhere the last bits may differ, and with them a few samples of 16 bits."""
    run(minutes=0.05, files=1)
    samples = sf.read(DEMO / "song-01.wav", dtype="int16")[0].astype(int)
    assert (len(samples), int(np.abs(samples).max())) == (330_527, 19_905)
    assert np.abs(samples).sum() == pytest.approx(1_083_963_702, rel=1e-5)


def test_labels_say_what_is_sung_when() -> None:
    run()
    for path in wavs():
        samples, rate = sf.read(path)
        labels = read_htk(path.with_suffix(".lab"), len(samples) / rate).labels
        assert labels[0].start == 0 and labels[-1].end == pytest.approx(len(samples) / rate, abs=1 / rate)
        for before, after in pairwise(labels):
            assert before.end == pytest.approx(after.start, abs=2e-5)
        names = {label.name for label in labels}
        assert {"br", "pau"} <= names <= {"br", "pau", *VOWELS, *CONSONANTS}

        def level(label: Label, samples: np.ndarray = samples, rate: int = rate) -> float:
            third = (label.end - label.start) / 3
            middle = samples[round((label.start + third) * rate) : round((label.end - third) * rate)]
            return float(np.sqrt(np.mean(middle**2)))

        sung = [level(label) for label in labels if label.name in VOWELS]
        quiet = [level(label) for label in labels if label.name in ("br", "pau") and label.end - label.start > 0.1]
        assert min(sung) > 2 * max(quiet)


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
    assert one == {
        name: several[name] for name in ("song-01.lab", "song-01.wav")
    }  # and what an earlier run left is gone
    assert several["song-01.wav"] != several["song-02.wav"]
