"""The manifest is written and read in one place, without loading pandas."""

import subprocess
import sys

import pyarrow as pa
import pytest

from stages.corpus.manifest import MANIFEST, SCHEMA, read_manifest, write_manifest

ROWS = [
    {"path": 'a\n"é.wav', "status": "ok", "singer": "a", "output": "a.flac", "source_rate": 44100, "gain": 1.0},
    {"path": "b.txt", "status": "rejected", "reason": "not audio"},
    {"path": "c.wav", "status": "ok", "seconds_removed": 2.5, "pauses": [{"start": 1.0, "seconds": 2.5}]},
    {"path": "d.wav", "status": "ok", "seconds_removed": 0.0, "pauses": []},
]


def test_rows_come_back_with_every_column(tmp_path):
    write_manifest(tmp_path, ROWS)
    assert read_manifest(tmp_path) == [dict.fromkeys(SCHEMA.names) | row for row in ROWS]


def test_a_row_may_be_long(tmp_path):
    """Ten hours with a pause every two seconds, and some rows more."""
    pauses = [{"start": 2.000041666 * i, "seconds": 0.720041666} for i in range(40_000)]
    rows = [{"path": f"{number}.wav", "status": "ok", "pauses": pauses} for number in range(3)]
    write_manifest(tmp_path, [*ROWS, *rows])
    assert [row["pauses"] for row in read_manifest(tmp_path)[-3:]] == [pauses] * 3


@pytest.mark.parametrize("row", [{"path": "a.wav", "status": "ok", "sample_rate": 1}, {"path": "a.wav"}])
def test_other_columns_and_missing_ones_are_refused(tmp_path, row):
    with pytest.raises(pa.ArrowInvalid):
        write_manifest(tmp_path, [row])
    assert not (tmp_path / MANIFEST).exists()


def test_pandas_is_not_loaded(tmp_path):
    program = (
        "import sys; from pathlib import Path; from stages.corpus.manifest import read_manifest, write_manifest; "
        f"folder = Path({str(tmp_path)!r}); write_manifest(folder, {ROWS}); read_manifest(folder); "
        "sys.exit('pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
