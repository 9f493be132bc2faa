"""What is written to shards is what is read from them, and damage is noticed."""

import hashlib
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melnet.audio.mel import MelSpec
from melnet.data import shards
from melnet.data.shards import ShardError, Shards, ShardSpec, ShardWriter

MEL = MelSpec(sample_rate=24000, n_fft=256, hop_length=64, n_mels=3, fmin=300.0, fmax=8000.0, floor=1e-5)
SPEC = ShardSpec(frames=4, mel=MEL)


def slices(rows: int, made: ShardSpec = SPEC) -> np.ndarray:
    values = np.random.default_rng(rows).normal(-5, 3, (rows, made.frames, made.bands))
    return values.astype(np.float32)


def write(folder: Path, mels: np.ndarray, made: ShardSpec = SPEC, shard_rows: int = 10) -> None:
    with ShardWriter(folder, made, shard_rows) as writer:
        writer.write("a/b.wav", np.arange(len(mels)) * made.frames, mels)


def reindex(folder: Path) -> None:
    """Make the index say what the folder holds, whatever that is: the checks behind it are tested too."""
    sums = {}
    for path in sorted(folder.glob("part-*.parquet")):
        try:
            rows = pq.read_metadata(path).num_rows
        except pa.ArrowException:
            rows = 0
        sums[path.name] = {"rows": rows, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    (folder / shards.INDEX).write_text(json.dumps({"shards": sums}))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@given(
    parts=st.lists(st.tuples(st.text(max_size=5), st.integers(0, 30)), max_size=4),
    frames=st.integers(1, 5),
    bands=st.integers(1, 4),
    shard_rows=st.integers(1, 40),
    group_rows=st.integers(1, 15),
)
@settings(max_examples=60, deadline=None)
def test_round_trip(parts, frames, bands, shard_rows, group_rows):
    made = ShardSpec(frames=frames, mel=replace(MEL, n_mels=bands))
    mels = slices(sum(rows for _, rows in parts), made)
    positions = [(recording, k * frames) for recording, rows in parts for k in range(rows)]
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "GROUP_ROWS", group_rows)
        with ShardWriter(Path(name), made, shard_rows) as writer:
            done = 0
            for recording, rows in parts:
                writer.write(recording, np.arange(rows) * frames, mels[done : done + rows])
                done += rows
        result = Shards(Path(name))
        assert result.spec == made
        assert len(result) == writer.rows == len(mels)
        np.testing.assert_array_equal(result.read_all(), mels)
        assert list(result.positions()) == positions
        assert max((group.rows for group in result.groups), default=0) <= group_rows
        # Every shard is full but the last; without rows there is one that is empty.
        counts = [pq.read_metadata(path).num_rows for path in result.paths]
        assert counts[:-1] == [shard_rows] * (len(counts) - 1)
        assert len(counts) == max(1, -(-len(mels) // shard_rows))


def test_groups_are_read_in_any_order(tmp_path):
    mels = slices(25)
    write(tmp_path, mels)
    result = Shards(tmp_path)
    assert result.groups == [(0, 0, 10), (1, 0, 10), (2, 0, 5)]
    assert result.read_group(2).dtype == np.float32
    np.testing.assert_array_equal(result.read_group(2), mels[20:])
    np.testing.assert_array_equal(result.read_group(0), mels[:10])


def test_row_groups_of_large_slices_are_short(tmp_path):
    large = ShardSpec(frames=2**17, mel=MEL)
    write(tmp_path, slices(4, large), large)
    assert [group.rows for group in Shards(tmp_path).groups] == [2, 2]


def test_same_slices_same_bytes(tmp_path):
    write(tmp_path / "a", slices(25))
    write(tmp_path / "b", slices(25))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_nothing_unfinished_is_left_behind(tmp_path):
    with pytest.raises(RuntimeError, match="stop"), ShardWriter(tmp_path, SPEC, 10) as writer:
        writer.write("a", np.arange(15), slices(15))
        raise RuntimeError("stop")
    assert list(contents(tmp_path)) == ["part-00000.parquet"]
    with pytest.raises(ShardError, match=r"index\.json: cannot be read: No such file .* incomplete"):
        Shards(tmp_path)


def test_a_failure_while_finishing_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), ShardWriter(tmp_path, SPEC, 10) as writer:
        writer.write("a", np.arange(5), slices(5))
        monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_name_the_recording(tmp_path, value):
    mels = slices(5)
    mels[3, 1, 2] = value
    with pytest.raises(ShardError, match=r"a/b\.wav: the slice at frame 12 "):
        write(tmp_path, mels)


def test_slices_of_another_shape_name_the_recording(tmp_path):
    with pytest.raises(ShardError, match=r"a/b\.wav: .*\(5, 3, 4\), expected \(5, 4, 3\)"):
        write(tmp_path, slices(5).swapaxes(1, 2))


def test_a_folder_without_shards(tmp_path):
    with pytest.raises(ShardError, match=str(tmp_path)):
        Shards(tmp_path)


def test_files_that_are_no_shards_are_named(tmp_path):
    path = tmp_path / "part-00000.parquet"
    path.write_text("not Parquet")
    reindex(tmp_path)
    with pytest.raises(ShardError, match=r"part-00000\.parquet: damaged or not a Parquet file"):
        Shards(tmp_path)
    newer = {shards.METADATA_KEY: json.dumps(asdict(SPEC) | {"version": 4})}
    pq.write_table(pa.table({"mel": [1.0]}).replace_schema_metadata(newer), path)
    reindex(tmp_path)
    with pytest.raises(ShardError, match=r"part-00000\.parquet: settings not understood: version"):
        Shards(tmp_path)


def test_a_missing_and_a_foreign_shard_are_named(tmp_path):
    write(tmp_path, slices(25))
    shutil.copy(tmp_path / "part-00000.parquet", tmp_path / "part-00007.parquet")
    with pytest.raises(ShardError, match=r"part-00007\.parquet: not in index\.json"):
        Shards(tmp_path)
    (tmp_path / "part-00007.parquet").unlink()
    (tmp_path / "part-00001.parquet").unlink()
    with pytest.raises(ShardError, match=r"part-00001\.parquet: missing"):
        Shards(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"shards": {}}', b'{"shards": {"a": {"rows": "1"}}}', b"\xff"])
def test_a_damaged_index_is_named(tmp_path, content):
    write(tmp_path, slices(5))
    (tmp_path / shards.INDEX).write_bytes(content)
    with pytest.raises(ShardError, match=r"index\.json: damaged or no index"):
        Shards(tmp_path)


def test_a_truncated_shard_is_named(tmp_path):
    write(tmp_path, slices(25))
    path = tmp_path / "part-00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ShardError, match=r"part-00001\.parquet: damaged"):
        Shards(tmp_path)


def test_every_flipped_bit_of_a_shard_is_refused(tmp_path):
    """Every one: without the index a few in the footer's size statistics make pyarrow end the whole process."""
    write(tmp_path, slices(12))
    path = tmp_path / "part-00001.parquet"
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(ShardError, match=r"part-00001\.parquet: damaged: its bytes"):
            Shards(tmp_path)


def test_damage_after_the_check_is_found_by_the_pages_checksums(tmp_path):
    mels = slices(25)
    write(tmp_path, mels)
    opened = Shards(tmp_path)
    path = tmp_path / "part-00001.parquet"
    whole = path.read_bytes()
    start = pq.read_metadata(path).row_group(0).column(3).data_page_offset
    refused = 0
    for position in range(start + 100, start + 400, 10):  # past the page's header
        damaged = bytearray(whole)
        damaged[position] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(ShardError, match=r"part-00001\.parquet: damaged or not a Parquet"):
            opened.read_group(1)
        refused += 1
    assert refused == 30


@given(at=st.integers(0), bit=st.integers(0, 7))
@settings(max_examples=300, deadline=None)
def test_a_flipped_bit_of_the_index_changes_no_slice_unnoticed(at, bit):
    mels = slices(25)
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, mels)
        path = folder / shards.INDEX
        damaged = bytearray(path.read_bytes())
        damaged[at % len(damaged)] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            result = Shards(folder)
        except ShardError as error:
            assert f"{folder}/" in str(error)
        else:  # the bit meant nothing, such as one of white space
            np.testing.assert_array_equal(result.read_all(), mels)
