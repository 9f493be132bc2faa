"""The stage `slice`: from recordings and their manifest to shards of three splits."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import stages.slice
from melnet.audio.spectrogram import log_mel
from melnet.data import slicing
from melnet.data.band_statistics import MIN_STD
from melnet.data.shards import Shards
from melnet.data.split import SPLITS
from stages.command import StageError
from stages.corpus.manifest import MANIFEST, SCHEMA
from stages.execution.parallel import parallel
from stages.parameters import Params, load_params
from stages.paths import CLEAN, PARAMS, SHARDS
from stages.slice import slice_recordings

RATE = 24000
SLICE_SECONDS = 50 * 512 / RATE
DEFAULTS = load_params(Path(__file__).parents[2] / PARAMS)


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """An empty project, which is the working folder; the work is done in one thread."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stages.slice, "parallel", lambda function, items, **_: (function(item) for item in items))


def params(**settings) -> Params:
    return DEFAULTS.model_copy(update={"slice": DEFAULTS.slice.model_copy(update=settings)})


def record(lengths: dict[str, float], rejected: tuple[str, ...] = ()) -> None:
    """What the stage `downsample` leaves: noise of so many seconds per recording, and its manifest."""
    rows = [{"path": path, "status": "rejected", "reason": "not audio"} for path in rejected]
    for path, seconds in lengths.items():
        output = str(Path(path).with_suffix(".flac"))
        (CLEAN / output).parent.mkdir(parents=True, exist_ok=True)
        samples = np.random.default_rng(len(path)).normal(0, 0.1, int(seconds * RATE)).clip(-1, 1)
        soundfile.write(CLEAN / output, samples, RATE, "PCM_24")
        rows.append({"path": path, "output": output, "status": "ok", "seconds_out": len(samples) / RATE})
    rows.sort(key=lambda row: row["path"])
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), CLEAN / MANIFEST)


def read() -> dict[str, dict[tuple[str, int], np.ndarray]]:
    """Slices by recording and first frame, for each split."""
    result = {}
    for split in SPLITS:
        shards = Shards(SHARDS / split)
        mels = shards.read_all()
        result[split] = dict(zip(shards.positions(), mels, strict=True))
        assert len(result[split]) == len(mels)
    return result


def contents() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in SHARDS.rglob("*") if path.is_file()}


def whole(path: str) -> np.ndarray:
    samples, _ = soundfile.read(CLEAN / Path(path).with_suffix(".flac"), dtype="float32")
    return log_mel(samples, DEFAULTS.mel_spec)


def test_every_slice_of_every_recording_is_in_one_split(capsys):
    lengths = {"a.wav": 70.0, "b/c.wav": 65.3, "d.mp3": 0.7, "e.wav": SLICE_SECONDS * 3}
    record(lengths, rejected=("cover.jpg",))
    slice_recordings(params(block_seconds=5.0))
    splits = read()
    spectrograms = {path: whole(path) for path in lengths}
    expected = {(path, 50 * k) for path in lengths for k in range(len(spectrograms[path]) // 50)}
    assert Counter(key for split in splits.values() for key in split) == Counter(expected)
    for split in splits.values():
        for (path, start), mel in split.items():
            np.testing.assert_allclose(mel, spectrograms[path][start : start + 50], atol=1e-5)
    counts = {split: len(slices) for split, slices in splits.items()}
    assert counts["train"] > counts["valid"] > 0
    assert counts["test"] > 0
    minutes = {split: f"{count} {split} ({count * SLICE_SECONDS / 60:.1f} min)" for split, count in counts.items()}
    first, last = capsys.readouterr().out.splitlines()
    assert (
        first
        == f"4 recordings, {sum(lengths.values()) / 3600:.2f} h, to {len(expected)} slices of 50 frames and 32 bands"
    )
    assert last.rpartition("; ")[0] == (
        f"slices of 50 frames: {', '.join(minutes.values())}, in data/shards; "
        "1 of 4 recordings are shorter than a slice (1.07 s)"
    )


def test_blocks_go_to_one_split_together():
    record({"a.wav": 120.0, "b.wav": 50.0})
    slice_recordings(params(block_seconds=5.0, valid=0.3, test=0.3))
    block = 5 * 50  # 5 s are 234 frames, nearest to 5 slices
    owners = {(path, start // block): split for split, slices in read().items() for path, start in slices}
    assert all(owners[path, start // block] == split for split, slices in read().items() for path, start in slices)
    assert Counter(owners.values()).keys() == set(SPLITS)


def test_enough_recordings_stay_whole():
    record({f"{k}.wav": 25.0 + k / 10 for k in range(12)})
    slice_recordings(params(block_seconds=None, valid=0.35, test=0.35))
    owners = [{path for path, _ in slices} for slices in read().values()]
    assert set.union(*owners) == {f"{k}.wav" for k in range(12)}
    assert sum(map(len, owners)) == 12  # none is in two splits


def test_normalisation_is_that_of_the_train_split():
    record({"a.wav": 60.0, "b.wav": 20.0})
    slice_recordings(params())
    train = np.stack(list(read()["train"].values())).astype(np.float64)
    normalisation = json.loads((SHARDS / "normalisation.json").read_text())
    assert normalisation["frames"] == train.shape[0] * train.shape[1]
    np.testing.assert_allclose(normalisation["mean"], train.mean(axis=(0, 1)), rtol=1e-9)
    np.testing.assert_allclose(normalisation["std"], train.std(axis=(0, 1)), rtol=1e-9)
    assert normalisation["low"] == train.min(axis=(0, 1)).tolist()
    assert normalisation["high"] == train.max(axis=(0, 1)).tolist()


def test_silence_can_be_normalised():
    record({"a.wav": 10.0})
    soundfile.write(CLEAN / "a.flac", np.zeros(10 * RATE), RATE, "PCM_24")
    slice_recordings(params())
    assert json.loads((SHARDS / "normalisation.json").read_text())["std"] == [MIN_STD] * 32


def test_chunks_do_not_show(monkeypatch):
    record({"a.wav": 60.0, "b.wav": 20.0})
    slice_recordings(params())
    splits = read()
    monkeypatch.setattr(slicing, "CHUNK_FRAMES", 100)
    monkeypatch.setattr(slicing, "TASK_CHUNKS", 3)
    slice_recordings(params(shard_rows=7))
    for split, slices in read().items():
        assert list(slices) == list(splits[split])
        for position, mel in slices.items():
            np.testing.assert_allclose(mel, splits[split][position], atol=1e-5)


def test_same_bytes_from_several_threads(monkeypatch):
    record({"a.wav": 60.0, "b.wav": 20.0})
    slice_recordings(params())
    alone = contents()
    monkeypatch.setattr(stages.slice, "parallel", parallel)
    slice_recordings(params())
    assert contents() == alone


def test_adding_a_recording_moves_no_slice():
    record({"a.wav": 120.0, "b.wav": 90.0})
    slice_recordings(params(block_seconds=5.0))
    before = {position: split for split, slices in read().items() for position in slices}
    record({"a.wav": 120.0, "b.wav": 90.0, "0.wav": 30.0})
    slice_recordings(params(block_seconds=5.0))
    after = {position: split for split, slices in read().items() for position in slices}
    assert before.items() < after.items()


@pytest.mark.parametrize("frames", [1, 20, 333])
def test_slices_of_another_length(frames):
    record({"a.wav": 60.0})
    slice_recordings(params(frames=frames))
    splits = read()
    assert sum(map(len, splits.values())) == (1 + 60 * RATE // 512) // frames
    assert {mel.shape for slices in splits.values() for mel in slices.values()} == {(frames, 32)}


@pytest.mark.parametrize(
    "lengths",
    [
        {"song.wav": 150.0},
        {f"{i}.wav": 30.0 for i in range(5)},
        {f"{i}.wav": 4.0 for i in range(4)},
        {"one.wav": 8.0},
        {"one.wav": 3 * SLICE_SECONDS},
    ],
    ids=["a song", "five recordings", "four short ones", "8 s", "three slices"],
)
def test_small_corpora_leave_no_split_empty(lengths, capsys):
    record(lengths)
    slice_recordings(params())
    assert all(len(slices) > 0 for slices in read().values())
    _, *notes, last = capsys.readouterr().out.splitlines()
    assert all(note.startswith("small corpus: ") for note in notes)
    assert last.startswith("slices of 50 frames")


def test_says_what_it_does_about_a_tiny_corpus(capsys):
    record({"one.wav": 3 * SLICE_SECONDS})
    slice_recordings(params())
    assert (
        capsys.readouterr().out.splitlines()[1]
        == "small corpus: blocks of 1 instead of 19 slices (slice.block_seconds)"
    )


def test_too_little_to_split_stops_the_stage():
    record({"a.wav": 1.5, "b.wav": 1.2})
    with pytest.raises(StageError, match=r"2 slices of 50 frames in 2 recordings are too few"):
        slice_recordings(params())


def test_without_a_manifest():
    with pytest.raises(StageError, match=r"data/24k/manifest\.parquet does not exist; the stage downsample"):
        slice_recordings(params())


def test_with_something_else_for_a_manifest():
    CLEAN.mkdir(parents=True)
    (CLEAN / MANIFEST).write_text("not Parquet")
    with pytest.raises(StageError, match=r"manifest\.parquet cannot be read: "):
        slice_recordings(params())
    pq.write_table(pa.table({"name": ["a.wav"]}), CLEAN / MANIFEST)
    with pytest.raises(StageError, match=r"manifest\.parquet has other columns .*'name'"):
        slice_recordings(params())


def test_at_another_rate_than_the_recordings():
    record({"a.wav": 10.0})
    other = params().model_copy(update={"downsample": DEFAULTS.downsample.model_copy(update={"sample_rate": 22050})})
    with pytest.raises(StageError, match=r"a\.flac has 24000 Hz, but downsample\.sample_rate is 22050"):
        slice_recordings(other)


def test_a_recording_that_went_missing_or_short_is_named_and_shards_stay():
    record({"a.wav": 10.0, "b.wav": 10.0})
    slice_recordings(params())
    before = contents()
    samples, _ = soundfile.read(CLEAN / "b.flac")
    soundfile.write(CLEAN / "b.flac", samples[:-RATE], RATE, "PCM_24")
    with pytest.raises(StageError, match=r"data/24k/b\.flac: shorter than the 240000 samples"):
        slice_recordings(params())
    (CLEAN / "b.flac").unlink()
    with pytest.raises(StageError, match=r"data/24k/b\.flac: cannot be read: No such file"):
        slice_recordings(params())
    assert contents() == before
