"""Which rows of a manifest become duplicates, and what remains of their files."""

import numpy as np
import pytest
import soundfile

from stages.command import StageError
from stages.corpus.conversion import SKETCH, Job, convert_file
from stages.corpus.duplicates import mark_duplicates
from stages.parameters import Downsample

RATE = 24000


def take(seed, seconds=1.0):
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE))


@pytest.fixture
def marked(tmp_path):
    """Converts signals by name in that order, and marks the duplicates."""
    (tmp_path / "out").mkdir()

    def mark(signals, change=lambda sources: None):
        sources = [tmp_path / f"{name}.wav" for name in signals]
        for source, signal in zip(sources, signals.values(), strict=True):
            soundfile.write(source, signal, RATE, "PCM_24")
        settings = Downsample(sample_rate=RATE, min_seconds=0.5, max_pause_seconds=0.5, max_rejected=0)
        jobs = [
            Job(source, source.name, None, tmp_path / "out", f"{source.stem} folder/a.flac", None, settings)
            for source in sources
        ]
        rows = [convert_file(job) for job in jobs]
        change(sources)
        return mark_duplicates(rows, sources, tmp_path / "out"), tmp_path / "out"

    return mark


def test_the_first_of_each_recording_is_kept(marked):
    rows, folder = marked(
        {"a": take(0), "b": take(1), "c": take(1) / 3, "d": take(0), "e": take(1), "f": take(2), "g": take(0, 2)}
    )
    reasons = {row["path"]: row["reason"] for row in rows if row["status"] == "duplicate"}
    assert reasons == {
        "c.wav": "same recording as b.wav",
        "d.wav": "same recording as a.wav",
        "e.wav": "same recording as b.wav",
    }
    assert [path.name[0] for path in sorted(folder.iterdir())] == ["a", "b", "f", "g"]
    assert not any(SKETCH in row for row in rows)


def test_a_rejected_recording_has_no_duplicate(marked):
    rows, _ = marked({"a": take(0, 0.1), "b": take(0, 0.1), "c": take(0)})
    assert [row["status"] for row in rows] == ["rejected", "rejected", "ok"]


def test_pauses_that_differ_in_the_last_bits_hide_no_duplicate(marked):
    """Rounding moves the border of a pause, and so the length of what is left."""
    song = np.concatenate([take(0), np.linspace(1e-3, 0, RATE) * take(1), take(2)])
    coarse = np.rint(song * 2**9) / 2**9
    rows, _ = marked({"a": song, "b": coarse})
    assert [row["status"] for row in rows] == ["ok", "duplicate"]


def test_a_recording_that_is_gone_when_it_is_compared_is_named(marked):
    with pytest.raises(StageError, match=r"a\.wav and .*b\.wav cannot be compared: cannot be read: No such file"):
        marked({"a": take(0), "b": take(0)}, change=lambda sources: sources[1].unlink())
