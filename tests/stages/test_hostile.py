"""A corpus of arbitrary files: each gets a row, nothing is written outside the output folder, the stage ends."""

import os
import resource
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.corpus.manifest import MANIFEST
from stages.downsample import downsample
from stages.parameters import load_params
from tests.params_file import edit_params

ROOT = Path(__file__).parents[2]
OUTPUT = Path("data/24k")


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Return an empty corpus in an empty project, and make the project the working folder."""
    monkeypatch.chdir(tmp_path)
    path = Path("recordings")
    path.mkdir()
    return path


def params(**changes):
    settings = {"max_rejected": 1.0, "min_seconds": 0.0} | changes
    return load_params(edit_params(Path(), {"corpus": {"path": "recordings"}, "downsample": settings}))


def run(**changes):
    """Run the stage, check which files it wrote, and return the rows of its manifest by path."""
    outside = {path for path in Path().rglob("*") if not path.is_relative_to("data")}
    downsample(params(**changes))
    rows = {row["path"]: row for row in pq.read_table(OUTPUT / MANIFEST).to_pylist()}
    written = {path.relative_to(OUTPUT).as_posix() for path in OUTPUT.rglob("*") if path.is_file()}
    assert written == {MANIFEST} | {row["output"] for row in rows.values() if row["status"] == "ok"}
    assert [path.name for path in Path("data").iterdir()] == ["24k"]
    assert outside | {Path("params.yaml")} == {path for path in Path().rglob("*") if not path.is_relative_to("data")}
    return rows


def wave(path, frames=2400, rate=24000, channels=1, **options):
    rng = np.random.default_rng(list(os.fsencode(path.name)))  # no two files hold the same recording
    signal = rng.uniform(-0.3, 0.3, frames)
    soundfile.write(path, np.repeat(signal[:, None], channels, axis=1), rate, **options)
    return path


def test_troublesome_files_are_used_or_rejected_with_a_reason(corpus):
    wave(corpus / "8 bit.wav", subtype="PCM_U8")
    wave(corpus / "24 bit.wav", subtype="PCM_24")
    wave(corpus / "a-law.wav", subtype="ALAW")
    wave(corpus / "384 kHz.wav", 38400, 384000)
    wave(corpus / "64 channels.wav", channels=64, format="WAVEX")
    wave(corpus / "compressed.aifc", format="AIFF", subtype="ULAW")
    soundfile.write(corpus / "loud.wav", np.sin(np.arange(2400)) * 1e30, 24000, "FLOAT")
    wave(corpus / "one sample.wav", 2)
    soundfile.write(corpus / "single.wav", np.array([0.5]), 24000)
    wave(corpus / "1 Hz.wav", 100, 1)
    whole = wave(corpus / "whole.wav").read_bytes()
    (corpus / "header only.wav").write_bytes(whole[:44])
    (corpus / "no bytes.wav").write_bytes(b"")
    (corpus / "cut.wav").write_bytes(whole[:1000])
    sphere = wave(corpus / "sphere.wav", format="NIST").read_bytes()
    (corpus / "cut sphere.wav").write_bytes(sphere[:-2])
    sun = wave(corpus / "sun.au").read_bytes()
    (corpus / "cut sun.au").write_bytes(sun[:-2])
    wave(corpus / "paris.paf", format="PAF")
    (corpus / "claims hours.wav").write_bytes(whole[:40] + struct.pack("<I", 2**31) + whole[44:])
    (corpus / "text.wav").write_text("Dear diary,")
    vorbis = wave(corpus / "one.ogg").read_bytes()
    (corpus / "chained.ogg").write_bytes(vorbis + vorbis)
    rows = run()
    used = {name for name, row in rows.items() if row["status"] == "ok"}
    assert used == {
        *("8 bit.wav", "24 bit.wav", "a-law.wav", "384 kHz.wav", "64 channels.wav", "compressed.aifc", "loud.wav"),
        *("one sample.wav", "single.wav", "whole.wav", "one.ogg", "sphere.wav", "sun.au"),
    }
    reasons = {name: row["reason"] for name, row in rows.items() if name not in used}
    assert reasons == {
        "1 Hz.wav": "a sample rate of 1 Hz, which holds no sound; the least is 1000 Hz",
        "chained.ogg": "several Ogg streams one after another, of which only the first can be read",
        "claims hours.wav": "truncated: its header claims 2147483648 bytes of audio, the file holds 4800",
        "cut sphere.wav": "truncated: its header claims 2400 frames, the file holds 2399",
        "cut sun.au": "truncated or damaged; libsndfile notes: Data Size : 4800 (should be 4798)",
        "cut.wav": "truncated: its header claims 4800 bytes of audio, the file holds 956",
        "header only.wav": "truncated: its header claims 4800 bytes of audio, the file holds 0",
        "no bytes.wav": "empty: it holds no bytes",
        "paris.paf": "whether a file of format PAF is whole cannot be told; convert it to FLAC or WAV",
        "text.wav": "not audio in any format that can be read",
    }
    assert rows["loud.wav"]["gain"] == pytest.approx(1e-30, rel=1e-2)


def test_links_that_leave_the_corpus_or_loop(corpus):
    wave(corpus / "real.wav")
    Path("outside").mkdir()
    wave(Path("outside/secret.wav"))
    for name, target in {
        "out.wav": "../outside/secret.wav",
        "absolute.wav": Path("outside/secret.wav").absolute(),
        "passwd.wav": "/etc/passwd",
        "loop.wav": "loop.wav",
        "ping.wav": "pong.wav",
        "pong.wav": "ping.wav",
        "folder": "../outside",
        "up": "..",
        "itself": ".",
        "inside.wav": "real.wav",
    }.items():
        (corpus / name).symlink_to(target)
    rows = run()
    assert {name for name, row in rows.items() if row["status"] == "ok"} == {"inside.wav"}
    assert (rows["real.wav"]["status"], rows["real.wav"]["reason"]) == ("duplicate", "same recording as inside.wav")
    reasons = {name: row["reason"].split(":")[0] for name, row in rows.items() if row["status"] == "rejected"}
    assert reasons == {
        **dict.fromkeys(("out.wav", "absolute.wav", "passwd.wav", "folder", "up"), "link out of the corpus"),
        **dict.fromkeys(("loop.wav", "ping.wav", "pong.wav"), "broken link"),
        "itself": "link to a folder, which is not followed",
    }


HOSTILE = [
    b"..a",
    b"...",
    b"-rf",
    b"--help",
    b"'",
    b'"',
    b"`id`",
    b"$(id)",
    b"a\nb",
    b"\\",
    b"\xff\xfe",
    b"%s",
    b"*",
    b"~",
]
parts = st.one_of(
    st.sampled_from(HOSTILE),
    st.binary(min_size=1, max_size=40).map(lambda name: name.translate(None, b"/\0")),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60).map(
        str.encode
    ),
    st.sampled_from(["a", "A", "é", "e\u0301", "🎵", "x" * 251]).map(str.encode),
).filter(lambda name: name not in (b"", b".", b"..") and len(name) <= 250)
suffixes = st.sampled_from([b".wav", b".WAV", b".flac", b"", b".mp3", b".txt"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.tuples(st.lists(parts, max_size=2), parts, suffixes), min_size=1, max_size=60))
def test_any_names(tmp_path_factory, names):
    """Up to 2,400 files with arbitrary names, in folders with arbitrary names."""
    folder = tmp_path_factory.mktemp("names")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("recordings").mkdir()
        header = wave(Path("template"), format="WAV").read_bytes()[:44]
        Path("template").unlink()
        made, rng = 0, np.random.default_rng(0)
        for folders, stem, suffix in names:
            path = Path(os.fsdecode(b"/".join([b"recordings", *folders, stem + suffix])))
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as file:
                    file.write(header + rng.bytes(4800))  # another recording each time
            except OSError:  # the name is too long, or taken by a folder
                continue
            hidden = any(part.startswith(".") and not part.startswith("..") for part in path.parts)
            made += not hidden
        if not made:
            return
        rows = run()
        used = [row["output"] for row in rows.values() if row["status"] == "ok"]
        assert len(set(used)) == len(used) == made
        assert all(soundfile.info(OUTPUT / output).frames == 2400 for output in used)


def limited(gigabytes):
    resource.setrlimit(resource.RLIMIT_DATA, (int(gigabytes * 2**30),) * 2)


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.skipif(os.environ.get("FAULTS") == "bounded", reason="takes too long for the bounded form")
@pytest.mark.parametrize(("max_pause_seconds", "left"), [(None, 36000), (0.5, 1.25)])
def test_a_recording_of_ten_hours_in_little_memory(corpus, max_pause_seconds, left):
    """Most of the file is a hole, which reads as zeros."""
    rate, seconds = 8000, 36000
    path = wave(corpus / "night.wav", rate, rate, subtype="PCM_16")
    with path.open("r+b") as file:
        file.truncate(44 + 2 * rate * seconds)
        for offset, value in ((4, 36 + 2 * rate * seconds), (40, 2 * rate * seconds)):
            file.seek(offset)
            file.write(struct.pack("<I", value))
    params(max_pause_seconds=max_pause_seconds)
    result = subprocess.run(
        [sys.executable, "-m", "stages.downsample"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        preexec_fn=lambda: limited(1),
    )
    assert result.returncode == 0, result.stderr
    (row,) = pq.read_table(OUTPUT / MANIFEST).to_pylist()
    assert (row["status"], row["seconds_in"]) == ("ok", seconds)
    assert row["seconds_out"] == pytest.approx(left, abs=0.02)
