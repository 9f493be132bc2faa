"""Thousands of damaged files: `downsample` neither crashes nor hangs, and accepts no truncated recording."""

import io
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from tests.params_file import edit_params

from .conftest import BOUNDED, ENVIRONMENT

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared/data"
BATCHES, CASES = (1, 500) if BOUNDED else (10, 500)
SECONDS = 300  # limit for one batch, which takes a tenth of it
# Format, subtype, channels, Hz.
KINDS = [
    ("WAV", "PCM_16", 2, 44100),
    ("WAV", "PCM_U8", 1, 8000),
    ("WAV", "FLOAT", 1, 24000),
    ("WAV", "IMA_ADPCM", 1, 22050),
    ("WAVEX", "PCM_24", 3, 16000),
    ("RF64", "PCM_16", 1, 24000),
    ("W64", "PCM_16", 1, 24000),
    ("AIFF", "PCM_16", 2, 44100),
    ("AIFF", "ULAW", 1, 8000),
    ("AU", "PCM_16", 1, 24000),
    ("CAF", "ALAC_16", 2, 48000),
    ("CAF", "PCM_16", 1, 24000),
    ("NIST", "PCM_16", 1, 16000),
    ("VOC", "PCM_16", 1, 22050),
    ("SVX", "PCM_16", 1, 24000),
    ("MAT4", "PCM_16", 1, 24000),
    ("HTK", "PCM_16", 1, 16000),
    ("WVE", "ALAW", 1, 8000),
    ("MP3", "MPEG_LAYER_III", 1, 44100),
    ("FLAC", "PCM_16", 2, 44100),
    ("FLAC", "PCM_24", 1, 24000),
    ("OGG", "VORBIS", 1, 44100),
    ("OGG", "OPUS", 1, 48000),
]
CHECKED = {"FLAC", "OGG"}  # they have a checksum of all samples


def seeds():
    """Yield whole files, and whether a checksum covers their samples; real recordings too, where there are any."""
    rng = np.random.default_rng(0)
    for container, subtype, channels, rate in KINDS:
        time = np.arange(rate // 3)[:, None] / rate
        signal = 0.3 * np.sin(2 * np.pi * 440 * time) + rng.uniform(-0.1, 0.1, (len(time), channels))
        file = io.BytesIO()
        soundfile.write(file, signal, rate, format=container, subtype=subtype)
        yield file.getvalue(), container in CHECKED
    for path in sorted(REAL.rglob("*.flac"), key=lambda path: path.stat().st_size)[:6]:
        yield path.read_bytes(), True


def mutated(content, others, rng):
    """Return the bytes after one to three accidents."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if not content:
            break
        at = rng.randrange(rng.choice([64, 256, len(content)])) % len(content)
        end = at + rng.choice([1, 4, 100, 5000])
        match rng.randrange(8):
            case 0 | 1:
                content[at : at + 1] = bytes([content[at] ^ 1 << rng.randrange(8)])
            case 2:
                content[at : at + 4] = rng.choice(
                    [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80"]
                )
            case 3:
                del content[at:]  # a copy that stopped
            case 4:
                del content[at:end]
            case 5:
                content[at:at] = content[at:end]
            case 6:
                content[at:end] = bytes(len(content[at:end]))  # a download with a hole
            case 7:
                other = rng.choice(others)
                content[at:] = other[rng.randrange(len(other)) :]
    return bytes(content)


def samples(path):
    return soundfile.read(path, dtype="int32", always_2d=True)[0]


@pytest.mark.parametrize("batch", range(BATCHES))
def test_damaged_recordings(tmp_path, batch):
    rng = random.Random(batch)
    whole = list(seeds())
    corpus = tmp_path / "recordings"
    corpus.mkdir()
    origins = {}
    for number in range(CASES):
        index = rng.randrange(len(whole))
        name = f"{number:04}{rng.choice(['.wav', '.flac', '.mp3', ''])}"
        content = mutated(whole[index][0], [content for content, _ in whole], rng)
        (corpus / name).write_bytes(content)
        origins[name] = index, content
    # Without a single usable recording the stage would fail.
    (corpus / "whole").write_bytes(whole[0][0])
    edit_params(tmp_path, {"corpus": {"path": "recordings"}, "downsample": {"max_rejected": 1.0, "min_seconds": 0.0}})
    result = subprocess.run(
        [sys.executable, "-m", "stages.downsample"],
        cwd=tmp_path,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert sorted(os.listdir(tmp_path)) == ["data", "params.yaml", "recordings"]  # noqa: PTH208  # names
    rows = {row["path"]: row for row in pq.read_table(tmp_path / "data/24k/manifest.parquet").to_pylist()}
    assert rows.keys() == {*origins, "whole"}
    assert rows["whole"]["status"] != "rejected"  # a duplicate, if damage to another file spared its samples
    taken = 0
    for name, (index, content) in origins.items():
        row = rows[name]
        assert (row["status"] == "ok") != bool(row["reason"])
        if row["status"] != "ok":
            assert "\n" not in row["reason"]
            continue
        taken += 1
        flac = soundfile.info(tmp_path / "data/24k" / row["output"])
        assert flac.frames == round(row["seconds_out"] * 24000)
        original, checked = whole[index]
        if original.startswith(content):  # truncated: only padding or an end mark can be missing
            np.testing.assert_array_equal(samples(corpus / name), samples(io.BytesIO(original)))
        if checked and content[:4] == original[:4] and content != original and not is_spliced(content, whole):
            # The checksum is right, so the samples are: only tags or padding can be damaged.
            np.testing.assert_array_equal(samples(corpus / name), samples(io.BytesIO(original)))
    print(f"batch {batch}: {CASES} damaged files, {taken} used")


def is_spliced(content, whole):
    """Whether it ends like another of the files: then it may be that file, with something before it."""
    return sum(content[-64:] == original[-64:] for original, _ in whole) != 1
