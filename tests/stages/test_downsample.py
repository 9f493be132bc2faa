"""The stage `downsample`: from a folder with files of any kind to recordings and their manifest."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from stages.command import StageError
from stages.corpus.conversion import Job, convert_file
from stages.corpus.manifest import MANIFEST, SCHEMA
from stages.downsample import downsample
from stages.parameters import Downsample, load_params
from tests.params_file import edit_params

OUTPUT = Path("data/24k")
SETTINGS = Downsample(sample_rate=24000, min_seconds=0.5, max_pause_seconds=None, max_rejected=0)
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """An empty corpus in an empty project, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    path = Path("recordings")
    path.mkdir()
    return path


def run(corpus, **settings):
    """Run the stage with these settings; return the rows of its manifest by path."""
    downsample(load_params(edit_params(Path(), {"corpus": {"path": str(corpus)}, "downsample": settings})))
    return {row["path"]: row for row in pq.read_table(OUTPUT / MANIFEST).to_pylist()}


def tone(path, *, seconds=1.0, sample_rate=24000, channels=1, level=0.5, subtype=None, hz=440.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = level * np.sin(2 * np.pi * hz * np.arange(int(seconds * sample_rate)) / sample_rate)
    soundfile.write(path, np.repeat(wave[:, None], channels, axis=1), sample_rate, subtype)


def test_recordings_of_all_kinds(corpus, capsys):
    tone(corpus / "a.wav", seconds=1.5, sample_rate=44100, channels=2)
    tone(corpus / "album one" / "b.flac", sample_rate=96000)
    tone(corpus / "c.ogg", sample_rate=48000)
    tone(corpus / "d.mp3", sample_rate=32000)
    tone(corpus / "e.aiff", seconds=2, sample_rate=8000)
    tone(corpus / "loud.wav", level=4.0, subtype="FLOAT")
    (corpus / "notes.txt").write_text("a note")
    rows = run(corpus)
    recordings = ["a.wav", "album one/b.flac", "c.ogg", "d.mp3", "e.aiff", "loud.wav"]
    assert list(rows) == [*recordings, "notes.txt"]
    assert pq.read_schema(OUTPUT / MANIFEST).equals(SCHEMA)
    for name in recordings:
        row = rows[name]
        assert (row["status"], row["reason"]) == ("ok", None)
        assert row["output"] == str(Path(name).with_suffix(".flac"))
        info = soundfile.info(OUTPUT / row["output"])
        assert (info.samplerate, info.channels, info.subtype) == (24000, 1, "PCM_24")
        assert info.frames == row["seconds_out"] * 24000
        assert row["seconds_out"] == pytest.approx(row["seconds_in"], abs=1 / 24000)
    assert (rows["a.wav"]["source_rate"], rows["a.wav"]["channels"], rows["a.wav"]["seconds_in"]) == (44100, 2, 1.5)
    assert rows["a.wav"]["gain"] == 1
    assert rows["a.wav"]["peak"] == pytest.approx(0.5, abs=0.02)
    assert rows["a.wav"]["rms"] == pytest.approx(0.5 / 2**0.5, rel=0.01)
    assert rows["loud.wav"]["gain"] == pytest.approx(0.25, rel=1e-3)
    assert rows["notes.txt"] == dict.fromkeys(SCHEMA.names) | {
        "path": "notes.txt",
        "status": "rejected",
        "reason": "not audio in any format that can be read",
    }
    first, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"7 files below .+, to mono FLAC at 24000 Hz", first)
    told = (
        "6 files used, 0 rejected, 0 duplicates, 1 others skipped: "
        "0.00 h in, 0.0 min of pauses removed, 0.00 h out, in data/24k"
    )
    assert last.rpartition("; ")[0] == told


def test_what_cannot_be_used_is_listed_and_the_rest_goes_on(corpus, capsys):
    tone(corpus / "good.wav")
    whole = (corpus / "good.wav").read_bytes()
    (corpus / "cut.wav").write_bytes(whole[:-1000])
    (corpus / "text.wav").write_text("not a recording")
    (corpus / "empty.wav").write_bytes(b"")
    (corpus / "song.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    soundfile.write(corpus / "no samples.wav", np.zeros(0), 24000)
    soundfile.write(corpus / "silent.wav", np.zeros(24000), 24000)
    soundfile.write(corpus / "nan.wav", np.full(24000, np.nan), 24000, "FLOAT")
    soundfile.write(corpus / "infinite.wav", np.full(24000, np.inf), 24000, "FLOAT")
    tone(corpus / "short.wav", seconds=0.4)
    os.mkfifo(corpus / "pipe.wav")
    (corpus / "gone.wav").symlink_to("nothing")
    rows = run(corpus, max_rejected=0.95)
    reasons = {name: row["reason"] for name, row in rows.items()}
    assert reasons == {
        "cut.wav": "truncated: its header claims 48000 bytes of audio, the file holds 47000",
        "empty.wav": "empty: it holds no bytes",
        "gone.wav": "broken link: No such file or directory",
        "good.wav": None,
        "infinite.wav": "NaN or infinite samples",
        "nan.wav": "NaN or infinite samples",
        "no samples.wav": "empty: it holds no samples",
        "pipe.wav": "not a regular file",
        "short.wav": "shorter than downsample.min_seconds 0.5: 0.400 s",
        "silent.wav": "all samples are zero (or below 24 bits) once mixed to mono",
        "song.m4a": "audio of a kind that cannot be read (.m4a); convert it to FLAC or WAV",
        "text.wav": "not audio in any format that can be read",
    }
    assert {row["status"] for row in rows.values() if row["path"] != "good.wav"} == {"rejected"}
    assert sorted(path.name for path in OUTPUT.iterdir()) == ["good.flac", MANIFEST]
    captured = capsys.readouterr()
    assert "1 files used, 11 rejected" in captured.out
    assert "\n  cut.wav: truncated: " in captured.err


def test_too_many_rejected_files_fail_the_stage_with_the_list(corpus):
    for number in range(2):
        tone(corpus / f"good {number}.wav", hz=440 + number)
        (corpus / f"bad {number}.wav").write_text("not a recording")
        (corpus / f"note {number}.txt").write_text("a note")
    assert len(run(corpus, max_rejected=0.5)) == 6
    before = (OUTPUT / MANIFEST).read_bytes()
    (corpus / "bad 2.wav").write_text("not a recording")
    with pytest.raises(StageError, match=r"60% of the recordings in recordings .*max_rejected: 0\.5") as error:
        run(corpus, max_rejected=0.5)
    for number in range(3):
        assert f"\n  bad {number}.wav: not audio" in str(error.value)
    assert "note" not in str(error.value)
    assert (OUTPUT / MANIFEST).read_bytes() == before
    assert [path.name for path in Path("data").iterdir()] == ["24k"]


def test_no_usable_file_fails_the_stage_with_the_list(corpus):
    for number in range(25):
        (corpus / f"{number:02}.txt").write_text("a note")
    with pytest.raises(StageError, match="no usable recording in recordings") as error:
        run(corpus, max_rejected=1.0)
    assert "  19.txt: not audio" in str(error.value)
    assert str(error.value).endswith("  and 5 more")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "nowhere is not a folder; it does not exist"),
        ("file.wav", "file.wav is not a folder"),
        ("recordings", "recordings holds no files"),
        (".", "lie inside each other"),
        ("data", "lie inside each other"),
        ("data/24k/sub", "lie inside each other"),
    ],
)
def test_a_corpus_that_cannot_be(corpus, path, message):
    tone(Path("file.wav"))
    Path("data/24k/sub").mkdir(parents=True)
    with pytest.raises(StageError, match=re.escape(message)):
        run(path)


def test_two_runs_are_byte_identical(corpus):
    for number in range(3):
        tone(corpus / f"{number}.wav", sample_rate=44100, seconds=0.6 + number / 10)
    (corpus / "bad.wav").write_text("not a recording")

    def contents():
        return {path.name: path.read_bytes() for path in OUTPUT.iterdir()}

    run(corpus)
    first = contents()
    run(shutil.copytree(corpus, "elsewhere"))
    assert contents() == first


@pytest.mark.parametrize(
    "name",
    [
        "-rf .wav",
        "'quoted\" $(name).wav",
        "new\nline.wav",
        "émoji 🎵.wav",
        "x" * 251 + ".wav",
        b"latin\xe9.wav",
        "%s{}.wav",
    ],
)
def test_hostile_names(corpus, name):
    path = corpus / os.fsdecode(name)
    tone(corpus / "plain.wav")
    (corpus / "plain.wav").rename(path)
    (row,) = run(corpus).values()
    assert soundfile.info(OUTPUT / row["output"]).frames == 24000
    if isinstance(name, str):
        assert row["path"] == name


def test_same_stem_twice(corpus):
    tone(corpus / "a.wav")
    tone(corpus / "a.flac", seconds=2)
    rows = run(corpus)
    assert {name: (row["output"], row["seconds_out"]) for name, row in rows.items()} == {
        "a.flac": ("a.flac.flac", 2.0),
        "a.wav": ("a.wav.flac", 1.0),
    }


def sung(path, *parts, sample_rate=24000, **options):
    """Write a recording of tones, each of so many seconds, and pauses, of so many seconds below zero."""
    pieces = [np.sin(np.arange(int(seconds * sample_rate)) * hz) for hz, seconds in enumerate(map(abs, parts), start=1)]
    signal = np.concatenate([0.4 * piece * (part > 0) for part, piece in zip(parts, pieces, strict=True)])
    soundfile.write(path, signal, sample_rate, **options)
    return signal


def test_pauses_are_shortened_and_the_manifest_says_where(corpus, capsys):
    sung(corpus / "a.wav", -1, 2, -3, 1, -0.4, 1, -2)
    soundfile.write(corpus / "b.wav", 0.1 * np.random.default_rng(0).standard_normal(24000), 24000)
    rows = run(corpus)
    row = rows["a.wav"]
    assert row["seconds_in"] == pytest.approx(row["seconds_out"] + row["seconds_removed"]) == 10.4
    assert row["seconds_removed"] == pytest.approx(0.75 + 2.5 + 1.75, abs=0.05)
    starts, lengths = zip(*((pause["start"], pause["seconds"]) for pause in row["pauses"]), strict=True)
    assert starts == pytest.approx((0, 3.25, 8.65), abs=0.02)
    assert lengths == pytest.approx((0.75, 2.5, 1.75), abs=0.03)
    assert soundfile.info(OUTPUT / "a.flac").frames == round(row["seconds_out"] * 24000)
    assert (rows["b.wav"]["seconds_removed"], rows["b.wav"]["pauses"]) == (0, [])
    assert "0.1 min of pauses removed" in capsys.readouterr().out
    rows = run(corpus, max_pause_seconds=None)
    assert (rows["a.wav"]["seconds_out"], rows["a.wav"]["pauses"]) == (10.4, [])


def test_the_least_length_is_that_without_pauses(corpus):
    sung(corpus / "a.wav", 5)
    sung(corpus / "b.wav", -2, 0.1, -2)
    rows = run(corpus, min_seconds=1.0, max_pause_seconds=0.3)
    reason = rows["b.wav"]["reason"]
    assert re.fullmatch(r"shorter than downsample\.min_seconds 1\.0 without its pauses: 0\.4\d\d s", reason)
    assert sorted(path.name for path in OUTPUT.iterdir()) == ["a.flac", MANIFEST]


def test_a_recording_that_is_there_twice_is_used_once(corpus, capsys):
    for folder in ("a", "copies"):
        (corpus / folder).mkdir()
    signal = sung(corpus / "a/song.wav", 2, -3, 1, sample_rate=44100, subtype="PCM_24")
    soundfile.write(corpus / "copies/song.flac", 0.25 * signal, 44100, "PCM_16")
    soundfile.write(corpus / "copies/song.aiff", signal, 44100, "PCM_24")
    shutil.copy(corpus / "a/song.wav", corpus / "z.wav")
    soundfile.write(corpus / "backwards.wav", signal[::-1], 44100)
    (corpus / "bad.wav").write_text("not a recording")
    rows = run(corpus, max_rejected=0.2)  # 1 of 6 recordings
    assert {path: row["status"] for path, row in rows.items()} == {
        "a/song.wav": "ok",
        "backwards.wav": "ok",
        "bad.wav": "rejected",
        "copies/song.aiff": "duplicate",
        "copies/song.flac": "duplicate",
        "z.wav": "duplicate",
    }
    assert rows["copies/song.flac"] == dict.fromkeys(SCHEMA.names) | {
        "path": "copies/song.flac",
        "singer": "copies",
        "status": "duplicate",
        "reason": "same recording as a/song.wav",
    }
    assert sorted(path.relative_to(OUTPUT).as_posix() for path in OUTPUT.rglob("*")) == [
        "a",
        "a/song.flac",
        "backwards.flac",
        MANIFEST,
    ]
    captured = capsys.readouterr()
    assert "2 files used, 1 rejected, 3 duplicates, 0 others skipped" in captured.out
    assert "duplicates:\n  copies/song.aiff: same recording as a/song.wav\n" in captured.err


def test_a_file_that_must_not_be_read(corpus, monkeypatch):
    tone(corpus / "a.wav")

    def deny(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    row = convert_file(Job(corpus / "a.wav", "a.wav", None, Path("out"), "a.flac", None, SETTINGS))
    assert (row["status"], row["reason"]) == ("rejected", "cannot be read: Permission denied")
